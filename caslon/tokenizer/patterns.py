r"""Settings of pattern and digits to the pre-tokenizer that cuts a text into pieces, before any piece is looked up.

The patterns are ones that GGUF runtimes know by name: llama.cpp refuses a tokenizer whose pre-tokenizer it does not know.
`gpt-2` is GPT-2's (2019), `smollm` the same after each digit is cut off, `llama-bpe` Llama 3's, which groups digits by three
from the left. Grouping from the right (arXiv:2402.14903) has no name there. No pattern takes quadratic time: where groups
begin from the right is decided once per run of digits, at its start.
"""

from dataclasses import dataclass
from typing import Any

from tokenizers import Regex, pre_tokenizers

from caslon.errors import UserError

PATTERNS = ("gpt2", "llama3")
DIGITS = ("none", "single", "groups3", "groups3_right")
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
RUN_OF_DIGITS = r"\p{N}+"
GROUPS_FROM_THE_RIGHT = r"\A\p{N}{1,2}(?=(?>(?:\p{N}{3})*)\z)|\p{N}{3}"  # applied to a run of digits alone
WORD_PIECE_BYTES = (
    32  # greedy longest match tries every end of a stretch, so stretches are bounded; cuts change no text
)


@dataclass(frozen=True)
class Cut:
    """How texts are cut: the pattern, what becomes of digits, and the name GGUF runtimes know the two by."""

    pattern: str
    digits: str

    @property
    def runtime_name(self) -> str | None:
        """The pre-tokenizer's name in llama.cpp; None where it has none."""
        names = {"none": "gpt-2", "single": "smollm", "groups3": "llama-bpe"}
        return names.get(self.digits)

    @property
    def groups_digits(self) -> bool:
        """Whether runs of digits are cut into groups of three."""
        return self.digits.startswith("groups3")

    def pre_tokenizer(self, algorithm: str) -> Any:
        """Return the library's pre-tokenizer, which also turns bytes into symbols."""
        steps = self._steps()
        if algorithm == "wordpiece":
            steps.append(_split(f".{{1,{WORD_PIECE_BYTES}}}"))
        return steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)

    def _steps(self) -> list[Any]:
        gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        if self.digits == "groups3":
            return [_split(LLAMA3), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        if self.digits == "groups3_right":
            return [_split(RUN_OF_DIGITS), _split(GROUPS_FROM_THE_RIGHT), gpt2]
        return [pre_tokenizers.Digits(individual_digits=True), gpt2] if self.digits == "single" else [gpt2]


def cut_of(pattern: str, digits: str) -> Cut:
    """Return how texts are cut. Llama 3's pattern and groups from the left imply each other.

    `UserError` for a setting that does not exist and for two that exclude each other.
    """
    if pattern not in PATTERNS:
        raise UserError(f"there is no pattern {pattern!r}", fix=f"use one of {', '.join(PATTERNS)}")
    if digits not in DIGITS:
        raise UserError(f"there is no digit mode {digits!r}", fix=f"use one of {', '.join(DIGITS)}")
    if pattern == "llama3" and digits not in ("none", "groups3"):
        raise UserError(
            f'pattern = "llama3" groups digits by three from the left, digits = "{digits}" does not',
            fix='set digits = "groups3", or pattern = "gpt2"',
        )
    if pattern == "llama3" or digits == "groups3":
        return Cut("llama3", "groups3")
    return Cut("gpt2", digits)


def digit_groups() -> tuple[str, ...]:
    """Return the 1,110 strings of one to three digits, shortest first."""
    return tuple(f"{number:0{width}}" for width in (1, 2, 3) for number in range(10**width))


def _split(pattern: str) -> Any:
    return pre_tokenizers.Split(Regex(pattern), "isolated")
