"""The `[corpus]` table of a recipe. Values without a source beside them are the London recipe's."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from caslon.settings import Settings, side_effect_only

Share = Annotated[float, Field(ge=0.0, le=1.0)]

DEFAULT_TIERS: dict[str, tuple[int, int, float]] = {
    "general": (200, 50, 0.50),
    "gutenberg": (200, 50, 0.40),
    "historical": (1000, 100, 0.30),
    "web": (200, 100, 0.50),
    "code": (50, 0, 0.0),
}


class NearDuplicateSettings(Settings):
    """When two documents count as the same text (MinHash over word shingles, Broder 1997)."""

    enabled: bool = True
    jaccard: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    shingle_words: Annotated[int, Field(ge=1, le=50)] = 5
    permutations: Annotated[int, Field(ge=8, le=1024)] = 128
    bands: Annotated[int, Field(ge=1, le=256)] = 16

    @model_validator(mode="after")
    def _bands_divide(self) -> Self:
        if self.permutations % self.bands:
            raise ValueError(f"{self.permutations} permutations cannot be cut into {self.bands} equal bands")
        return self


class SegmentSettings(Settings):
    """How documents are cut: `packed` joins paragraphs up to a size, `document` keeps each whole."""

    unit: Literal["packed", "document"] = "packed"
    maximum_characters: Annotated[int, Field(ge=100)] = 2000
    minimum_characters: Annotated[int, Field(ge=0)] = 50

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.minimum_characters * 2 > self.maximum_characters:
            raise ValueError("minimum_characters must be at most half of maximum_characters")
        return self


class CorpusSettings(Settings):
    """Where the text comes from, what may enter the corpus, and how it is cut and split."""

    sources: str = Field("python", description="`python`, a registry file (sources.json), or a folder or file")
    roles: tuple[str, ...] = Field(
        ("train",), description="which files of an inventory: train, duplicate, negative, sample"
    )
    only: tuple[str, ...] = Field((), description="globs on the ids of sources; none: all that are enabled")
    maximum_files: int = Field(0, ge=0, description="read at most this many raw files of each source; 0: all")
    languages: tuple[str, ...] = Field(("en",), description="ISO 639-1 codes that are wanted; none: no language filter")
    foreign_paragraphs: Literal["keep", "drop"] = Field("keep", description="in documents kept with some foreign text")
    period: tuple[int, int] | None = Field(None, description="first and last year; none: no period filter")
    unknown_period: Literal["keep", "drop"] = "keep"
    long_s: Literal["keep", "modern"] = "keep"
    tiers: dict[str, tuple[int, int, float]] = Field(
        default=DEFAULT_TIERS, description="tier -> minimum characters, words, share of meaningful words"
    )
    maximum_ad_density: Share = 0.1
    minimum_score: float = Field(0.0, ge=0.0, le=100.0)
    near_duplicates: NearDuplicateSettings = NearDuplicateSettings()
    segments: SegmentSettings = SegmentSettings()
    split: tuple[Share, Share, Share] = (0.90, 0.05, 0.05)
    maximum_reject_share: Share = Field(
        1.0, description="stop with an error when more documents than this are rejected"
    )
    workers: int = Field(0, ge=0, description="processes; 0: one per core", json_schema_extra=side_effect_only())

    @model_validator(mode="after")
    def _check(self) -> Self:
        if abs(sum(self.split) - 1.0) > 1e-9:
            raise ValueError(f"the shares of split add up to {sum(self.split):g}, not 1")
        if self.period and self.period[0] > self.period[1]:
            raise ValueError(f"the period begins ({self.period[0]}) after it ends ({self.period[1]})")
        return self

    @property
    def all_tiers(self) -> dict[str, tuple[int, int, float]]:
        """The thresholds of every tier: the defaults, overridden by `tiers`."""
        return {**DEFAULT_TIERS, **self.tiers}
