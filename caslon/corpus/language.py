"""The language of a text, told offline by py3langid (its model lies in its wheel) or lingua, with the evidence kept.

Start, middle and end of a text are looked at; every paragraph is only when they disagree. English needs no model where its
commonest words are many: over 0.15 of the words of nearly every passage from 1550 to today, at most 0.08 in any of eight other
languages (benchmarks/corpus_steps.py). That is forty times as fast, and surer on early spelling.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Literal

from caslon.corpus.document import Document, Reject
from caslon.corpus.filters import reject, without_ranges
from caslon.corpus.settings import CorpusSettings
from caslon.errors import UserError

Detector = Literal["py3langid", "lingua"]
Classify = Callable[[str], str]
Chunk = tuple[str, int, tuple[int, ...]]  # language, letters, numbers of the blocks

STEP = "language"
SAMPLE_CHARACTERS = 600
MINIMUM_LETTERS = 200  # below: the source's language is believed
NO_LANGUAGE = "zxx"  # ISO 639-3: no linguistic content
PIECE_CHARACTERS = 4000  # longer paragraphs are judged in pieces
CHUNK_CHARACTERS = 600  # short paragraphs are judged together
KEPT_WHOLE_SHARE = 0.80
KEPT_SHARE = 0.30
COMMON_ENGLISH_LIST = """
    the and of to that his with which for by not they their this from have him her she are were been who when what would
    shall will my your you but as it be upon into hath unto these those than there them our had
