"""Quality of a text: advertisement windows, signs of bad OCR, repetition, garbage, and the thresholds of its tier.

Every figure is stored with the document, so that other thresholds can be applied later without reading raw files again.
The tiers, the ten advertisement patterns and the score are those of the published London pipeline, with its counting mistakes
put right; repetition limits are Gopher's (Rae et al. 2021, arXiv:2112.11446, table A1).
"""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from caslon.corpus.document import BLOCK_SEPARATOR, Block, Document, Reject, Removal
from caslon.corpus.segments import sentence_ends
from caslon.corpus.settings import CorpusSettings

STEP = "quality"
WORD = re.compile(r"\S+")
OUTER_PUNCTUATION = re.compile(r"^[\W_]+|[\W_]+$")
MEANINGFUL = re.compile(r"[^\W\d_]+(?:['’‘\-‑∣¦|][^\W\d_]+)*")
AD_WINDOW_WORDS = 200
AD_DOCUMENT_SHARE = 0.5
NUMBER = (
    r"(?:\d+|one|two|three|four|five|six|seven|eight|nine|ten|twelve"
    r"|first|second|third|fourth|fifth|sixth|seventh|eighth|new|last)"
)
PUBLISHED = r"publish(?:ed|['’]d|t)"
# Ten families of phrases of the book trade. The published recipe names one phrase of each; lists of books printed from 1650
# to 1850 mostly say it otherwise. Measured on 1,526 windows of good texts: two reach a density of 0.1, both are such lists.
AD_FAMILIES = (
    rf"this\s+day\s+(?:(?:is|are|was|were)\s+)?(?:just\s+)?{PUBLISHED}|(?:lately|newly|just|also|already)\s+{PUBLISHED}"
    rf"|speedily\s+(?:will\s+)?be\s+{PUBLISHED}|now\s+(?:first\s+)?{PUBLISHED}",
    r"(?:just|now)\s+ready|in\s+the\s+press|subscribers?|given\s+gratis",
    r"(?:elegantly|finely|neatly|handsomely|beautifully)\s+(?:bound|printed)|(?:bound|sew['’]?e?d|stitch['’]?e?d)\s+in\s+\w+"
    r"|in\s+boards",
    r"new\s+(?:novels|books|publications)|books\s+(?:\w+\s+)?(?:printed|sold|publish\S*)",
    r"advertisements?|(?:dedicated\s+to|recommended\s+by)",
    rf"pr(?:ice|\.)(?:\s+(?:bound|only|sew['’]?e?d|stitch['’]?e?d|neatly|in\s+\w+))*,?\s+{NUMBER}"
    r"\s?(?:l|s|d|pence|shillings?|guineas?)?\b\.?(?:\s*(?:and\s+)?\d+\s?[sd]\b\.?)*"
    r"(?:\s+(?:bound|sew['’]?e?d|stitch['’]?e?d|each))?",
    r"pater\s?-?noster\s?-?row|st\.?\s+paul['’]?s\s+church\s?-?yard|stationers['’]?\s?-?hall",
    r"(?:at|near)\s+the\s+corner\s+of\s+(?-i:[A-Z])\w*",
    r"(?:publishers?|booksellers?|stationers?)|(?:are\s+|is\s+)?printed\s+(?:and\s+sold\s+)?(?:for|by)|(?:and\s+)?sold\s+by"
    r"|who\s+has\s+also|may\s+be\s+had",
    rf"(?:the\s+)?(?:{NUMBER}|\d+\s?(?:st|n?d|rd|th|ly))\s+edition(?:,?\s+(?:corrected|revised|improved|with\s+additions))*"
    rf"|(?:in\s+)?{NUMBER}\s+(?:(?:large|small|neat|pocket|handsome)\s+)?(?:vol(?:ume)?s?|parts|tomes?)\b\.?"
    r"(?:\s+(?:in\s+)?(?:8vo|12mo|4to|octavo|quarto|duodecimo|folio))?|(?:8vo|12mo|4to|octavo|quarto|duodecimo)"
    r"|to\s+which\s+(?:is|are|will\s+be)\s+(?:added|prefix\S+|annex\S+|subjoin\S+)|by\s+the\s+(?:same\s+|late\s+)?author\s+of"
    r"|written\s+by|with\s+(?:cuts|copper-?\s?plates|notes|a\s+preface)",
)
AD_PATTERNS = tuple(re.compile(rf"\b(?:{family})\b", re.IGNORECASE) for family in AD_FAMILIES)
AD_HEADING = re.compile(
    rf"\W*(?:advertisements?\b|(?:new\s+)?(?:books?|publications)\s+(?:\w+\s+)*?(?:printed|sold|{PUBLISHED})"
    rf"|(?:this\s+day|just|lately)\s+(?:are\s+|is\s+)?{PUBLISHED})",
    re.IGNORECASE,
)
AD_STEMS = re.compile(
    r"publish|ready|press|subscriber|gratis|bound|printed|sew'?d|sewed|stitch|boards|novels|books|advertis|dedicated"
    r"|recommended|pr(?:ice|\.)|noster|church\s?-?yard|stationer|corner|sold|be had|edition|vols?\b|volume|parts|tome"
    r"|8vo|12mo|4to|octavo|quarto|duodecimo|added|prefix|annex|subjoin|author|written|cuts|copper|notes|preface|has also"
)
AD_STEMS_PER_WINDOW = (
    3  # with fewer, the families cannot cover a tenth of a window; most windows are passed over by this
)
AD_FAMILIES_PER_WINDOW = 2  # one phrase again and again is a way of speaking, not a list of books
AD_HEADED_WORDS = 1000  # a text of up to this many words under such a heading is judged at half the density
OCR_SIGNS = {
    "capital_runs": re.compile(r"\b[A-Z]{5,}\s+[A-Z]{5,}\b"),
    "spaced_letters": re.compile(r"(?<!\S)(?:[A-Za-z] ){3}[A-Za-z](?!\S)"),
    "shell_symbols": re.compile(r"[$#@^~|\\<>{}`]{3,}"),
    "digits_in_words": re.compile(r"\d+[A-Za-z]+\d+"),
    "symbol_run": re.compile(r"[^\w\s]{10,}"),
}
# Gopher's hash and ellipsis, and marks that neither prose nor program text is full of; a run counts once.
SYMBOL = re.compile(r"(?:[#^~…\u00a6-\u00a9\u00ac\u00ae-\u00b1\u2190-\u23ff\u2500-\u2bff\ufffd\ue000-\uf8ff]|\.{3})+")
TRANSCRIBERS_MARKS = re.compile(r"[∣¦〈〉◊●•]|\[(?:\.{3}|…)\]")  # line-end hyphens, gaps and unread letters
MAXIMUM_REPEATED_SHARE = 0.30
MAXIMUM_TOP_3GRAM_SHARE = 0.18
MEAN_WORD_CHARACTERS = (3.0, 10.0)
MAXIMUM_TOKEN_CHARACTERS = 1000
MAXIMUM_SYMBOLS_PER_WORD = 0.1
WEB_SENTENCES = 3

