"""A written answer to the short answer in it: what is voted on and compared with the right one."""

import re
from decimal import Decimal

# GSM8K's mark, LaTeX's box, and how people and models put it.
MARKS = (
    re.compile(r"####\s*(.+)"),
    re.compile(r"\\boxed\{([^{}]+)\}"),
    re.compile(r"\banswer\s*(?:is|:|=)\s*(.+?)(?:\.(?:\s|$)|\n|$)", re.IGNORECASE),
)
NUMBER = re.compile(r"-?(?:\d+(?:,\d{3})+|\d+)(?:\.\d+)?")


def final_answer(text: str) -> str | None:
    """Return the last answer a text marks as such, or its last number; None where it has neither.

    A mark with one number beside it marks the number ("20 apples" is "20").
    """
    for mark in MARKS:
        found = mark.findall(text)
        if found:
            numbers = NUMBER.findall(found[-1])
            return normal(numbers[0] if len(numbers) == 1 else found[-1])
    numbers = NUMBER.findall(text)
    return normal(numbers[-1]) if numbers else None


def normal(answer: str) -> str:
    """Return an answer without what does not matter: case, outer marks, how a number is written ("$1,200.0" is "1200")."""
    plain = answer.strip().strip("*$ ").rstrip(".").strip().casefold()
    return f"{Decimal(plain.replace(',', '')).normalize():f}" if NUMBER.fullmatch(plain) else plain
