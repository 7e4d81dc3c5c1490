"""What a model writes, as HTML: completions whose tokens show how likely they were, and conversations. All of it escaped."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from caslon.engine.request import Piece, TokenLogprob
from caslon.engine.sections import THINKING
from caslon.server.logprobs import token_text
from caslon.tokenizer.tokenizer import Tokenizer


@dataclass
class TokenView:
    """An answer as it grows. Tokens that hold parts of one character are shown together."""

    tokenizer: Tokenizer
    prompt: str = ""
    tokens: int = 0
    text: str = ""
    thinking: str = ""
    _done: list[str] = field(default_factory=list)
    _waiting: list[TokenLogprob] = field(default_factory=list)

    def add(self, piece: Piece) -> None:
        """Add a piece; tokens without text wait for the piece that brings it."""
        self.tokens += len(piece.ids)
        if piece.section.kind == THINKING:
            self.thinking += piece.text
        else:
            self.text += piece.text
        self._waiting.extend(piece.logprobs)
        if piece.text:
            self._done.append(self._span(piece.text, self._waiting))
            self._waiting = []

    def html(self, *, live: bool = False) -> str:
        """Return the text so far; `live` adds a mark where it goes on."""
        mark = '<span class="cursor"></span>' if live else ""
        prompt = f'<span class="prompt">{escape(self.prompt)}</span>'
        return answer_box(f"{prompt}{''.join(self._done)}{mark}")

    def _span(self, text: str, logprobs: Sequence[TokenLogprob]) -> str:
        if not logprobs:
            return f"<span>{escape(text)}</span>"
        probability = math.exp(sum(token.logprob for token in logprobs))
        doubt = round(1 - probability, 3)
        return f'<span class="tok" tabindex="0" style="--doubt:{doubt}">{escape(text)}{self._tip(logprobs[-1])}</span>'

    def _tip(self, token: TokenLogprob) -> str:
        rows = dict(token.top)
        rows.setdefault(token.id, token.logprob)
        ranked = sorted(rows.items(), key=lambda row: (-row[1], row[0]))
        return f'<span class="tip">{"".join(self._row(id, value, id == token.id) for id, value in ranked)}</span>'

    def _row(self, id: int, logprob: float, chosen: bool) -> str:
        share = math.exp(logprob) * 100
        name = escape(visible(token_text(self.tokenizer, id)))
        kind = "row chosen" if chosen else "row"
        return (
            f'<span class="{kind}"><span class="name">{name}</span>'
            f'<span class="bar" style="--share:{share:.2f}%"></span><span class="share">{share:.1f} %</span></span>'
        )


def answer_box(content: str) -> str:
    """Return HTML in the box of completions, which keeps its end in sight; tables of rivals open below it."""
    return f'<div class="answer-frame"><div class="answer"><div>{content}</div></div></div>'


def side_by_side(boxes: Sequence[str]) -> str:
    """Return answers beside each other; a single one has all the room."""
    return boxes[0] if len(boxes) == 1 else f'<div class="side-by-side">{"".join(boxes)}</div>'


def conversation(turns: Sequence[Mapping[str, str]], *, live: bool = False) -> str:
    """Return the turns of a chat, as plain text: nothing a model writes is taken for a page's own markup."""
    mark = '<span class="cursor"></span>' if live else ""
    said = [
        f'<div class="turn {escape(turn["role"])}"><span>{_thoughts(turn)}{escape(turn["content"])}'
        f"{mark if place == len(turns) else ''}</span></div>"
        for place, turn in enumerate(turns, start=1)
    ]
    # The newest stands first and the box is laid out from below, so that the end stays in sight while it grows.
    empty = '<span class="empty">Ask something.</span>'
    return f'<div class="conversation" aria-live="polite">{"".join(reversed(said)) or empty}</div>'


def _thoughts(turn: Mapping[str, str]) -> str:
    thought = turn.get("reasoning_content")
    if not thought:
        return ""
    opened = "" if turn["content"] else " open"  # in sight while there is nothing else to see
    return f'<details class="thinking"{opened}><summary>Thinking</summary>{escape(thought)}</details>'


def visible(text: str) -> str:
    """Return a token with its blanks made visible."""
    return text.replace("\n", "↵").replace("\t", "⇥").replace(" ", "␣")


def facts_line(facts: Iterable[str]) -> str:
    """Return a line of small facts."""
    return f'<div class="facts">{" · ".join(map(escape, facts))}</div>'


def problem_line(message: str) -> str:
    """Return a line that says what went wrong and what to do."""
    return f'<div class="problem" role="alert">{escape(message)}</div>'
