"""A limit on thinking, as a constraint: at the limit the closing marker is the only token left, and the answer begins."""

from collections.abc import Iterable
from enum import Enum, auto
from typing import TYPE_CHECKING

from caslon.engine.request import Constraint
from caslon.engine.sections import Markers

if TYPE_CHECKING:
    from torch import Tensor

# Tokens of thinking that each word of OpenAI's `reasoning_effort` stands for.
EFFORT_TOKENS = {"none": 0, "minimal": 64, "low": 256, "medium": 1024, "high": 4096}


class _Place(Enum):
    BEFORE = auto()
    INSIDE = auto()
    AFTER = auto()


class ThinkingLimit:
    """Lets a model think once, at most `budget` tokens, and holds what follows to `answer`, where there is such a form."""

    def __init__(
        self,
        markers: Markers,
        budget: int,
        *,
        end_ids: Iterable[int],
        begins_thinking: bool = False,
        answer: Constraint | None = None,
    ) -> None:
        self._markers = markers
        self._budget = budget
        self._not_inside = [markers.opening, *end_ids]  # the answer is still to come
        self._answer = answer
        self._places = [_Place.INSIDE if begins_thinking else _Place.BEFORE]  # before each token, the next one's last

    @property
    def may_end(self) -> bool:
        """Whether the answer may end here."""
        return self._places[-1] is not _Place.INSIDE and (self._answer is None or self._answer.may_end)

    def mask(self, logits: "Tensor") -> None:
        """Set the logits [V] of all tokens that may not come next to minus infinity, in place."""
        opening = logits[self._markers.opening].clone()
        if self._places[-1] is _Place.INSIDE:
            self._mask_inside(logits)
            return
        if self._answer is not None:
            self._answer.mask(logits)
        may_open = self._places[-1] is _Place.BEFORE and self._budget > 0
        logits[self._markers.opening] = opening if may_open else -float("inf")

    def advance(self, token: int) -> None:
        """Take the token that came."""
        place = self._places[-1]
        if place is _Place.BEFORE and token == self._markers.opening:
            self._places.append(_Place.INSIDE)
        elif place is _Place.INSIDE:
            self._places.append(_Place.AFTER if token == self._markers.closing else place)
        else:
            self._places.append(_Place.AFTER)
            if self._answer is not None:
                self._answer.advance(token)

    def rollback(self, tokens: int) -> None:
        """Forget the last so many tokens that came."""
        told = 0
        for _ in range(tokens):
            after = self._places.pop()
            told += _Place.INSIDE not in (self._places[-1], after)
        if self._answer is not None:
            self._answer.rollback(told)

    def _mask_inside(self, logits: "Tensor") -> None:
        if self._places.count(_Place.INSIDE) > self._budget:
            closing = logits[self._markers.closing].clone()
            logits.fill_(-float("inf"))
            logits[self._markers.closing] = closing
        else:
            logits[self._not_inside] = -float("inf")
