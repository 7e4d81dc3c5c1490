"""The engine's log-probabilities to the two shapes OpenAI gave them: flat lists for completions, one entry a token for chat."""

import codecs
from collections.abc import Sequence
from typing import Any

from caslon.engine.request import TokenLogprob
from caslon.tokenizer.tokenizer import Tokenizer


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """Return one token as text; bytes that are no whole character as `bytes:\\xe2\\x80`, OpenAI's way of writing them."""
    data = tokenizer.token_bytes(token)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


class CompletionLogprobs:
    """Collects the tokens of a completion; offsets go on from piece to piece."""

    def __init__(self, tokenizer: Tokenizer, offset: int = 0) -> None:
        self._tokenizer = tokenizer
        self._offset = offset
        # A character may be spread over tokens: each token's offset is that of the first character it adds to.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def shape(self, tokens: Sequence[TokenLogprob | None], ids: Sequence[int], alternatives: int) -> dict[str, Any]:
        """Return `{tokens, token_logprobs, top_logprobs, text_offset}`; a token without a context has null."""
        texts = [token_text(self._tokenizer, token) for token in ids]
        return {
            "tokens": texts,
            "token_logprobs": [token and token.logprob for token in tokens],
            "top_logprobs": [token and self._top(token) for token in tokens] if alternatives else None,
            "text_offset": [self._next_offset(token) for token in ids],
        }

    def _top(self, token: TokenLogprob) -> dict[str, float]:
        top = {token_text(self._tokenizer, other): logprob for other, logprob in token.top}
        top.setdefault(token_text(self._tokenizer, token.id), token.logprob)
        return top

    def _next_offset(self, token: int) -> int:
        offset = self._offset
        self._offset += len(self._decoder.decode(self._tokenizer.token_bytes(token)))
        return offset


def chat_logprobs(tokenizer: Tokenizer, tokens: Sequence[TokenLogprob], alternatives: int) -> dict[str, Any]:
    """Return `{content: [{token, logprob, bytes, top_logprobs}]}`."""
    return {
        "content": [
            _entry(tokenizer, token.id, token.logprob)
            | {"top_logprobs": [_entry(tokenizer, other, logprob) for other, logprob in token.top[:alternatives]]}
            for token in tokens
        ],
        "refusal": None,
    }


def _entry(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, Any]:
    return {
        "token": token_text(tokenizer, token),
        "logprob": logprob,
        "bytes": list(tokenizer.token_bytes(token)),
    }
