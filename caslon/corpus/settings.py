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
    contained: Share = Field(
        0.0,
        description="a document leaves when so much of its word runs stands in one larger document: other editions, parts "
        "of collected works; 0: off; never in formulaic sources",
    )

    @model_validator(mode="after")
    def _bands_divide(self) -> Self:
        if self.permutations % self.bands:
            raise ValueError(f"{self.permutations} permutations cannot be cut into {self.bands} equal bands")
        return self


class BoilerplateSettings(Settings):
    """What repeats over many documents of a source and is taken out of them. Formulaic sources are law records and the like."""

    enabled: bool = True
    minimum_documents: Annotated[int, Field(ge=2)] = Field(20, description="documents of a source that hold the line")
    line_characters: Annotated[int, Field(ge=1)] = Field(
        40, description="shorter lines stay: headings such as ACT I stand in every play"
    )
    paragraph_characters: Annotated[int, Field(ge=40)] = Field(
        200, description="a paragraph of so many characters that stands in another document is taken out"
    )
    formulaic: bool = Field(False, description="act on formulaic sources too")


PrivacyAction = Literal["mask", "drop", "report", "off"]


class PrivacySettings(Settings):
    """What is done with personal data and secrets, by type: masked, the document dropped, only reported, or not looked for."""

    email: PrivacyAction = "mask"
    phone: PrivacyAction = "mask"
    iban: PrivacyAction = "mask"
    card: PrivacyAction = "mask"
    ip: PrivacyAction = "mask"
    ni: PrivacyAction = Field("mask", description="national insurance numbers")
    url_credentials: PrivacyAction = "mask"
    secret: PrivacyAction = Field("drop", description="private keys and API tokens")
    name: PrivacyAction = Field("off", description="names of persons; needs the extra `names`")


class ReadLimits(Settings):
    """What reading one raw file may take, in a process of its own."""

    seconds: Annotated[float, Field(gt=0)] = Field(60.0, description="of processor time, or of standing still")
    memory_bytes: Annotated[int, Field(ge=1 << 26)] = 1 << 30


class CollectSettings(Settings):
    """How raw files are fetched. `contact` (an e-mail or web address) goes into the user agent; no request is made without."""

    store: str = Field("raw", description="folder of fetched files, addressed by their SHA-256")
    contact: str = ""
    tries: Annotated[int, Field(ge=1, le=20)] = 5
    timeout_seconds: Annotated[float, Field(gt=0)] = 30.0
    delay_seconds: Annotated[float, Field(ge=0)] = 1.0
    max_file_bytes: Annotated[int, Field(ge=1)] = 104_857_600
    allow_private: bool = Field(False, description="let addresses of this machine and of private networks be asked")


class SegmentSettings(Settings):
    """How documents are cut: `packed` joins paragraphs up to a size, `document` keeps each whole."""

    unit: Literal["packed", "document"] = "packed"
    maximum_characters: Annotated[int, Field(ge=100)] = 2000
    minimum_characters: Annotated[int, Field(ge=0)] = 50
    overlap_characters: Annotated[int, Field(ge=0)] = Field(
        0, description="characters of the piece before that a piece repeats, from a sentence's start"
    )

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.overlap_characters * 2 > self.maximum_characters:
            raise ValueError("overlap_characters must be at most half of maximum_characters")
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
    enable: tuple[str, ...] = Field((), description="globs on ids of sources that a registry ships disabled")
    tier_of: dict[str, str] = Field(
        default={}, description="glob on `archive/path` of an inventory's files -> tier; the longest that fits counts"
    )
    commercial_use: bool = Field(False, description="leave out what its licence keeps from commercial use")
    maximum_files: int = Field(0, ge=0, description="read at most this many raw files of each source; 0: all")
    languages: tuple[str, ...] = Field(("en",), description="ISO 639-1 codes that are wanted; none: no language filter")
    language_detector: Literal["py3langid", "lingua"] = Field(
        "py3langid", description="lingua needs the extra `lingua`"
    )
    foreign_paragraphs: Literal["keep", "drop"] = Field("keep", description="in documents kept with some foreign text")
    period: tuple[int, int] | None = Field(None, description="first and last year; none: no period filter")
    unknown_period: Literal["keep", "drop"] = "keep"
    long_s: Literal["keep", "modern"] = "keep"
    ocr_repair: Literal["auto", "off", "apply"] = Field(
        "auto", description="auto: applied where a source says `ocr`, elsewhere only counted"
    )
    tiers: dict[str, tuple[int, int, float]] = Field(
        default=DEFAULT_TIERS, description="tier -> minimum characters, words, share of meaningful words"
    )
    maximum_ad_density: Share = 0.1
    minimum_score: float = Field(0.0, ge=0.0, le=100.0)
    near_duplicates: NearDuplicateSettings = NearDuplicateSettings()
    boilerplate: BoilerplateSettings = BoilerplateSettings()
    decontaminate: tuple[str, ...] = Field(
        (), description="files of evaluation items; a document that shares a run of 13 words with one is dropped"
    )
    forget: str = Field("", description="file of document ids, addresses or hashes, one a line, that must not enter")
    privacy: PrivacySettings = PrivacySettings()
    segments: SegmentSettings = SegmentSettings()
    split: tuple[Share, Share, Share] = (0.90, 0.05, 0.05)
    split_by_author: bool = Field(False, description="works of one author never stand in different splits")
    max_share: Share = Field(0.0, description="how much of the corpus one source may be; 0: no limit")
    maximum_reject_share: Share = Field(
        1.0, description="stop with an error when more documents than this are rejected"
    )
    collect: CollectSettings = CollectSettings()
    limits: ReadLimits = ReadLimits()
    backend: Literal["local", "ray"] = Field(
        "local",
        description="where the processes run: on this machine, or on a Ray cluster over shared storage",
        json_schema_extra=side_effect_only(),
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
