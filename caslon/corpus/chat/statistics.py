"""Rows become figures: turns, lengths, roles, languages, sources, and speech acts when asked for."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from caslon.corpus.chat.record import all_messages, conversation_text
from caslon.corpus.chat.speech_acts import CLASSES, METHOD, speech_act
from caslon.corpus.language import classify, letters

LANGUAGE_CHARACTERS = 600
LANGUAGE_LETTERS = 20  # fewer tell nothing
UNKNOWN = "unknown"


def statistics(rows: Sequence[Mapping[str, Any]], *, speech_acts: bool = False) -> dict[str, Any]:
    """Return the figures of rows; lengths are in characters."""
    figures = {
        "rows": len(rows),
        "preferences": sum("chosen" in row for row in rows),
        "with_system": sum(any(message["role"] == "system" for message in all_messages(row)) for row in rows),
        "with_tools": sum(
            bool(row.get("tools")) or any(one.get("tool_calls") for one in all_messages(row)) for row in rows
        ),
        "messages": dict(sorted(Counter(message["role"] for row in rows for message in all_messages(row)).items())),
        "user_turns": _summary([_turns(row) for row in rows]),
        "characters": {
            role: _summary([len(text) for text in _texts(rows, role)])
            for role in ("system", "user", "assistant", "tool")
        },
        "languages": dict(Counter(map(_language, rows)).most_common()),
        "sources": dict(Counter(row.get("source") or UNKNOWN for row in rows).most_common()),
        "licences": dict(Counter(row.get("licence") or UNKNOWN for row in rows).most_common()),
    }
    if speech_acts:
        figures["speech_acts"] = {"method": METHOD} | {
            role: _acts(_texts(rows, role)) for role in ("user", "assistant")
        }
    return figures


def _turns(row: Mapping[str, Any]) -> int:
    return sum(message["role"] == "user" for message in row.get("messages", row.get("prompt", ())))


def _texts(rows: Iterable[Mapping[str, Any]], role: str) -> list[str]:
    return [
        message["content"]
        for row in rows
        for message in all_messages(row)
        if message["role"] == role and isinstance(message.get("content"), str)
    ]


def _language(row: Mapping[str, Any]) -> str:
    text = conversation_text(row)[:LANGUAGE_CHARACTERS]
    return classify(text) if letters(text) >= LANGUAGE_LETTERS else UNKNOWN


def _acts(texts: Iterable[str]) -> dict[str, int]:
    counts = Counter(speech_act(text) for text in texts if text.strip())
    return {name: counts[name] for name in CLASSES}


def _summary(values: Sequence[int]) -> dict[str, float]:
    """Return count, sum, mean, median, 95th percentile and maximum; nothing for no values."""
    if not values:
        return {}
    ordered = sorted(values)
    return {
        "count": len(ordered),
        "sum": sum(ordered),
        "mean": round(sum(ordered) / len(ordered), 2),
        "median": ordered[(len(ordered) - 1) // 2],
        "p95": ordered[min(int(len(ordered) * 0.95), len(ordered) - 1)],
        "maximum": ordered[-1],
    }
