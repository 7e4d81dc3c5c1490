"""Much text to ids quickly, with exactly the ids that `Tokenizer.encode` gives.

Three ways, the fastest that is proven for the tokenizer and the text: tiktoken over the same ranks (`ranks.py`); stretches of
text remembered (below); the library itself. tiktoken is asked from the second megabyte on: proving it right costs 0.2 s.

GPT-2's pattern never lets a token reach over the place where a visible character is followed by a space or line break. So text
may be cut there, and the ids of a stretch ("␣word,") depend on nothing else: each is worked out once and remembered. A
stretch of pure ASCII is cut further by the same pattern written for ASCII; any other goes to the library whole. No threads:
nothing can deadlock in a process that forks later.
"""

import re
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from caslon.tokenizer import special
from caslon.tokenizer.ranks import RankedEncoder, ranked_encoder

if TYPE_CHECKING:
    from caslon.tokenizer.tokenizer import Tokenizer

IdArray = npt.NDArray[np.unsignedinteger[Any]]
MEMO_ENTRIES = 500_000  # about 100 MB
RANKED_FROM_CHARACTERS = 1 << 20
LONGEST_REMEMBERED = 64  # characters; longer stretches hardly ever come twice

# Runs of white space stay with what follows them. White space other than these four is only ever cut by the library, since
# regex engines differ on what is white space (Python counts U+001C-U+001F).
_STRETCH = re.compile(
    r"\s*\S+(?:[\x0b\x0c\x1c-\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]\s*\S*)*|\s+"
)
_ASCII_PIECE = re.compile(
    r"'(?:[stmd]|re|ve|ll)| ?[A-Za-z]+| ?[0-9]+| ?[^ \t-\rA-Za-z0-9]+|[ \t-\r]+(?![^ \t-\r])|[ \t-\r]+"
)


def id_type(vocab_size: int) -> "np.dtype[np.unsignedinteger[Any]]":
    """Return the little-endian type token files hold: two bytes up to 65,536 entries, else four."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


class BulkEncoder:
    """Encodes text after text, remembering stretches. Not for use by several threads at once."""

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self._tokenizer = tokenizer
        self._ranked: RankedEncoder | None = None
        self._characters = 0
        self._asked_for_ranks = False
        self._type = id_type(tokenizer.vocab_size)
        self._stretches: dict[str, bytes] = {}
        self._pieces: dict[str, bytes] = {}
        self._model = tokenizer.model
        self._symbols = {byte: symbol for symbol, byte in special.byte_symbols().items()}
        self._code = "H" if self._type.itemsize == 2 else "I"  # of `struct`, the quickest way for a handful of ids

    def encode(self, text: str) -> IdArray:
        """Return the ids of one text, special spellings as plain text."""
        return np.frombuffer(self.encode_bytes(text), dtype=self._type)

    def encode_bytes(self, text: str) -> bytes:
        """Return the ids of one text as the bytes a token file holds."""
        self._characters += len(text)
        if self._characters > RANKED_FROM_CHARACTERS and not self._asked_for_ranks:
            self.use_ranks()
        if self._ranked is not None and self._ranked.takes(text):
            return np.array(self._ranked.encode(text), dtype=self._type).tobytes()
        return self._remembered(text)

    def use_ranks(self) -> bool:
        """Turn to tiktoken now; return whether this tokenizer can be encoded that way."""
        self._ranked = ranked_encoder(self._tokenizer)
        self._asked_for_ranks = True
        return self._ranked is not None

    def _remembered(self, text: str) -> bytes:
        if not self._tokenizer.splits_like_gpt2:
            return self._directly(text)
        stretches = _STRETCH.findall(text)
        self._make_room()
        found = self._stretches
        unknown = set(stretches).difference(found)
        for stretch in unknown:
            found[stretch] = self._stretch(stretch)
        ids = b"".join(map(found.__getitem__, stretches))
        for stretch in unknown:
            if len(stretch) > LONGEST_REMEMBERED:
                del found[stretch]
        return ids

    def _stretch(self, stretch: str) -> bytes:
        if not stretch.isascii() or len(stretch) > LONGEST_REMEMBERED:
            return self._directly(stretch)
        pieces = _ASCII_PIECE.findall(stretch)
        for piece in pieces:
            if piece not in self._pieces:
                self._pieces[piece] = self._piece(piece)
        return b"".join(map(self._pieces.__getitem__, pieces))

    def _piece(self, piece: str) -> bytes:
        """Return the ids of one ASCII piece, asking the model alone: half the time of asking the whole tokenizer."""
        tokens = self._model.tokenize(piece.translate(self._symbols))
        return struct.pack(f"<{len(tokens)}{self._code}", *[token.id for token in tokens])

    def _directly(self, text: str) -> bytes:
        return np.array(self._tokenizer.encode(text), dtype=self._type).tobytes()

    def _make_room(self) -> None:
        if len(self._stretches) > MEMO_ENTRIES:
            self._stretches.clear()
        if len(self._pieces) > MEMO_ENTRIES:
            self._pieces.clear()