Check = Callable[[Document, CorpusSettings], Reject | None]


def quality(document: Document, settings: CorpusSettings) -> Document | Reject:
    """Return the document with its scores and without its advertisements, or the reason why it is not good enough."""
    if document.tier == "code":
        scored = document.with_scores(score=100.0)
        return too_few_characters(scored, settings) or too_few_words(scored, settings) or scored
    found = cut_advertisements(document, settings.maximum_ad_density)
    if isinstance(found, Reject):
        return found
    scored = with_measures(found)
    checks: tuple[Check, ...] = (
        too_few_characters,
        garbled,
        repetitive,
        too_few_words,
        low_meaningful_ratio,
        low_score,
    )
    return next((problem for check in checks if (problem := check(scored, settings))), scored)


def reject(document: Document, step: str, code: str, reason: str) -> Reject:
    """Return the document as a reject that keeps its whole text, its scores and what else is known about it."""
    return Reject(
        document.origin,
        step,
        code,
        reason,
        document.text,
        min((block.start for block in document.blocks), default=0),
        max((block.end for block in document.blocks), default=0),
        {
            **document.metadata,
            "title": document.title,
            "year": document.year,
            "tier": document.tier,
            "scores": document.scores,
        },
    )


def meaningful_ratio(words: Sequence[str]) -> float:
    """Return the share of words with more than two letters, outer punctuation not counted, that hold nothing but letters."""
    if not words:
        return 0.0
    return sum(times for word, times in Counter(words).items() if is_meaningful(word)) / len(words)


