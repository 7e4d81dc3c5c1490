"""Quality of a text: advertisement windows, signs of bad OCR, repetition, garbage, and the thresholds of its tier.

Every figure is stored with the document, so that other thresholds can be applied later without reading raw files again.
The tiers, the ten advertisement patterns (advertisements.py) and the score are those of the published London pipeline, with its
counting mistakes put right; repetition limits are Gopher's (Rae et al. 2021, arXiv:2112.11446, table A1).
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from caslon.corpus.advertisements import begins_as_list_of_books, word_spans, words_of_the_trade
from caslon.corpus.document import BLOCK_SEPARATOR, Block, Document, Reject, Removal
from caslon.corpus.segments import sentence_ends
from caslon.corpus.settings import CorpusSettings
from caslon.corpus.text_words import DIGITS, FIVE_CAPITALS, ONE_LETTER, RUN, SHELL, TextWords, text_words

STEP = "quality"
AD_WINDOW_WORDS = 200
AD_DOCUMENT_SHARE = 0.5
AD_HEADED_WORDS = 1000  # a text of up to this many words under such a heading is judged at half the density
# Two successive runs of five capitals. The look back stands behind the first letter, so that the search can leap to capitals.
# It is slow all the same: it is made only where two words in a row hold five capitals, as is the one for four letters in a row.
CAPITAL_RUNS = re.compile(r"[A-Z](?<!\w.)[A-Z]{4,}\s+[A-Z]{5,}\b", re.DOTALL)
SPACED_LETTERS = re.compile(r"(?<!\S)(?:[A-Za-z] ){3}[A-Za-z](?!\S)")
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
    words = text_words(document.text)
    found = _without_advertisements(document, words, settings.maximum_ad_density)
    if isinstance(found, Reject):
        return found
    scored = _measured(found, words if found.blocks is document.blocks else text_words(found.text))
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


def ocr_signs(words: TextWords) -> tuple[str, ...]:
    """Return the names of the kinds of OCR damage found in a text."""
    found = {
        "capital_runs": words.has(FIVE_CAPITALS, in_a_row=2) and CAPITAL_RUNS.search(words.text) is not None,
        "spaced_letters": words.has(ONE_LETTER, in_a_row=4) and SPACED_LETTERS.search(words.text) is not None,
        "shell_symbols": words.has(SHELL),
        "digits_in_words": words.has(DIGITS),
        "symbol_run": words.has(RUN),
    }
    return tuple(name for name, is_there in found.items() if is_there)


def quality_score(kinds: int, ad_density: float, ratio: float) -> float:
    """Return the score from 0 to 100 that decides which of two copies stays."""
    return min(100.0, max(0.0, 100.0 - 3.0 * kinds - 50.0 * ad_density - 20.0 * (1.0 - ratio)))


def with_measures(document: Document) -> Document:
    """Return the document with every figure the thresholds are compared with."""
    return _measured(document, text_words(document.text))


def _measured(document: Document, words: TextWords) -> Document:
    count = max(len(words), 1)
    ratio = words.meaningful_ratio
    signs = ocr_signs(words)
    density = document.scores.get("ad_density", 0.0)
    return document.with_scores(
        words=float(len(words)),
        meaningful_ratio=round(ratio, 4),
        ocr_signs=float(len(signs)),
        repeated_lines=round(repeated_share(words.text.split("\n")), 4),
        repeated_paragraphs=round(repeated_share([block.text for block in document.blocks]), 4),
        top_3gram=round(words.top_3gram_share, 4),
        mean_word=round(int(words.lengths.sum()) / count, 3),
        longest_token=float(words.lengths.max(initial=0)),
        symbols_per_word=round(words.symbols / count, 4),
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
    minimum, known = _thresholds(document, settings)[1], document.scores.get("words")
    words = int(known) if known is not None else len(document.text.split())
    if words < minimum:
        return reject(document, STEP, "too_short", f"{words} words, fewer than {minimum} for tier '{document.tier}'")
    if document.tier == "web" and (count := sum(1 for _ in sentence_ends(document.text + "\n"))) < WEB_SENTENCES:
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
    return _without_advertisements(document, text_words(document.text), maximum_density)


def _without_advertisements(document: Document, words: TextWords, maximum_density: float) -> Document | Reject:
    count, windows = len(words), _windows(len(words))
    covered = words_of_the_trade(words, windows)
    density = sum(covered.values()) / count if count else 0.0
    scored = document.with_scores(ad_density=round(density, 4))
    limit = maximum_density
    if count <= AD_HEADED_WORDS and begins_as_list_of_books(words.text):
        limit = maximum_density / 2
    dense = [(start, end) for start, end in windows if covered.get(start, 0) >= max(limit * (end - start), 1)]
    if not dense:
        return scored
    share = sum(end - start for start, end in dense) / count
    if share > AD_DOCUMENT_SHARE:
        reason = f"{share:.0%} of the words stand in advertisement windows (density {density:.3f}, limit {limit:g})"
        return reject(scored, STEP, "ad_dense", reason)
    ranges = [(spans[0][0], spans[-1][1]) for spans in word_spans(words.text, _merged(dense))]
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