"""
COMMON_ENGLISH = frozenset(COMMON_ENGLISH_LIST.split())
COMMON_SHARE = 0.15  # of the words of a passage; the least English hundredth has 0.13 to 0.2
COMMON_WORDS = 8
NO_ASCII_LETTERS = bytes(code for code in range(128) if not chr(code).isalpha())


def classify(text: str, detector: Detector = "py3langid") -> str:
    """Return the ISO 639-1 code of the language a text is most likely in (`zxx`: none that a model could tell)."""
    return "en" if is_plainly_english(text) else _model(detector)(text)


def is_plainly_english(text: str) -> bool:
    """Return whether the commonest words of English, of any century since 1550, are as many as no other language has."""
    words = text.lower().split()
    common = sum(map(COMMON_ENGLISH.__contains__, words))
    return common >= COMMON_WORDS and common >= COMMON_SHARE * len(words)


def letters(text: str) -> int:
    """Return how many letters a text has."""
    if text.isascii():
        return len(text.encode().translate(None, NO_ASCII_LETTERS))
    return sum(map(str.isalpha, text))


@cache
def _model(detector: Detector) -> Classify:
    return _lingua() if detector == "lingua" else _py3langid()


def _py3langid() -> Classify:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    return lambda text: str(identifier.classify(text.encode("utf-8", "replace").decode())[0])


def _lingua() -> Classify:
    try:
        from lingua import LanguageDetectorBuilder
    except ImportError as error:
        raise UserError(
            "the language detector 'lingua' is not installed", where="corpus", fix="pip install 'caslon[lingua]'"
        ) from error
    detector = LanguageDetectorBuilder.from_all_languages().build()

    def classified(text: str) -> str:
        found = detector.detect_language_of(text.encode("utf-8", "replace").decode())
        return found.iso_code_639_1.name.lower() if found else NO_LANGUAGE

    return classified


def language(document: Document, settings: CorpusSettings, *, detector: Detector = "py3langid") -> Document | Reject:
    """Return the document with the share of letters in each language, or a `wrong_language` reject.

    Code and documents of fewer than 200 letters are not judged: the source's language is believed.
    """
    text = document.text
    wanted = frozenset(settings.languages)
    if not wanted or document.tier == "code":
        return document
    if letters(text[: 10 * MINIMUM_LETTERS]) < MINIMUM_LETTERS and letters(text) < MINIMUM_LETTERS:
        return _by_source(document, wanted)
    told = partial(classify, detector=detector)
    found = set(map(told, _samples(text)))
    if found == {NO_LANGUAGE}:  # not words at all: for the quality step to judge
        return document
    if len(found) == 1:
        return _judged_whole(document, {found.pop(): 1.0}, wanted)
    return _by_paragraph(document, settings, wanted, told)


def _by_paragraph(
    document: Document, settings: CorpusSettings, wanted: frozenset[str], told: Classify
) -> Document | Reject:
    chunks = list(_chunks(document, told))
    judged = _judged_whole(document, _shares(chunks), wanted)
    if isinstance(judged, Document) and judged.scores["language_share"] < KEPT_WHOLE_SHARE:
        return _foreign_paragraphs(judged, chunks, wanted, settings)
    return judged


def _judged_whole(document: Document, shares: dict[str, float], wanted: frozenset[str]) -> Document | Reject:
    judged = _with_shares(document, shares, wanted)
    share = judged.scores["language_share"]
    if share < KEPT_SHARE:
        named = ", ".join(f"{code} {part:.0%}" for code, part in list(shares.items())[:3])
        return reject(
            judged, STEP, "wrong_language", f"{share:.0%} of the letters are in {'/'.join(sorted(wanted))} ({named})"
        )
    return judged


def _by_source(document: Document, wanted: frozenset[str]) -> Document | Reject:
    stated = document.metadata.get("languages") or ()
    if not stated or wanted.intersection(stated):
        return document
    reason = f"too short to judge, and its source is in {', '.join(stated)}"
    return reject(document, STEP, "wrong_language", reason)


def _samples(text: str) -> Iterator[str]:
    if len(text) <= 3 * SAMPLE_CHARACTERS:
        yield text
        return
    middle = (len(text) - SAMPLE_CHARACTERS) // 2
    yield text[:SAMPLE_CHARACTERS]
    yield text[middle : middle + SAMPLE_CHARACTERS]
    yield text[-SAMPLE_CHARACTERS:]


def _chunks(document: Document, told: Classify) -> Iterator[Chunk]:
    """Yield `(language, letters, blocks)` of runs of blocks that are long enough to judge."""
    numbers: list[int] = []
    size = 0
    for number, block in enumerate(document.blocks):
        numbers.append(number)
        size += len(block.text)
        if size >= CHUNK_CHARACTERS:
            yield _judged(document, numbers, told)
            numbers, size = [], 0
    if numbers:
        yield _judged(document, numbers, told)


def _judged(document: Document, numbers: Sequence[int], told: Classify) -> Chunk:
    text = "\n".join(document.blocks[number].text for number in numbers)
    pieces = [text[start : start + PIECE_CHARACTERS] for start in range(0, len(text), PIECE_CHARACTERS)]
    votes: Counter[str] = Counter()
    for piece in pieces:
        votes[told(piece)] += letters(piece)
    best = min(votes, key=lambda code: (-votes[code], code))
    return best, sum(votes.values()), tuple(numbers)


def _shares(chunks: Iterable[Chunk]) -> dict[str, float]:
    counts: Counter[str] = Counter()
    for code, size, _ in chunks:
        counts[code] += size
    total = max(sum(counts.values()), 1)
    return {code: round(counts[code] / total, 4) for code in sorted(counts, key=lambda code: (-counts[code], code))}


def _with_shares(document: Document, shares: dict[str, float], wanted: frozenset[str]) -> Document:
    share = sum(part for code, part in shares.items() if code in wanted)
    scored = document.with_scores(language_share=round(min(share, 1.0), 4))
    return replace(scored, metadata={**scored.metadata, "language_shares": shares})


def _foreign_paragraphs(
    document: Document,
    chunks: Iterable[Chunk],
    wanted: frozenset[str],
    settings: CorpusSettings,
) -> Document:
    foreign = [number for code, _, numbers in chunks if code not in wanted for number in numbers]
    if settings.foreign_paragraphs == "drop":
        whole = [(number, 0, len(document.blocks[number].text)) for number in foreign]
        return without_ranges(document, whole, "foreign_paragraph")
    return replace(document, metadata={**document.metadata, "foreign_blocks": foreign})
