"""Tensors cut into rows over several files, into the rows that one process holds: any number of parts from any other.

Dimension 0 is cut into parts of equal size, the last ones smaller or empty, as `torch.chunk` and FSDP2 cut it. Only the rows that
are asked for are read. A tensor without dimensions is the same in every file.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor


def rows_of_part(rows: int, part: int, parts: int) -> slice:
    """Return which of `rows` rows the 0-based `part` of `parts` holds."""
    each = -(-rows // parts)
    return slice(min(part * each, rows), min((part + 1) * each, rows))


def read_part(files: Sequence[Path], part: int, parts: int, *, uncut: str) -> dict[str, Tensor]:
    """Return the rows of one part of every tensor in `files`, which hold one part each, in order.

    Tensors whose names begin with `uncut` belong to a process as a whole: the first file's are taken where there is no own one.
    """
    with ExitStack() as stack:
        stored: list[Any] = [stack.enter_context(safe_open(file, framework="pt")) for file in files]
        own = stored[part if len(files) == parts else 0]
        return {
            name: own.get_tensor(name) if name.startswith(uncut) else _read_rows(stored, name, part, parts)
            for name in own.keys()  # noqa: SIM118 - not a dict
        }


def _read_rows(stored: Sequence[Any], name: str, part: int, parts: int) -> Tensor:
    slices = [file.get_slice(name) for file in stored]
    if not slices[0].get_shape():
        whole: Tensor = stored[0].get_tensor(name)
        return whole
    lengths = [found.get_shape()[0] for found in slices]
    wanted = rows_of_part(sum(lengths), part, parts)
    pieces, begin = [slices[0][0:0]], 0
    for found, length in zip(slices, lengths, strict=True):
        low, high = max(wanted.start - begin, 0), min(wanted.stop - begin, length)
        if low < high:
            pieces.append(found[low:high])
        begin += length
    return torch.cat(pieces)
