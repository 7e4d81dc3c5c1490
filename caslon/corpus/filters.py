"""Quality of a text: advertisement windows, signs of bad OCR, repetition, garbage, and the thresholds of its tier.

Every figure is stored with the document, so that other thresholds can be applied later without reading raw files again.
The tiers, the ten advertisement patterns and the score are those of the published London pipeline, with its counting mistakes
put right; repetition limits are Gopher's (Rae et al. 2021, arXiv:2112.11446, table A1).
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from caslon.corpus.document import Block, Document, Reject, Removal
from caslon.corpus.segments import sentence_ends
from caslon.corpus.settings import CorpusSettings

STEP = "quality"
WORD = re.compile(r"\S+")
OUTER_PUNCTUATION = re.compile(r"^[\W_]+|[\W_]+$")
MEANINGFUL = re.compile(r"[^\W\d_]+(?:['’‘\-‑∣¦|][^\W\d_]+)*")
AD_WINDOW_WORDS = 200
AD_DOCUMENT_SHARE = 0.5
AD_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\bthis\s+day\s+(?:(?:is|are|was|were)\s+)?(?:just\s+)?publish(?:ed|['’]d)\b",
        r"\bjust\s+(?:ready|publish(?:ed|['’]d))\b",
        r"\b(?:elegantly|finely|neatly|handsomely)\s+bound\b(?:\s+in\s+\w+)?",
        r"\bnow\s+ready\b|\bspeedily\s+(?:will\s+)?be\s+publish(?:ed|['’]d)\b",
        r"\bnew\s+novels\b|\bbooks\s+(?:\w+\s+)?(?:printed|sold)\b(?:\s+(?:for|by)\b)?",
        r"\badvertisements?\b",
        r"\bpr(?:ice|\.)(?:\s+(?:bound|only|sew['’]?e?d|stitched|in\s+boards))*,?\s+(?:\d+|one|two|three|four|five|six)"
        r"\s?(?:l|s|d|shillings?|pence)\b\.?(?:\s*\d+\s?[sd]\b\.?)*",
        r"\bpater\s?-?noster\s?-?row\b",
        r"\b(?:at\s+)?(?:the\s+)?corner\s+of\b",
        r"\bpublishers?\b|\bbooksellers?\b|\b(?:printed\s+(?:and\s+sold\s+)?(?:for|by)|(?:and\s+)?sold\s+by)\b",
    )
)
ANY_AD_PATTERN = re.compile("|".join(f"(?:{pattern.pattern})" for pattern in AD_PATTERNS), re.IGNORECASE)
OCR_SIGNS = {
    "capital_runs": re.compile(r"\b[A-Z]{5,}\s+[A-Z]{5,}\b"),
    "spaced_letters": re.compile(r"(?<!\S)(?:[A-Za-z] ){3}[A-Za-z](?!\S)"),
    "shell_symbols": re.compile(r"[$#@^~|\\<>{}`]{3,}"),
    "digits_in_words": re.compile(r"\d+[A-Za-z]+\d+"),
    "symbol_run": re.compile(r"[^\w\s]{10,}"),
}
# Gopher's hash and ellipsis, and marks that neither prose nor program text is full of; a run counts once.
SYMBOL = re.compile(r"(?:[#^~…\u00a6-\u00a9\u00ac\u00ae-\u00b1\u2190-\u23ff\u2500-\u2bff\ufffd\ue000-\uf8ff]|\.{3})+")
TRANSCRIBERS_MARKS = re.compile(r"[∣¦〈〉◊●•]")  # line-end hyphens, gaps and unread letters
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
    return sum(map(is_meaningful, words)) / len(words)


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
    if len(words) < 3 or not characters:
        return 0.0
    gram, times = Counter(zip(words, words[1:], words[2:], strict=False)).most_common(1)[0]
    return min(1.0, times * sum(map(len, gram)) / characters) if times > 1 else 0.0


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


@dataclass(frozen=True, slots=True)
class _Word:
    block: int
    start: int  # in the block's text
    end: int


def cut_advertisements(document: Document, maximum_density: float) -> Document | Reject:
    """Return the document without the windows of 200 words in which advertisement patterns cover too many words."""
    if not any(ANY_AD_PATTERN.search(block.text) for block in document.blocks):
        return document.with_scores(ad_density=0.0)
    words = [
        _Word(number, match.start(), match.end())
        for number, block in enumerate(document.blocks)
        for match in WORD.finditer(block.text)
    ]
    covered = _ad_words(document, words)
    density = sum(covered) / len(words) if words else 0.0
    scored = document.with_scores(ad_density=round(density, 4))
    windows = [
        window
        for window in _windows(len(words))
        if sum(covered[slice(*window)]) >= maximum_density * (window[1] - window[0])
    ]
    if not windows:
        return scored
    in_windows = sum(end - start for start, end in windows)
    if in_windows > AD_DOCUMENT_SHARE * len(words):
        share = in_windows / len(words)
        reason = (
            f"{share:.0%} of the words stand in advertisement windows (density {density:.2f} of {maximum_density:g})"
        )
        return reject(scored, STEP, "ad_dense", reason)
    ranges = [_range for window in _merged(windows) for _range in _block_ranges(document, words, *window)]
    return without_ranges(scored, ranges, "ad_block")


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


def _ad_words(document: Document, words: list[_Word]) -> list[bool]:
    covered = [False] * len(words)
    first = 0
    for number, block in enumerate(document.blocks):
        spans = sorted(match.span() for pattern in AD_PATTERNS for match in pattern.finditer(block.text))
        index = first
        while first < len(words) and words[first].block == number:
            first += 1
        for start, end in spans:
            while index < first and words[index].end <= start:
                index += 1
            place = index
            while place < first and words[place].start < end:
                covered[place] = True
                place += 1
    return covered


def _block_ranges(document: Document, words: list[_Word], first: int, last: int) -> list[tuple[int, int, int]]:
    """Return the words' places as `(block, start, end)`; a block that is touched at both ends is taken whole."""
    ranges = []
    for number in range(words[first].block, words[last - 1].block + 1):
        text = document.blocks[number].text
        before = first > 0 and words[first - 1].block == number
        after = last < len(words) and words[last].block == number
        start = words[first].start if before else 0
        end = words[last - 1].end if after else len(text)
        ranges.append((number, start, end))
    return ranges


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
