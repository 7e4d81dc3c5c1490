"""More text than may be read to a seeded sample of it, in proportion for every source, and an account of what was read.

Texts are drawn whole; the last one of each source is cut at a character, so that the shares are exact. What is drawn depends on
the seed, the ids and the sizes alone.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class SourceShare:
    """How much of a source was read."""

    source: str
    texts: int
    bytes: int
    texts_read: int
    bytes_read: int

    def to_json(self) -> dict[str, Any]:
        """Return the figures."""
        return asdict(self)


@dataclass(frozen=True)
class Sample:
    """How many bytes of each text to read, in the order of the texts, and what that makes per source."""

    bytes_to_read: npt.NDArray[np.int64]  # [texts]
    sizes: npt.NDArray[np.int64]  # [texts], in bytes
    shares: tuple[SourceShare, ...]

    @property
    def whole(self) -> bool:
        """Whether everything is read."""
        return bool((self.bytes_to_read == self.sizes).all())

    def drawn(self, texts: Iterable[str]) -> Iterator[str]:
        """Yield the drawn ones of the texts the sample was made of, in their order."""
        for text, limit, size in zip(texts, self.bytes_to_read.tolist(), self.sizes.tolist(), strict=True):
            if limit == size:
                yield text
            elif limit:
                yield text.encode()[:limit].decode("utf-8", errors="ignore")


def draw_sample(texts: Iterable[tuple[str, str, int]], *, max_bytes: int, seed: int) -> Sample:
    """Return which of the texts, given as `(id, source, bytes)`, to read: all when they fit into `max_bytes`."""
    codes: dict[str, int] = {}
    sources: list[int] = []
    sizes: list[int] = []
    draws: list[int] = []
    for id, source, size in texts:
        sources.append(codes.setdefault(source, len(codes)))
        sizes.append(size)
        draws.append(int.from_bytes(hashlib.sha256(f"{seed}:{id}".encode()).digest()[:7]))
    size_of, source_of = np.array(sizes, dtype=np.int64), np.array(sources, dtype=np.int64)
    taken = size_of.copy()
    total = int(size_of.sum())
    if total > max_bytes:
        order = np.lexsort((np.arange(len(draws)), np.array(draws, dtype=np.int64)))
        for code in range(len(codes)):
            places = order[source_of[order] == code]
            budget = int(size_of[places].sum()) * max_bytes // total
            before = np.cumsum(size_of[places]) - size_of[places]
            taken[places] = np.clip(budget - before, 0, size_of[places])
    return Sample(taken, size_of, _shares(codes, source_of, size_of, taken))


def _shares(
    codes: dict[str, int], source_of: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64], taken: npt.NDArray[np.int64]
) -> tuple[SourceShare, ...]:
    found = []
    for name, code in codes.items():
        mine = source_of == code
        read = taken[mine]
        found.append(SourceShare(name, int(mine.sum()), int(sizes[mine].sum()), int((read > 0).sum()), int(read.sum())))
    return tuple(found)
