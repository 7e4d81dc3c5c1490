"""A text or a conversation as the pieces a model gets: for people who want to see, and for programs that count."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from caslon.tokenizer.chat import Message
from caslon.tokenizer.tokenizer import Tokenizer

_VISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍", "\0": "␀"})


@dataclass(frozen=True)
class Piece:
    """One token of a text. `shown` makes white space and incomplete characters visible."""

    id: int
    shown: str
    bytes: bytes
    special: bool

    def to_json(self) -> dict[str, Any]:
        """Return the piece with its bytes as numbers."""
        return {"id": self.id, "shown": self.shown, "bytes": list(self.bytes), "special": self.special}


def pieces(tokenizer: Tokenizer, text: str, *, allow_special: bool = False) -> list[Piece]:
    """Return the tokens of a text in order; their bytes joined are the text."""
    return pieces_of_ids(tokenizer, tokenizer.encode(text, allow_special=allow_special))


def pieces_of_ids(tokenizer: Tokenizer, ids: Sequence[int]) -> list[Piece]:
    """Return ids as pieces."""
    return [
        Piece(id, shown_bytes(tokenizer.token_bytes(id)), tokenizer.token_bytes(id), id in tokenizer.special_ids)
        for id in ids
    ]


def shown_bytes(data: bytes) -> str:
    """Return a token's bytes for reading: white space as signs, bytes that are no whole character as `<E2 82>`."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return f"<{data.hex(' ').upper()}>"
    return text.translate(_VISIBLE)


@dataclass(frozen=True)
class Count:
    """How much a text is."""

    tokens: int
    characters: int
    bytes: int
    words: int


def count_text(tokenizer: Tokenizer, text: str) -> Count:
    """Return the size of a text; `tokens` is what a model gets."""
    tokens = sum(map(len, tokenizer.encode_batch([text])))
    return Count(tokens, len(text), len(text.encode()), len(text.split()))


def count_chat(tokenizer: Tokenizer, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> int:
    """Return the tokens of a conversation, template and opening of the answer included: what a server would count."""
    return len(tokenizer.encode_chat(messages, add_generation_prompt=add_generation_prompt).ids)
