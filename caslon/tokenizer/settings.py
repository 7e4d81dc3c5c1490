"""The `[tokenizer]` table of a recipe. Imports nothing heavy before its keys are checked together."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from caslon.errors import UserError
from caslon.settings import Settings, known_by_content, side_effect_only
from caslon.tokenizer import special
from caslon.tokenizer.texts import characters_of, texts_of_files

if TYPE_CHECKING:
    from caslon.tokenizer.train import TrainingSettings

SHARES_TOLERANCE = 1e-9
LEARNING_KEYS = frozenset(
    ("vocab_size", "min_frequency", "digits", "pattern", "lexicon", "special_mode", "max_bytes", "strict_size")
)


class TokenizerSettings(Settings):
    """How the vocabulary is learned and what a unit of the token files is."""

    text: str = Field(
        "", description="a plain text file to use in place of a corpus", json_schema_extra=known_by_content()
    )
    text_split: tuple[float, ...] = Field(
        (0.9, 0.1),
        min_length=2,
        max_length=3,
        description="its train, validation and test shares, in the order of the text",
    )
    algorithm: Literal["bpe", "wordpiece", "unigram", "bytes", "characters"] = Field(
        "bpe", description="three that learn, byte-level and exact; bytes and characters, which learn nothing"
    )
    vocab_size: int = Field(30_000, description="entries in all: bytes, special, guaranteed and learned ones")
    min_frequency: int = Field(2, ge=1, description="how often a pair must occur to become an entry")
    digits: Literal["none", "single", "groups3", "groups3_right"] = Field(
        "none", description="learned as other text, one by one, or in groups of three from the left or the right"
    )
    pattern: Literal["gpt2", "llama3"] = Field("gpt2", description="what cuts a text; llama3 is that of groups3")
    lexicon: str = Field("", description='words that must be one token: "london", the path of a lexicon file, or none')
    special_mode: Literal["words", "tags"] = Field("words", description="what lexicon words become; tags: experiments")
    special_tokens: tuple[str, ...] = Field((), description="names for the reserved tokens, in their order: <|name|>")
    sentinels: int = Field(0, ge=0, le=1_000, description="marks of span corruption, <|extra_0|> and so on")
    model_max_length: int = Field(1_024, ge=1, description="context in tokens that other readers are told")
    max_bytes: int = Field(2 << 30, ge=1, description="bytes of text to learn from; a seeded sample above that")
    strict_size: bool = Field(False, description="fail when the corpus cannot fill the vocabulary")
    unit: Literal["document", "segment"] = Field("document", description="what the end-of-text id closes")
    workers: int = Field(
        0,
        ge=0,
        description="processes that encode; 0: one for each core when there is much text",
        json_schema_extra=side_effect_only(),
    )

    @model_validator(mode="after")
    def _can_be_had(self) -> "TokenizerSettings":
        if self.text and self.unit == "segment":
            raise ValueError('a plain text has no segments: leave unit out, or set unit = "document"')
        if min(self.text_split) <= 0 or abs(sum(self.text_split) - 1) > SHARES_TOLERANCE:
            raise ValueError(f"the shares of text_split must be above 0 and sum to 1, not to {sum(self.text_split):g}")
        try:
            if self.is_untrained:
                self._refuse_without_effect()
                special.untrained_special_tokens(self.special_tokens, self.sentinels)
            else:
                self.training().check()
        except UserError as error:
            raise ValueError("; ".join(part for part in (error.what, error.where, error.fix) if part)) from None
        return self

    @property
    def is_untrained(self) -> bool:
        """Whether the vocabulary follows from bytes or characters alone."""
        return self.algorithm in special.UNTRAINED

    def _refuse_without_effect(self) -> None:
        given = sorted(LEARNING_KEYS & self.model_fields_set)
        if given:
            raise ValueError(f'{", ".join(given)} has no effect with algorithm = "{self.algorithm}": leave it out')

    def planned_vocab_size(self, base: Path) -> int:
        """Return how many entries there will be (at most, where a vocabulary is learned); reads the text for characters."""
        if not self.is_untrained:
            return self.vocab_size
        added = len(special.untrained_special_tokens(self.special_tokens, self.sentinels))
        if self.algorithm == "bytes":
            return special.BYTE_COUNT + added
        if not self.text:
            raise UserError(
                "how many characters there are is known when the corpus is built", fix="run the corpus stage"
            )
        return len(characters_of(texts_of_files([base / self.text]))) + added

    def training(self) -> "TrainingSettings":
        """Return the settings of the learning itself."""
        from caslon.tokenizer.lexicon import load_lexicon
        from caslon.tokenizer.train import TrainingSettings

        same = self.model_dump(
            include={
                "algorithm", "vocab_size", "min_frequency", "digits", "pattern", "special_mode", "special_tokens", "sentinels",
                "model_max_length",
            }
        )  # fmt: skip
        return TrainingSettings(**same, lexicon=load_lexicon(self.lexicon))
