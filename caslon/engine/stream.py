"""Turns generated ids into pieces of text that can be shown at once.

A character whose bytes are spread over tokens waits for its last byte, and text that may be the beginning of a stop
string waits until it is decided. Joined, the pieces are the text that decoding all ids at once gives.
"""

import codecs

from caslon.engine.request import SamplingParams
from caslon.tokenizer.tokenizer import Tokenizer


class TextStream:
    """The text of one answer as it grows. `text` is what was given out so far; `stopped_by` the stop string found."""

    def __init__(self, tokenizer: Tokenizer, params: SamplingParams) -> None:
        self._tokenizer = tokenizer
        self._params = params
        self._skipped = tokenizer.special_ids if params.skip_special_tokens else frozenset[int]()
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._ids: list[int] = []
        self._decoded = 0
        self._held = ""
        self.text = ""
        self.stopped_by: str | None = None

    def push(self, token: int, *, may_stop: bool) -> str:
        """Add a token and return the text that can be shown now. `may_stop` is false until `min_tokens` is reached."""
        return self._show(self._characters(token), may_stop=may_stop)

    def finish(self) -> str:
        """Return what was still held back, an unfinished character as U+FFFD."""
        rest = self._held + self._rest()
        self._held = ""
        self.text += rest
        return rest

    def _characters(self, token: int) -> str:
        if token in self._skipped:
            return ""
        if self._tokenizer.is_byte_level:
            return self._utf8.decode(self._tokenizer.token_bytes(token))
        self._ids.append(token)
        spelling = self._tokenizer.spelling_of(token)
        if spelling.startswith("<0x") and spelling.endswith(">"):  # a run of single bytes is read as one, at its end
            return ""
        return self._after_decoded(self._tokenizer.decode(self._ids))

    def _rest(self) -> str:
        if self._tokenizer.is_byte_level:
            return self._utf8.decode(b"", final=True)
        return self._after_decoded(self._tokenizer.decode(self._ids))

    def _after_decoded(self, whole: str) -> str:
        new = whole[self._decoded :]
        self._decoded = len(whole)
        return new

    def _show(self, characters: str, *, may_stop: bool) -> str:
        if self._params.stop and may_stop:
            held = self._held + characters
            shown, self._held = self._cut(held)
        else:
            shown = self._held + characters
            self._held = ""
        self.text += shown
        return shown

    def _cut(self, held: str) -> tuple[str, str]:
        """Return what may be shown of `held` and what must wait; sets `stopped_by` when a stop string is in it."""
        found = [(held.find(stop), stop) for stop in self._params.stop if stop in held]
        if found:
            at, self.stopped_by = min(found, key=lambda pair: (pair[0], -len(pair[1])))
            return held[: at + len(self.stopped_by) if self._params.include_stop else at], ""
        waiting = max(_beginning_at_end(held, stop) for stop in self._params.stop)
        return (held[:-waiting], held[-waiting:]) if waiting else (held, "")


def _beginning_at_end(text: str, stop: str) -> int:
    """Return how many characters at the end of `text` may be the beginning of `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
