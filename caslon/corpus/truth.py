"""What an inventory says of its files beside what became of them: recall and precision of the filters, file by file.

Only inventories know the truth: a file's role (train, duplicate, negative), of what it is a copy, its language, whether it is of
the period. A file counts as kept when at least half of its characters were. A duplicate is caught when it left, or the text it
repeats left for it; where the copy stayed and the listed text left, the pair is resolved all the same and the loss is shown as
an exchange.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from caslon.corpus.document import Reject
from caslon.corpus.registry import SourceEntry
from caslon.corpus.shards import read_rejects, shard_paths

KEPT_SHARE = 0.5
DUPLICATE_CODES = ("exact_duplicate", "near_duplicate")
LISTED = 200  # losses shown by name


@dataclass
class _File:
    """One file of an inventory and what became of it."""

    facts: Mapping[str, Any]
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  # characters by reject code
    stays_as: set[str] = field(default_factory=set)  # addresses of the copies that stay
    reason: str = ""

    @property
    def is_kept(self) -> bool:
        whole = self.kept + self.dropped.total()
        return self.kept > 0 and self.kept >= KEPT_SHARE * whole

    @property
    def code(self) -> str:
        """The reject code that took most of the file; empty when nothing was found in it."""
        return max(self.dropped, key=lambda code: (self.dropped[code], code)) if self.dropped else ""


@dataclass(frozen=True)
class Share:
    """A part of a whole, in files."""

    part: int
    whole: int

    def to_json(self) -> dict[str, Any]:
        """Return the counts and their ratio; None where the whole is empty."""
        return {
            "part": self.part,
            "whole": self.whole,
            "share": round(self.part / self.whole, 4) if self.whole else None,
        }


def truth(corpus_folder: Path, entries: Sequence[SourceEntry], languages: Sequence[str]) -> dict[str, Any] | None:
    """Return how the corpus agrees with the inventories of its sources, as JSON values; None when none has one."""
    files = _files(entries)
    if not files:
        return None
    _follow(corpus_folder, files)
    train = {name: file for name, file in files.items() if _role(file) == "train"}
    duplicates = {name: file for name, file in files.items() if _role(file) == "duplicate"}
    negatives = {name: file for name, file in files.items() if _role(file) == "negative"}
    exchanged = {name for name, file in train.items() if not file.is_kept and _is_exchanged(file, files)}
    lost = {name: file for name, file in train.items() if not file.is_kept and name not in exchanged}
    return {
        "train_kept": Share(len(train) - len(lost), len(train)).to_json(),
        "train_kept_under_another_copy": len(exchanged),
        "train_characters_kept": _characters_kept(train.values()),
        "train_lost_by_code": dict(Counter(file.code or "not found" for file in lost.values()).most_common()),
        "train_lost": [_listed(name, file) for name, file in sorted(lost.items())[:LISTED]],
        "duplicates_caught": _caught(duplicates, lambda file: _is_caught_copy(file, files)),
        "negatives_caught": _caught(negatives, lambda file: not file.is_kept),
        "negatives_kept": [_listed(name, file) for name, file in sorted(negatives.items()) if file.is_kept][:LISTED],
        "filters": {
            "language": _filter(files, "wrong_language", lambda file: _is_foreign(file, languages)),
            "period": _filter(files, "out_of_period", lambda file: file.facts.get("in_period") is False),
            "duplicates": _filter(files, DUPLICATE_CODES, lambda file: _is_listed_copy(file, files)),
        },
    }


def _files(entries: Iterable[SourceEntry]) -> dict[str, _File]:
    """Return every file that an inventory lists, by `source:path inside the source`."""
    return {f"{entry.id}:{name}": _File(facts) for entry in entries for name, facts in entry.facts.items()}


def _follow(corpus_folder: Path, files: Mapping[str, _File]) -> None:
    for path in shard_paths(corpus_folder, "documents"):
        for row in pq.read_table(path, columns=["source", "path", "member", "characters"]).to_pylist():
            if file := files.get(_name(row["source"], row["path"], row["member"])):
                file.kept += row["characters"]
    for reject in read_rejects(corpus_folder):
        file = files.get(_name(reject.origin.source, reject.origin.path, reject.origin.member))
        if file is None or reject.code == "short_segment" or _is_left_by_choice(reject):
            continue
        file.dropped[reject.code] += max(len(reject.text), 1)
        file.reason = file.reason or reject.reason
        if kept := reject.metadata.get("kept_address"):
            file.stays_as.add(str(kept).partition("#")[0])


def _is_left_by_choice(reject: Reject) -> bool:
    """Whether a reader was asked for other parts of the file, such as the trials of a session alone."""
    return reject.code == "source_surplus" and reject.step == "read"


def _name(source: str, path: str, member: str) -> str:
    return f"{source}:{member or path}"


def _role(file: _File) -> str:
    return str(file.facts.get("role", "train"))


def _characters_kept(files: Iterable[_File]) -> float | None:
    kept = dropped = 0
    for file in files:
        kept += file.kept
        dropped += file.dropped.total()
    return round(kept / (kept + dropped), 4) if kept + dropped else None


def _copies(file: _File, files: Mapping[str, _File]) -> Iterator[_File]:
    """Yield the files whose address is that of a copy which stayed when this file left."""
    addresses = {name.partition(":")[2] for name in file.stays_as} | {name.rpartition("!")[2] for name in file.stays_as}
    return (other for name, other in files.items() if name.partition(":")[2] in addresses)


def _is_exchanged(file: _File, files: Mapping[str, _File]) -> bool:
    """Whether a listed text left because a file that the inventory calls its copy stayed."""
    return file.code in DUPLICATE_CODES and any(_same_work(file, other) for other in _copies(file, files))


def _is_listed_copy(file: _File, files: Mapping[str, _File]) -> bool:
    return _role(file) == "duplicate" or _is_exchanged(file, files)


def _same_work(one: _File, other: _File) -> bool:
    groups = [file.facts.get("group") for file in (one, other)]
    return _role(other) == "duplicate" or (groups[0] is not None and groups[0] == groups[1])


def _is_caught_copy(file: _File, files: Mapping[str, _File]) -> bool:
    if not file.is_kept:
        return True
    original = str(file.facts.get("duplicate_of") or "")
    of = [other for name, other in files.items() if original and _is_original(name, original) and other is not file]
    return any(
        not other.is_kept and other.code in DUPLICATE_CODES and any(stays is file for stays in _copies(other, files))
        for other in of
    )


def _is_original(name: str, original: str) -> bool:
    path = name.partition(":")[2]
    return path == original or path.startswith((original + ".", original + "/"))


def _is_foreign(file: _File, languages: Sequence[str]) -> bool:
    stated = file.facts.get("languages") or ()
    return bool(stated) and not set(stated) & set(languages)


def _caught(files: Mapping[str, _File], is_caught: Any) -> dict[str, Any]:
    """Return the share of files that were caught, in all and by kind (the reason the inventory gives)."""
    kinds: dict[str, list[bool]] = {}
    for file in files.values():
        kinds.setdefault(str(file.facts.get("reason") or "a copy of another file"), []).append(bool(is_caught(file)))
    whole = [caught for found in kinds.values() for caught in found]
    return {
        **Share(sum(whole), len(whole)).to_json(),
        "by_kind": {kind: Share(sum(found), len(found)).to_json() for kind, found in sorted(kinds.items())},
    }


def _filter(files: Mapping[str, _File], codes: str | tuple[str, ...], is_meant: Any) -> dict[str, Any]:
    """Return precision and recall of a filter over files: taken by it and meant, of those taken, and of those meant."""
    wanted = (codes,) if isinstance(codes, str) else codes
    taken = [file for file in files.values() if not file.is_kept and file.code in wanted]
    meant = [file for file in files.values() if is_meant(file)]
    right = [file for file in taken if is_meant(file)]
    return {
        "precision": Share(len(right), len(taken)).to_json(),
        "recall": Share(len(right), len(meant)).to_json(),
        "recall_with_other_filters": Share(sum(not file.is_kept for file in meant), len(meant)).to_json(),
    }


def _listed(name: str, file: _File) -> dict[str, Any]:
    return {
        "file": name,
        "code": file.code or ("kept" if file.kept else "not found"),
        "reason": file.reason or str(file.facts.get("reason") or ""),
        "kept_characters": file.kept,
        "dropped_characters": file.dropped.total(),
    }
