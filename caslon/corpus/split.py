"""Which documents train, which choose the checkpoint, which measure it at the end.

The split follows from a hash of the document's group and the seed alone: a new document never moves an old one, and texts of
one work, court session or duplicate cluster never stand on both sides.
"""

import hashlib
from collections.abc import Mapping

from caslon.corpus.shards import SPLITS
from caslon.errors import UserError


def group_key(group: str) -> int:
    """Return the number a group is known by: the first 64 bits of its name's SHA-256."""
    return int.from_bytes(hashlib.sha256(group.encode("utf-8", "surrogatepass")).digest()[:8])


def group_position(group: str, seed: int) -> float:
    """Return the group's place in [0, 1), spread evenly and fixed for ever by its name and the seed."""
    digest = hashlib.sha256(f"{seed}\0{group}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) / 2**64


def split_groups(positions: Mapping[int, float], shares: tuple[float, float, float]) -> dict[int, str]:
    """Return each group's split from its place. `UserError` when there are fewer groups than splits that want one.

    In a small corpus a split may stay empty by chance; then it gets the group whose place is nearest to it, taken from the
    split that has the most.
    """
    wanted = [split for split, share in zip(SPLITS, shares, strict=True) if share > 0]
    if len(positions) < len(wanted):
        raise UserError(
            f"{len(positions)} groups of documents cannot fill {len(wanted)} splits ({', '.join(wanted)})",
            where="corpus.split",
            fix="add documents from other works or files; training needs a validation split",
        )
    chosen = {group: _split_at(position, shares) for group, position in positions.items()}
    for split in reversed(wanted):
        _fill(split, chosen, positions, shares)
    return chosen


def _split_at(position: float, shares: tuple[float, float, float]) -> str:
    border = 0.0
    for split, share in zip(SPLITS, shares, strict=True):
        border += share
        if position < border and share > 0:
            return split
    return next(split for split, share in zip(reversed(SPLITS), reversed(shares), strict=True) if share > 0)


def _fill(
    split: str, chosen: dict[int, str], positions: Mapping[int, float], shares: tuple[float, float, float]
) -> None:
    if split in chosen.values():
        return
    number = SPLITS.index(split)
    centre = sum(shares[:number]) + shares[number] / 2
    sizes = {name: list(chosen.values()).count(name) for name in SPLITS}
    giver = max(SPLITS, key=lambda name: sizes[name])
    donors = (group for group, name in chosen.items() if name == giver)
    chosen[min(donors, key=lambda group: (abs(positions[group] - centre), group))] = split
