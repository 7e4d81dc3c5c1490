"""Rows become train, validation and test rows; one conversation and one first question never stand in two of them."""

from collections.abc import Iterable
from typing import Any

from caslon.corpus.chat.record import Row, first_question
from caslon.corpus.dedup import Groups
from caslon.corpus.shards import SPLITS
from caslon.corpus.split import group_key, group_position, split_groups

CONVERSATION_FIELDS = ("conversation", "conversation_id", "group", "thread_id")  # of `extra`


def split_rows(rows: Iterable[Row], shares: tuple[float, float, float], seed: int) -> dict[str, list[Row]]:
    """Return the rows of each split, in their order. `UserError` when there are fewer groups than splits.

    A group is what shares a first question or a conversation; its split follows from its name and the seed.
    """
    groups = Groups()
    placed = []
    positions: dict[int, float] = {}
    for row in rows:
        positions |= {group_key(name): group_position(name, seed) for name in _names(row)}
        names = [group_key(name) for name in _names(row)]
        for other in names[1:]:
            groups.join(names[0], other)
        placed.append((row, names[0]))
    splits = split_groups({groups.find(name): positions[groups.find(name)] for _, name in placed}, shares)
    divided: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for row, name in placed:
        divided[splits[groups.find(name)]].append(row)
    return divided


def _names(row: Row) -> list[str]:
    extra: dict[str, Any] = row.get("extra", {})
    conversations = [f"{key}\0{row.get('source', '')}\0{extra[key]}" for key in CONVERSATION_FIELDS if key in extra]
    return [f"question\0{first_question(row)}", *conversations]
