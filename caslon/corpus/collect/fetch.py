"""Fetching one item into the store: turns an address into a stored file, resumed, checked and asked for only once.

A download grows in `partial/`, beside the validator of the answer it belongs to; it goes on with `Range` and `If-Range`
(RFC 9110, 13.1.5), so a changed file starts anew. What is in the store is asked for with `If-None-Match` or
`If-Modified-Since`, and not at all when an announced checksum says that it is unchanged.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from caslon.corpus.collect.collector import Item
from caslon.corpus.collect.http import Answer, Client
from caslon.corpus.collect.problem import ItemProblem, TryAgain
from caslon.corpus.collect.store import Store, StoredFile, digest_of, storage_errors
from caslon.corpus.registry_entry import SourceEntry
from caslon.corpus.settings import CollectSettings

CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
PAGE = "page:"
MISSING_STATUSES = (404, 410)


class BudgetSpent(Exception):
    """The bytes this run may fetch are used up."""


@dataclass
class Budget:
    """Bytes that may still be fetched, and how many were."""

    most: int | None = None
    fetched: int = 0

    def take(self, size: int) -> None:
        """Count bytes that came; raise `BudgetSpent` once there are too many."""
        self.fetched += size
        if self.most is not None and self.fetched > self.most:
            raise BudgetSpent


class Fetcher:
    """What collectors fetch with. `connect` makes the client when the first request is due, so local sources need none."""

    def __init__(
        self,
        store: Store,
        settings: CollectSettings,
        connect: Callable[[], Client],
        *,
        budget: Budget | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.store, self.settings, self.budget = store, settings, budget or Budget()
        self._connect, self._now = connect, now
        self._opened: Client | None = None

    @property
    def client(self) -> Client:
        """The client of this run. Raises UserError when the settings name no contact."""
        if self._opened is None:
            self._opened = self._connect()
        return self._opened

    def close(self) -> None:
        """Close the connections, if any were opened."""
        if self._opened is not None:
            self._opened.close()

    def file(self, item: Item) -> StoredFile:
        """Return the item's file, fetched where it is missing or changed."""
        last: ItemProblem | None = None
        known = self.store.record(item.entry.id, item.path)
        urls = (item.url, *item.alternatives)
        for url in sorted(urls, key=lambda url: known is None or url != known.url):
            try:
                return self._fetched(replace(item, url=url), "file", {})
            except ItemProblem as problem:
                if problem.status not in MISSING_STATUSES:
                    raise
                last = last or problem
        assert last is not None
        raise last

    def page(
        self,
        entry: SourceEntry,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        unless: str = "",
        max_bytes: int | None = None,
    ) -> bytes:
        """Return a page that lists items or holds a record, as it is now.

        One without ETag and date is asked for every time, except when the file `unless` was already made of it.
        """
        known = self.page_record(entry, url)
        made = self.store.record(entry.id, unless) if unless else None
        if known is not None and self.store.holds(known) and self.store.holds(made) and not _validator(known):
            return self.store.read(known)
        item = Item(entry, f"{PAGE}{url}", url, max_bytes=max_bytes)
        return self.store.read(self._fetched(item, "page", headers or {}))

    def page_record(self, entry: SourceEntry, url: str) -> StoredFile | None:
        """Return what is known about a page that was fetched."""
        return self.store.record(entry.id, f"{PAGE}{url}")

    def passing(self, entry: SourceEntry, url: str, headers: Mapping[str, str]) -> dict[str, Any]:
        """Return a JSON answer that must not be kept, because it may hold what nobody agreed to."""

        def attempt() -> bytes:
            body = bytearray()
            with self.client.open(url, headers, delay_seconds=entry.delay_seconds or 0.0) as answer:
                for chunk in answer.chunks:
                    body += chunk
                    self.budget.take(len(chunk))
                    if len(body) > self.settings.max_file_bytes:
                        raise ItemProblem("too_large", f"{url}: the limit is {self.settings.max_file_bytes:,} bytes")
            return bytes(body)

        found: dict[str, Any] = json.loads(self.client.persist(attempt))
        return found

    def count_call(self, host: str, per_day: int) -> None:
        """Count one call to a host that allows so many a day. Raises `fetch_failed` when today's are used up."""
        mark = f"calls {datetime.fromtimestamp(self._now(), UTC).date()}"
        made = int(self.store.marked(host, mark) or 0)
        if made >= per_day:
            raise ItemProblem("fetch_failed", f"{host} allows {per_day:,} calls a day, and so many were made today")
        self.store.mark(host, mark, str(made + 1))

    def keep(self, item: Item, data: bytes, page: StoredFile | None = None) -> StoredFile:
        """Put bytes that a collector made (out of `page`, if any) into the store as the item's file."""
        sha256, size = self.store.keep_bytes(data)
        known = self.store.record(item.entry.id, item.path)
        if known is not None and known.sha256 == sha256 and known.url == item.url:
            return self._again(item, known)
        final_url, status = (page.final_url, page.status) if page else (item.url, 0)
        row = replace(self._row(item, "file"), final_url=final_url, status=status, bytes=size, sha256=sha256)
        return self.store.put(row)

    def local(self, item: Item, sha256: str, size: int) -> StoredFile:
        """Note a file that stays where it is."""
        known = self.store.record(item.entry.id, item.path)
        if known is not None and known.sha256 == sha256:
            return self._again(item, known)
        return self.store.put(replace(self._row(item, "local"), final_url=item.url, bytes=size, sha256=sha256))

    def problem(self, item: Item, problem: ItemProblem) -> StoredFile:
        """Note why an item could not be had. Bytes that an earlier run fetched stay in use when it may pass."""
        known = self.store.record(item.entry.id, item.path)
        may_pass = problem.code == "fetch_failed" and problem.status not in MISSING_STATUSES
        if known is not None and may_pass and self.store.holds(known):
            return known
        row = replace(self._row(item, "file"), status=problem.status, problem=problem.code, reason=problem.reason)
        return self.store.put(row)

    # --- one address

    def _fetched(self, item: Item, kind: Any, headers: Mapping[str, str]) -> StoredFile:
        known = self.store.record(item.entry.id, item.path)
        held = known if known is not None and known.url == item.url and self.store.holds(known) else None
        if held is not None and kind == "file":
            if held.checksum in item.checksums:
                return self._again(item, held)
            if not item.checksums and not _validator(held):
                return self._again(item, held)  # nothing tells whether it changed
        download = _Download(item, self.store, self.client, self.budget, held, headers)
        found = self.client.persist(download.attempt)
        if found is None:
            assert held is not None
            return self._again(item, held)
        row = replace(self._row(item, kind), **found)
        return self.store.put(row)

    def _again(self, item: Item, held: StoredFile) -> StoredFile:
        """An unchanged file: the facts of the first fetch stay, but it is offered again."""
        known = replace(held, gone=False, problem="", reason="", metadata=dict(item.metadata) or held.metadata)
        return held if known == held else self.store.put(known)

    def _row(self, item: Item, kind: Any) -> StoredFile:
        entry = item.entry
        return StoredFile(
            source=entry.id,
            path=item.path,
            kind=kind,
            url=item.url,
            fetched=datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="seconds"),
            checksum=item.checksums[0] if item.checksums else "",
            licence=entry.licence,
            allowed_use=entry.allowed_use,
            rights_url=entry.rights_url,
            metadata=dict(item.metadata),
        )