def is_meaningful(word: str) -> bool:
    """Return whether a word has more than two letters and nothing else but an inner apostrophe or hyphen."""
    bare = word if word.isalpha() else OUTER_PUNCTUATION.sub("", word)
    return len(bare) > 2 and (bare.isalpha() or MEANINGFUL.fullmatch(bare) is not None)


def ocr_signs(text: str) -> tuple[str, ...]:
    """Return the names of the kinds of OCR damage found in a text."""
    return tuple(name for name, pattern in OCR_SIGNS.items() if pattern.search(text))


def quality_score(kinds: int, ad_density: float, ratio: float) -> float:
    """Return the score from 0 to 100 that decides which of two copies stays."""
    return min(100.0, max(0.0, 100.0 - 3.0 * kinds - 50.0 * ad_density - 20.0 * (1.0 - ratio)))


def with_measures(document: Document) -> Document:
    """Return the document with every figure the thresholds are compared with."""
    text = document.text
    words = text.split()
    count = max(len(words), 1)
    ratio = meaningful_ratio(words)
    signs = ocr_signs(text)
    density = document.scores.get("ad_density", 0.0)
    return document.with_scores(
        words=float(len(words)),
        meaningful_ratio=round(ratio, 4),
        ocr_signs=float(len(signs)),
        repeated_lines=round(repeated_share(text.split("\n")), 4),
        repeated_paragraphs=round(repeated_share([block.text for block in document.blocks]), 4),
        top_3gram=round(top_3gram_share(words, len(text)), 4),
        mean_word=round(sum(map(len, words)) / count, 3),
        longest_token=float(max(map(len, words), default=0)),
        symbols_per_word=round(len(SYMBOL.findall(TRANSCRIBERS_MARKS.sub("", text))) / count, 4),
        score=round(quality_score(len(signs), density, ratio), 3),
    )


def repeated_share(parts: Sequence[str]) -> float:
    """Return the share of characters in parts (lines, paragraphs) that occurred before in the text."""
    seen: set[str] = set()
    total = repeated = 0
    for part in parts:
        bare = part.strip()
        total += len(bare)
        if bare in seen:
            repeated += len(bare)
        seen.add(bare)
    return repeated / total if total else 0.0


def top_3gram_share(words: Sequence[str], characters: int) -> float:
    """Return the share of characters that the most frequent run of three words makes up, when it occurs more than once."""
    if len(words) < 4 or not characters:
        return 0.0
    numbers: dict[str, int] = {}
    ids = np.fromiter((numbers.setdefault(word, len(numbers)) for word in words), dtype=np.int64, count=len(words))
    pairs = np.unique(ids[:-1] * len(numbers) + ids[1:], return_inverse=True)[1]  # small numbers again: no overflow
    _, first, times = np.unique(pairs[:-1] * len(numbers) + ids[2:], return_index=True, return_counts=True)
    most = int(times.max())
    if most < 2:
        return 0.0
    place = int(first[times == most].min())
    return min(1.0, most * sum(map(len, words[place : place + 3])) / characters)


