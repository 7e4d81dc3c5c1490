"""The act of collecting: turns source entries into a filled store, and an account of what was found, fetched and lost.

Sources with high priority come first. A source that was gone through to its end is marked complete; what it no longer
offers is marked gone, stays in the store and leaves the next build. An item that cannot be had is a row with a reject code.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from caslon.corpus.collect.collector import Collector, Item, collector_for
from caslon.corpus.collect.entries import COMPLETE, is_local
from caslon.corpus.collect.fetch import BudgetSpent, Fetcher
from caslon.corpus.collect.problem import ItemProblem
from caslon.corpus.collect.raw_file import RawFile
from caslon.corpus.collect.store import Store, StoredFile
from caslon.corpus.registry_entry import PRIORITIES, PYTHON, SourceEntry
from caslon.errors import UserError

NAMED_WHEN_MISSING = 10
SOURCE = "(the source)"  # path of a row that speaks of a whole source

Progress = Callable[[str, int, int], None]  # source, items so far, bytes fetched so far


@dataclass
class SourceAccount:
    """What was done for one source. `bytes_known` counts what the items announced or the store holds."""

    source: str
    items: int = 0
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    vanished: int = 0
    problems: dict[str, int] = field(default_factory=dict)
    bytes_fetched: int = 0
    bytes_known: int = 0
    items_of_unknown_size: int = 0
    state: str = "complete"  # complete | budget spent | failed: ... | in place
    listed: list[dict[str, Any]] = field(default_factory=list)  # of a dry run

    def to_json(self) -> dict[str, Any]:
        """Return the account as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Bounds:
    """How far one run goes. `max_items` counts for each source, `max_bytes` for all of them together."""

    max_sources: int | None = None
    max_items: int | None = None
    max_bytes: int | None = None
    dry_run: bool = False


def by_priority(entries: Sequence[SourceEntry], max_sources: int | None = None) -> list[SourceEntry]:
    """Return the enabled entries, high priority first and then by id, at most so many."""
    enabled = [entry for entry in entries if entry.enabled]
    return sorted(enabled, key=lambda entry: (PRIORITIES.index(entry.priority), entry.id))[:max_sources]


def collect(
    entries: Sequence[SourceEntry], fetcher: Fetcher, bounds: Bounds, progress: Progress | None = None
) -> Iterator[SourceAccount]:
    """Fetch what the entries offer, source by source, and yield an account of each when it is done."""
    fetcher.budget.most = bounds.max_bytes
    for entry in by_priority(entries, bounds.max_sources):
        account = SourceAccount(entry.id)
        run = _SourceRun(entry, fetcher, bounds, account, progress)
        run.list() if bounds.dry_run else run.fetch()
        yield account
        if account.state == "budget spent":
            return


def check_offline(entries: Sequence[SourceEntry], store: Store) -> int:
    """Return how many files of the entries the store holds. Raises UserError that names what is missing."""
    missing: list[str] = []
    held = 0
    for entry in entries:
        if is_local(entry):
            continue
        if not store.marked(entry.id, COMPLETE):
            missing.append(f"{entry.id} (never collected to its end)")
        for row in store.records(entry.id, "file"):
            if row.gone or row.problem:
                continue
            held += store.holds(row)
            if not store.holds(row):
                missing.append(f"{entry.id}/{row.path}")
    if missing:
        more = len(missing) - NAMED_WHEN_MISSING
        names = "\n  ".join(missing[:NAMED_WHEN_MISSING]) + (f"\n  and {more:,} more" if more > 0 else "")
        raise UserError(f"not in the store:\n  {names}", where=str(store.folder), fix="collect once without --offline")
    return held


