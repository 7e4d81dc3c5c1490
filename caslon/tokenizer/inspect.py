"""A text or a conversation to the pieces a model gets: for people who want to see, and for programs that count.

The two `count_` functions are the only way caslon counts tokens: trainer, server, retrieval and chat page agree by sharing them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from caslon.tokenizer.chat import Message
from caslon.tokenizer.tokenizer import Tokenizer

COLOURS = 6  # pieces take turns in them, so that neighbours differ
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
    """Return the tokens of a text in order; of an exact tokenizer, their bytes joined are the text."""
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
class Inspection:
    """One text as one tokenizer cuts it."""

    name: str
    text: str
    pieces: tuple[Piece, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything a page or a terminal shows."""
        return {**self.figures(), "pieces": [piece.to_json() for piece in self.pieces]}

    def figures(self) -> dict[str, Any]:
        """Return the name and the counts."""
        return {
            "tokenizer": self.name,
            "tokens": len(self.pieces),
            "special": sum(piece.special for piece in self.pieces),
            "characters": len(self.text),
            "bytes": len(self.text.encode()),
            "words": len(self.text.split()),
        }


def inspect_text(tokenizers: Mapping[str, Tokenizer], text: str, *, allow_special: bool = False) -> list[Inspection]:
    """Return the text as each tokenizer cuts it, in the given order."""
    return [
        Inspection(name, text, tuple(pieces(tokenizer, text, allow_special=allow_special)))
        for name, tokenizer in tokenizers.items()
    ]


def coloured_html(found: Sequence[Piece]) -> str:
    """Return pieces as coloured spans: hover shows id and bytes, special tokens have a border."""
    spans = []
    for number, piece in enumerate(found):
        hue = 360 * (number % COLOURS) // COLOURS
        border = "outline:2px solid currentColor;font-weight:bold;" if piece.special else ""
        title = f"id {piece.id}, bytes {piece.bytes.hex(' ')}" + (", special" if piece.special else "")
        shown = escape(piece.shown).replace("⏎", "⏎\n")
        style = f"background:hsl({hue} 80% 50% / 28%);border-radius:3px;{border}"
        spans.append(f'<span style="{style}" title="{escape(title)}">{shown}</span>')
    return f"<pre>{''.join(spans)}</pre>"


def write_inspection(path: Path, inspections: Sequence[Inspection]) -> None:
    """Write the inspections as one self-contained HTML page."""
    from caslon.tokenizer.coloured_page import Coloured, write_coloured_page

    write_coloured_page(
        path, _page(inspections), [Coloured(found.name, coloured_html(found.pieces)) for found in inspections]
    )


def _page(inspections: Sequence[Inspection]) -> Any:
    from caslon.report.page import Details, Page, Section, Table
    from caslon.tokenizer.coloured_page import place_for

    columns = ["tokenizer", "tokens", "special", "characters", "bytes", "words"]
    counts = Table(columns, [[found.figures()[column] for column in columns] for found in inspections])
    cuts = [
        Section(
            found.name,
            [
                place_for(number),
                Details(
                    f"The {len(found.pieces):,} tokens",
                    [
                        Table(
                            ["place", "id", "token", "bytes", "special"],
                            [[at, p.id, p.shown, p.bytes.hex(" "), p.special] for at, p in enumerate(found.pieces)],
                        )
                    ],
                ),
            ],
        )
        for number, found in enumerate(inspections)
    ]
    intro = "␣ is a space, ⏎ a line break, ⇥ a tab, <..> bytes of a character. Special tokens have a border."
    text = inspections[0].text
    return Page(
        "Inspection", text if len(text) < 120 else text[:117] + "...", [Section("Counts", [counts], intro), *cuts]
    )


@dataclass(frozen=True)
class Count:
    """How much a text is."""

    tokens: int
    characters: int
    bytes: int
    words: int

    def __add__(self, other: "Count") -> "Count":
        return Count(*(one + two for one, two in zip(asdict(self).values(), asdict(other).values(), strict=True)))


NOTHING = Count(0, 0, 0, 0)


def count_text(tokenizer: Tokenizer, text: str) -> Count:
    """Return the size of a text; `tokens` is what a model gets."""
    tokens = sum(map(len, tokenizer.encode_batch([text])))
    return Count(tokens, len(text), len(text.encode()), len(text.split()))


def count_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> int:
    """Return the tokens of a conversation, template and opening of the answer included: what a server would count."""
    return len(tokenizer.encode_chat(messages, add_generation_prompt=add_generation_prompt, tools=tools).ids)
