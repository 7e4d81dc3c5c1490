"""Go or no-go for a service before it is measured at length: every reason why its answers are no answers."""

import unicodedata
from collections import Counter
from collections.abc import Sequence

from caslon.bench.asking import Exchange

MAX_UNREADABLE = 0.5  # share of characters of an answer that are no text
SHORTEST_JUDGED = 16  # characters; shorter answers may well be one letter


def reasons_against(exchanges: Sequence[Exchange], output_tokens: int) -> list[str]:
    """Return why a service is not fit to be measured, each reason once with its count; none for a healthy one."""
    found: Counter[str] = Counter()
    for one in exchanges:
        if one.error:
            found[one.error] += 1
        elif not one.text.strip():
            found["empty text"] += 1
        elif is_garbled(one.text):
            found["garbled text"] += 1
        if not one.error and one.output_tokens is None:
            found["no count of tokens in the answer"] += 1
        elif not one.error and one.output_tokens != output_tokens:
            found[f"{one.output_tokens} tokens instead of {output_tokens}"] += 1
    return [f"{reason} ({count} of {len(exchanges)} answers)" for reason, count in found.most_common()]


def is_garbled(text: str) -> bool:
    """Return whether a text is mostly no text (replacement and control characters), or one character again and again."""
    characters = [character for character in text if not character.isspace()]
    if len(characters) < SHORTEST_JUDGED:
        return False
    unreadable = sum(character == "�" or unicodedata.category(character) in ("Cc", "Cn") for character in characters)
    return unreadable / len(characters) > MAX_UNREADABLE or len(set(characters)) == 1
