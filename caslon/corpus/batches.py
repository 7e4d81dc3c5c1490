"""Raw files into batches of about a megabyte: the unit of work of every phase, of progress and of what a kill can lose."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from caslon.corpus.collect import RawFile
from caslon.corpus.work import digest_of_parts

BATCH_BYTES = 1 << 20
BATCH_FILES = 256


@dataclass(frozen=True)
class Batch:
    """Raw files that are worked on together."""

    number: int
    raw_files: tuple[RawFile, ...]

    @property
    def digest(self) -> str:
        """What the batch's raw files are, whatever their bytes are called on disk."""
        return digest_of_parts(*(f"{raw.source}\0{raw.path}\0{raw.member}\0{raw.sha256}" for raw in self.raw_files))


def batches(raw_files: Iterable[RawFile], size_bytes: int = BATCH_BYTES) -> Iterator[Batch]:
    """Yield the raw files in batches of about a megabyte, in their order."""
    waiting: list[RawFile] = []
    number = size = 0
    for raw in raw_files:
        waiting.append(raw)
        size += len(raw.bytes)
        if size >= size_bytes or len(waiting) >= BATCH_FILES:
            yield Batch(number, tuple(waiting))
            waiting, size, number = [], 0, number + 1
    if waiting:
        yield Batch(number, tuple(waiting))