class _Download:
    """One address on its way into the store; every attempt goes on where the one before broke off."""

    def __init__(
        self,
        item: Item,
        store: Store,
        client: Client,
        budget: Budget,
        held: StoredFile | None,
        headers: Mapping[str, str],
    ) -> None:
        self._item, self._store, self._client, self._budget, self._held = item, store, client, budget, held
        self._headers = headers
        self._limit = item.max_bytes or client.settings.max_file_bytes
        self._part = store.partial_path(item.url)
        self._about = self._part.with_suffix(".json")

    def attempt(self) -> dict[str, Any] | None:
        """Return the facts of the finished file, or None when the one in the store is unchanged."""
        size, validator = self._begun()
        delay = self._item.entry.delay_seconds or 0.0
        with self._client.open(self._item.url, self._asked(size, validator), delay_seconds=delay) as answer:
            if answer.status == 304 and not size:
                return None
            if answer.status in (304, 416):
                self._forget()
                raise TryAgain(f"{self._item.url}: HTTP {answer.status} for a part that no longer fits", 0.0)
            start, total = self._place(answer, size)
            self._receive(answer, start, total)
        return self._finish(answer, resumed=start > 0)

    def _begun(self) -> tuple[int, str]:
        """Return the size of the part on disk and the validator of the file it belongs to; 0 when it cannot go on."""
        try:
            about = json.loads(self._about.read_text(encoding="utf-8"))
            size = self._part.stat().st_size
        except (OSError, ValueError):
            return 0, ""
        validator = about.get("validator", "") if about.get("url") == self._item.url else ""
        return (size, validator) if validator else (0, "")

    def _asked(self, size: int, validator: str) -> dict[str, str]:
        headers = dict(self._headers)
        if size:
            headers |= {"range": f"bytes={size}-", "if-range": validator}
        elif self._held is not None and self._held.etag:
            headers["if-none-match"] = self._held.etag
        elif self._held is not None and self._held.last_modified:
            headers["if-modified-since"] = self._held.last_modified
        return headers

    def _place(self, answer: Answer, size: int) -> tuple[int, int | None]:
        """Return at which byte the body starts and how long the whole file is, if that is said."""
        if answer.status == 206:
            found = CONTENT_RANGE.fullmatch(answer.headers.get("content-range", "").strip())
            if found is None or int(found[1]) != size:
                self._forget()
                raise TryAgain(f"{self._item.url}: an answer with another range than the one asked for", 0.0)
            return size, None if found[2] == "*" else int(found[2])
        encoded = answer.headers.get("content-encoding", "identity") != "identity"
        length = answer.headers.get("content-length", "")
        return 0, int(length) if length.isdigit() and not encoded else None

    def _receive(self, answer: Answer, start: int, total: int | None) -> None:
        if total is not None and total > self._limit:
            self._too_large(total)
        with storage_errors(self._part):
            file = self._part.open("ab" if start else "wb")
            if not start:  # only now that the part is empty, so that no older bytes are taken for this answer's
                validator = _strong_validator(answer.headers)
                self._about.write_text(json.dumps({"url": self._item.url, "validator": validator}), encoding="utf-8")
        size = start
        try:
            for chunk in answer.chunks:
                size += len(chunk)
                if size > self._limit:
                    self._too_large(size)
                with storage_errors(self._part):
                    file.write(chunk)
                    file.flush()  # what came stays, whatever happens to this process
                self._budget.take(len(chunk))
        finally:
            with storage_errors(self._part):
                file.close()
        if total is not None and size != total:
            if size > total:
                self._forget()
            raise TryAgain(f"{self._item.url}: {size:,} bytes came of {total:,}")

    def _finish(self, answer: Answer, *, resumed: bool) -> dict[str, Any]:
        wrong = wrong_checksum(self._part, self._item.checksums)
        if wrong:
            self._forget()
            if resumed:
                raise TryAgain(f"{self._item.url}: {wrong}, put together from two answers", 0.0)
            raise ItemProblem("fetch_failed", f"{self._item.url}: {wrong}", answer.status)
        sha256, size = self._store.keep(self._part)
        self._about.unlink(missing_ok=True)
        return {
            "final_url": answer.url,
            "status": answer.status,
            "bytes": size,
            "sha256": sha256,
            "etag": answer.headers.get("etag", ""),
            "last_modified": answer.headers.get("last-modified", ""),
        }

    def _too_large(self, size: int) -> None:
        self._forget()
        raise ItemProblem("too_large", f"{self._item.url}: {size:,} bytes or more; the limit is {self._limit:,}")

    def _forget(self) -> None:
        self._part.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)


def wrong_checksum(path: Path, checksums: tuple[str, ...]) -> str:
    """Return what is wrong with a file by its announced checksums, empty when they all fit."""
    for checksum in checksums:
        name, _, wanted = checksum.partition(":")
        found, _ = digest_of(path, lambda name=name: hashlib.new(name, usedforsecurity=False))  # type: ignore[misc]
        if found != wanted.lower():
            return f"its {name} is {found}, not {wanted}"
    return ""


def _validator(stored: StoredFile) -> str:
    return stored.etag or stored.last_modified


def _strong_validator(headers: Mapping[str, str]) -> str:
    """`If-Range` needs a strong ETag, or the date (RFC 9110, 13.1.5); without either a download cannot be resumed."""
    etag = headers.get("etag", "")
    return etag if etag and not etag.startswith("W/") else headers.get("last-modified", "")
