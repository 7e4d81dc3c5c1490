"""Test bytes to the size general-purpose compressors make of them, alone and when they know the training text.

"Given the training text" is size(train + test) - size(train): what the test text costs a compressor that has just read the
training text. A window limits what it remembers: 32 KiB for gzip, 900 kB for bzip2, 64 MiB for xz, 8 MiB or more for zstd.
"""

import bz2
import gzip
import lzma
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType

from caslon.errors import UserError

Size = Callable[[bytes], int]


@dataclass(frozen=True)
class Compression:
    """Bits per byte of a text under one compressor; `given_train` is None when there was no training text."""

    name: str
    alone: float
    given_train: float | None


def _zstd_size(data: bytes) -> int:
    try:
        import zstandard
    except ModuleNotFoundError as error:
        raise UserError("the zstd baseline needs zstandard", fix="pip install 'caslon[evaluate]'") from error
    return len(zstandard.ZstdCompressor(level=19).compress(data))


COMPRESSORS: Mapping[str, Size] = MappingProxyType(
    {
        "gzip -9": lambda data: len(gzip.compress(data, 9, mtime=0)),
        "bzip2 -9": lambda data: len(bz2.compress(data, 9)),
        "xz -9e": lambda data: len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)),
        "zstd -19": _zstd_size,
    }
)

SLOWEST_FIRST = ("xz -9e", "zstd -19", "gzip -9", "bzip2 -9")  # so that no worker ends long after the others


def compressions(
    train: bytes, test: bytes, names: Sequence[str] = tuple(COMPRESSORS), *, workers: int = 2
) -> list[Compression]:
    """Return the bits per test byte under each compressor. The libraries release the interpreter, so threads are enough."""
    assert test, "there is nothing to compress"
    texts = {"test": test} | ({"train": train, "both": train + test} if train else {})
    longest_first = sorted(names, key=SLOWEST_FIRST.index)
    jobs = [(name, which) for name in longest_first for which in texts if which != "test"]
    jobs += [(name, "test") for name in longest_first]
    with ThreadPoolExecutor(workers) as pool:
        sizes = dict(zip(jobs, pool.map(lambda job: COMPRESSORS[job[0]](texts[job[1]]), jobs), strict=True))
    return [_compression(name, sizes, len(test)) for name in names]


def _compression(name: str, sizes: Mapping[tuple[str, str], int], test_bytes: int) -> Compression:
    given = (sizes[name, "both"] - sizes[name, "train"]) * 8 / test_bytes if (name, "train") in sizes else None
    return Compression(name, sizes[name, "test"] * 8 / test_bytes, given)
