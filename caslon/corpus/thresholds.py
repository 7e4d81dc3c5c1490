"""A judged text to its scores, each beside the threshold it is held against and whether it passes.

The limits are those of the steps themselves (language, period, quality); nothing is decided here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from caslon.corpus import filters
from caslon.corpus.language import KEPT_SHARE
from caslon.corpus.period import OVERWHELMING
from caslon.corpus.segments import sentence_ends
from caslon.corpus.settings import CorpusSettings


@dataclass(frozen=True, slots=True)
class Score:
    """One figure about a text. Without limits it is only told; `code` is the reject it leads to outside of them."""

    name: str
    value: float
    minimum: float | None = None
    maximum: float | None = None
    code: str = ""
    note: str = ""

    @property
    def passed(self) -> bool | None:
        """Whether the value lies within its limits; None when it has none."""
        if self.minimum is None and self.maximum is None:
            return None
        above = self.minimum is None or self.value >= self.minimum
        return above and (self.maximum is None or self.value <= self.maximum)

    @property
    def limits(self) -> str:
        """The limits in words; empty when there are none."""
        if self.minimum is not None and self.maximum is not None:
            return f"{self.minimum:g} to {self.maximum:g}"
        if self.minimum is not None:
            return f"at least {self.minimum:g}"
        return f"at most {self.maximum:g}" if self.maximum is not None else ""

    def to_json(self) -> dict[str, Any]:
        """Return the score as plain JSON values."""
        return {**asdict(self), "passed": self.passed}


def held_against(
    text: str, tier: str, year: int | None, scores: Mapping[str, float], settings: CorpusSettings
) -> tuple[Score, ...]:
    """Return every score of a text in the order of the steps; scores that no step has given are left out."""
    return (*_language_and_period(year, scores, settings), *_quality(text, tier, scores, settings))


def _language_and_period(year: int | None, scores: Mapping[str, float], settings: CorpusSettings) -> Iterator[Score]:
    if "language_share" in scores:
        note = f"of the letters in {'/'.join(settings.languages)}"
        yield Score("language_share", scores["language_share"], KEPT_SHARE, None, "wrong_language", note)
    if "modernity" in scores:
        dated = year is not None and settings.period is not None and settings.period[0] <= year <= settings.period[1]
        note = "signs of a later time; a date in the period allows more of them"
        limit = float(OVERWHELMING) if dated else 1.0
        yield Score("modernity", scores["modernity"], None, limit, "out_of_period", note)


def _quality(text: str, tier: str, scores: Mapping[str, float], settings: CorpusSettings) -> Iterator[Score]:
    tiers = settings.all_tiers
    characters, words, ratio = tiers.get(tier, tiers["general"])
    yield Score("characters", len(text), characters, None, "too_short", f"tier '{tier}'")
    yield Score("words", len(text.split()), words, None, "too_short", f"tier '{tier}'")
    if tier == "web":
        sentences = sum(1 for _ in sentence_ends(text + "\n"))
        yield Score("sentences", sentences, filters.WEB_SENTENCES, None, "too_short", f"tier '{tier}'")
    share, three, token = (
        filters.MAXIMUM_REPEATED_SHARE,
        filters.MAXIMUM_TOP_3GRAM_SHARE,
        filters.MAXIMUM_TOKEN_CHARACTERS,
    )
    limits: dict[str, tuple[float | None, float | None, str, str]] = {
        "meaningful_ratio": (ratio, None, "low_meaningful_ratio", f"tier '{tier}'"),
        "ad_density": (None, None, "ad_dense", _of_advertisements(settings)),
        "ocr_signs": (None, None, "", "kinds of OCR damage, 0 to 5; each takes 3 points off the score"),
        "repeated_lines": (None, share, "repetitive", "share of characters"),
        "repeated_paragraphs": (None, share, "repetitive", "share of characters"),
        "top_3gram": (None, three, "repetitive", "share of characters"),
        "mean_word": (*filters.MEAN_WORD_CHARACTERS, "garbled", "characters"),
        "longest_token": (None, token, "garbled", "characters"),
        "symbols_per_word": (None, filters.MAXIMUM_SYMBOLS_PER_WORD, "garbled", ""),
        "score": (settings.minimum_score or None, None, "garbled", "0 to 100; decides which of two copies stays"),
    }
    for name, (minimum, maximum, code, note) in limits.items():
        if name in scores:
            yield Score(name, scores[name], minimum, maximum, code, note)


def _of_advertisements(settings: CorpusSettings) -> str:
    return (
        f"windows of {filters.AD_WINDOW_WORDS} words at {settings.maximum_ad_density:g} or more are cut out; "
        f"more than {filters.AD_DOCUMENT_SHARE:.0%} of the words in them: dropped"
    )