class _SourceRun:
    """One source on its way into the store."""

    def __init__(
        self, entry: SourceEntry, fetcher: Fetcher, bounds: Bounds, account: SourceAccount, progress: Progress | None
    ) -> None:
        limits = [limit for limit in (entry.max_items, bounds.max_items) if limit]
        self._entry, self._fetcher, self._account, self._progress = entry, fetcher, account, progress
        self._limit = min(limits) if limits else None
        self._is_cut = False
        self._seen: set[str] = set()

    def list(self) -> None:
        """Note what the source offers and how large it is, as far as that is known without fetching it."""
        try:
            for item in self._items(self._collector()):
                size = item.bytes if item.bytes is not None else self._held_bytes(item)
                self._account.items += 1
                self._account.bytes_known += size or 0
                self._account.items_of_unknown_size += size is None
                self._account.listed.append({"path": item.path, "url": item.url, "bytes": size})
        except ItemProblem as problem:
            self._account.state = f"failed: {problem.reason}"

    def fetch(self) -> None:
        """Fetch every item; what the source no longer offers is marked gone when it was seen to its end."""
        store, source = self._fetcher.store, self._entry.id
        before = self._fetcher.budget.fetched
        try:
            if self._is_refused():
                return
            collector = self._collector()
            for item in self._items(collector):
                self._fetch_item(collector, item)
                if self._progress:
                    self._progress(source, self._account.items, self._fetcher.budget.fetched)
            if not self._is_cut:
                self._account.vanished = len(store.mark_gone(source, self._seen))
            store.mark(source, COMPLETE, "yes")
        except BudgetSpent:
            self._account.state = "budget spent"
            store.mark(source, COMPLETE, "as far as the bytes allowed")
        except ItemProblem as problem:
            self._note_failure(problem)
        finally:
            self._account.bytes_fetched = self._fetcher.budget.fetched - before

    def _collector(self) -> Collector:
        is_in_place = is_local(self._entry)
        return collector_for("folder" if is_in_place else self._entry.collector, self._fetcher)

    def _is_refused(self) -> bool:
        """The standard library needs no collecting, and what nobody may use is not fetched."""
        if self._entry.location == PYTHON:
            self._account.state = "in place"
            return True
        reason = self._entry.denied or ("its registered use is 'none'" if self._entry.allowed_use == "none" else "")
        if reason and not is_local(self._entry):
            self._note_failure(ItemProblem("licence_denied", reason))
            return True
        return False

    def _items(self, collector: Collector) -> Iterator[Item]:
        """The items up to the limit; one more is looked for, to know whether there are more."""
        for count, item in enumerate(collector.discover(self._entry)):
            if count == self._limit:
                self._is_cut = True
                return
            yield item

    def _fetch_item(self, collector: Collector, item: Item) -> None:
        self._account.items += 1
        before = self._fetcher.store.record(self._entry.id, item.path)
        try:
            for found in collector.fetch(item):
                if isinstance(found, StoredFile):
                    self._count(found, before)
                else:
                    self._keep(_renamed(item, found), found)
        except ItemProblem as problem:
            self._seen.add(self._fetcher.problem(item, problem).path)
            self._count_problem(problem.code)

    def _keep(self, item: Item, raw: RawFile) -> None:
        before = self._fetcher.store.record(self._entry.id, item.path)
        self._count(self._fetcher.keep(item, raw.bytes), before)

    def _count(self, row: StoredFile, before: StoredFile | None) -> None:
        self._seen.add(row.path)
        self._account.bytes_known += row.bytes
        if before is None or not before.sha256:
            self._account.new += 1
        elif before.sha256 != row.sha256:
            self._account.changed += 1
        else:
            self._account.unchanged += 1

    def _count_problem(self, code: str) -> None:
        self._account.problems = dict(Counter(self._account.problems) + Counter([code]))

    def _note_failure(self, problem: ItemProblem) -> None:
        """A source that cannot be gone through; one whose licence denies it is done with, and says so in the corpus."""
        self._account.state = f"failed: {problem.reason}"
        self._count_problem(problem.code)
        if problem.code == "licence_denied":
            self._fetcher.problem(Item(self._entry, SOURCE, self._entry.location), problem)
            self._fetcher.store.mark_gone(self._entry.id, {SOURCE})
            self._fetcher.store.mark(self._entry.id, COMPLETE, "denied")

    def _held_bytes(self, item: Item) -> int | None:
        row = self._fetcher.store.record(self._entry.id, item.path)
        return row.bytes if row is not None and row.sha256 else None


def _renamed(item: Item, raw: RawFile) -> Item:
    """The item under the name of a raw file that a plug-in gave without storing it."""
    name = f"{raw.path}!{raw.member}" if raw.member else raw.path
    return replace(item, path=name, metadata={**item.metadata, **raw.metadata})
