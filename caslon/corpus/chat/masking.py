"""Rows with personal data become rows with placeholders, the same one for the same value throughout a conversation."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from caslon.corpus.chat.record import CONTENT_FIELDS, Rejected, Row
from caslon.corpus.privacy import ConversationMask
from caslon.corpus.settings import PrivacySettings


def masked_rows(
    rows: Iterable[Row | Rejected], settings: PrivacySettings, counts: Counter[str]
) -> Iterator[Row | Rejected]:
    """Yield rows without personal data; those with what is to be dropped (secrets) become rejects. Adds to `counts`."""
    for number, row in enumerate(rows, start=1):
        if isinstance(row, Rejected):
            yield row
            continue
        mask = ConversationMask(settings)
        masked = {**row, **{key: _masked(row[key], mask) for key in (*CONTENT_FIELDS, "extra") if key in row}}
        counts.update(mask.counts)
        if mask.dropped.total():
            found = ", ".join(f"{count} {kind}" for kind, count in sorted(mask.dropped.items()) if count)
            yield Rejected(number, f"it holds {found}", str(row.get("id", "")))
        else:
            yield masked


def _masked(value: Any, mask: ConversationMask) -> Any:
    if isinstance(value, str):
        return mask.mask(value)
    if isinstance(value, dict):
        return {key: _masked(item, mask) for key, item in value.items()}
    return [_masked(item, mask) for item in value] if isinstance(value, list) else value