def garbled(document: Document, _settings: CorpusSettings) -> Reject | None:
    """Return a reject when the text cannot be words: far too long or short ones, or symbols everywhere."""
    scores = document.scores
    if not scores["words"]:
        return None
    low, high = MEAN_WORD_CHARACTERS
    problems = []
    if not low <= scores["mean_word"] <= high:
        problems.append(f"words have {scores['mean_word']:.1f} characters on average, not {low:g} to {high:g}")
    if scores["longest_token"] > MAXIMUM_TOKEN_CHARACTERS:
        problems.append(f"one token has {scores['longest_token']:.0f} characters, more than {MAXIMUM_TOKEN_CHARACTERS}")
    if scores["symbols_per_word"] > MAXIMUM_SYMBOLS_PER_WORD:
        problems.append(f"{scores['symbols_per_word']:.2f} symbols per word, more than {MAXIMUM_SYMBOLS_PER_WORD}")
    return reject(document, STEP, "garbled", "; ".join(problems)) if problems else None


def repetitive(document: Document, _settings: CorpusSettings) -> Reject | None:
    """Return a reject when the text says the same again and again."""
    scores, limit = document.scores, MAXIMUM_REPEATED_SHARE
    for name, what in (("repeated_lines", "lines"), ("repeated_paragraphs", "paragraphs")):
        if scores[name] > limit:
            return reject(
                document,
                STEP,
                "repetitive",
                f"{scores[name]:.0%} of the characters are in repeated {what}, over {limit:.0%}",
            )
    if scores["top_3gram"] > MAXIMUM_TOP_3GRAM_SHARE:
        share = scores["top_3gram"]
        reason = f"one run of three words makes up {share:.0%} of the characters, over {MAXIMUM_TOP_3GRAM_SHARE:.0%}"
        return reject(document, STEP, "repetitive", reason)
    return None


def too_few_characters(document: Document, settings: CorpusSettings) -> Reject | None:
    """Return a `too_short` reject when the text has fewer characters than its tier asks for."""
    minimum, characters = _thresholds(document, settings)[0], len(document.text)
    if characters >= minimum:
        return None
    reason = f"{characters} characters, fewer than {minimum} for tier '{document.tier}'"
    return reject(document, STEP, "too_short", reason)


def too_few_words(document: Document, settings: CorpusSettings) -> Reject | None:
    """Return a `too_short` reject when the text has fewer words (web pages: sentences) than its tier asks for."""
    minimum, text = _thresholds(document, settings)[1], document.text
    words = len(text.split()) if minimum else 0
    if words < minimum:
        return reject(document, STEP, "too_short", f"{words} words, fewer than {minimum} for tier '{document.tier}'")
    if document.tier == "web" and (count := sum(1 for _ in sentence_ends(text + "\n"))) < WEB_SENTENCES:
        return reject(document, STEP, "too_short", f"{count} sentences, fewer than {WEB_SENTENCES} for tier 'web'")
    return None


def low_meaningful_ratio(document: Document, settings: CorpusSettings) -> Reject | None:
    """Return a reject when too few of the words are words."""
    limit, ratio = _thresholds(document, settings)[2], document.scores["meaningful_ratio"]
    if ratio >= limit:
        return None
    reason = f"{ratio:.2f} of the words are meaningful, less than {limit:.2f} for tier '{document.tier}'"
    return reject(document, STEP, "low_meaningful_ratio", reason)


def low_score(document: Document, settings: CorpusSettings) -> Reject | None:
    """Return a reject when the score is under the minimum that was asked for."""
    score = document.scores["score"]
    if score >= settings.minimum_score:
        return None
    return reject(document, STEP, "garbled", f"score {score:.1f} is under minimum_score {settings.minimum_score:g}")


def _thresholds(document: Document, settings: CorpusSettings) -> tuple[int, int, float]:
    tiers = settings.all_tiers
    return tiers.get(document.tier, tiers["general"])


