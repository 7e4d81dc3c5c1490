"""A text with a gap to the prompt that asks a model to fill it: prefix, suffix, then the middle (arXiv:2207.14255)."""

from collections.abc import Sequence

from caslon.server.errors import invalid
from caslon.tokenizer.tokenizer import Tokenizer

# Ours and Qwen's, then StarCoder's.
MARKS = (("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"), ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"))


def gap_ids(tokenizer: Tokenizer, before: str | Sequence[int], after: str) -> list[int]:
    """Return the prompt for the text between `before` and `after`; `Refused` where the tokenizer has no marks for it."""
    for marks in MARKS:
        if all(mark in tokenizer for mark in marks):
            prefix, suffix, middle = map(tokenizer.id_of, marks)
            ids = tokenizer.encode(before) if isinstance(before, str) else before
            return [prefix, *ids, suffix, *tokenizer.encode(after), middle]
    raise invalid("the model has no tokens for filling gaps", "suffix", "unsupported_parameter")