def cut_advertisements(document: Document, maximum_density: float) -> Document | Reject:
    """Return the document without the windows of 200 words in which phrases of the book trade cover too many words."""
    text = document.text
    words = [match.span() for match in WORD.finditer(text)]
    windows = _windows(len(words))
    covered = _ad_words(text, words, windows)
    density = sum(covered.values()) / len(words) if words else 0.0
    scored = document.with_scores(ad_density=round(density, 4))
    limit = maximum_density
    if len(words) <= AD_HEADED_WORDS and AD_HEADING.match(text):
        limit = maximum_density / 2
    dense = [(start, end) for start, end in windows if covered.get(start, 0) >= max(limit * (end - start), 1)]
    if not dense:
        return scored
    in_windows = sum(end - start for start, end in dense)
    if in_windows > AD_DOCUMENT_SHARE * len(words):
        share = in_windows / len(words)
        reason = f"{share:.0%} of the words stand in advertisement windows (density {density:.3f}, limit {limit:g})"
        return reject(scored, STEP, "ad_dense", reason)
    ranges = [(words[start][0], words[end - 1][1]) for start, end in _merged(dense)]
    return without_ranges(scored, list(_block_ranges(document, ranges)), "ad_block")


def _windows(words: int) -> list[tuple[int, int]]:
    borders = [*range(0, words, AD_WINDOW_WORDS), words]
    if len(borders) > 2 and borders[-1] - borders[-2] < AD_WINDOW_WORDS // 2:
        del borders[-2]  # a short rest belongs to the window before it
    return list(pairwise(borders))


def _merged(windows: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in windows:
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged


def _ad_words(text: str, words: list[tuple[int, int]], windows: list[tuple[int, int]]) -> dict[int, int]:
    """Return how many words the families cover, by the first word of a window; only where there are many stems."""
    stems = [match.start() for match in AD_STEMS.finditer(_lower(text))]
    found = {}
    for start, end in windows:
        low, high = words[start][0], words[end - 1][1]
        if bisect_left(stems, high) - bisect_left(stems, low) >= AD_STEMS_PER_WINDOW:
            families = [[match.span() for match in pattern.finditer(text, low, high)] for pattern in AD_PATTERNS]
            if sum(map(bool, families)) >= AD_FAMILIES_PER_WINDOW:
                found[start] = _words_under([span for spans in families for span in spans], words[start:end])
    return found


def _lower(text: str) -> str:
    """Return the text in lower case with every character in its place."""
    lowered = text.lower()
    return lowered if len(lowered) == len(text) else "".join(char.lower()[:1] for char in text)


def _words_under(spans: list[tuple[int, int]], words: list[tuple[int, int]]) -> int:
    return sum(any(start < word_end and word_start < end for start, end in spans) for word_start, word_end in words)


def _block_ranges(document: Document, ranges: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Yield ranges of the whole text as `(block, start, end)`; what is left of a block at neither end goes with it."""
    position = 0
    for number, block in enumerate(document.blocks):
        for start, end in ranges:
            low, high = max(start - position, 0), min(end - position, len(block.text))
            if low < high:
                yield number, low, high
        position += len(block.text) + len(BLOCK_SEPARATOR)


def without_ranges(document: Document, ranges: list[tuple[int, int, int]], code: str) -> Document:
    """Return the document without parts of its blocks, given as `(block, start, end)` in order; each becomes a removal."""
    cuts: dict[int, list[tuple[int, int]]] = {}
    for number, start, end in ranges:
        cuts.setdefault(number, []).append((start, end))
    blocks: list[Block] = []
    removals: list[Removal] = []
    for number, block in enumerate(document.blocks):
        position = 0
        for start, end in cuts.get(number, []):
            blocks.extend(_part(block, position, start))
            cut = part_of_block(block, start, end)
            removals.append(Removal(code, cut.text, cut.start, cut.end))
            position = end
        blocks.extend(_part(block, position, len(block.text)) if number in cuts else [block])
    return replace(document, blocks=tuple(blocks), removals=(*document.removals, *removals))


def _part(block: Block, start: int, end: int) -> list[Block]:
    text = block.text[start:end]
    start += len(text) - len(text.lstrip())
    end -= len(text) - len(text.rstrip())
    return [part_of_block(block, start, end)] if start < end else []


def part_of_block(block: Block, start: int, end: int) -> Block:
    """Return a part of a block. Its raw range is exact when the block is a plain copy, else that of the whole block."""
    text = block.text[start:end]
    if block.end - block.start == len(block.text):
        return Block(text, block.start + start, block.start + end)
    return Block(text, block.start, block.end)
