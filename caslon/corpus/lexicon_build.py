"""A word list out of a finished corpus: words that several works use, and the inflections that their forms imply.

    python -m caslon.corpus.lexicon_build runs/london/corpus english_words.txt.gz

Every sixteenth work, chosen by the hash of its name, is left out, so that repair can be measured on clean text whose words the
list has not seen. What was read from pictures of pages (`ocr`) is left out too: its misprints would become words.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path

from caslon.corpus.document import Document
from caslon.corpus.lexicon import MINIMUM_COUNT, Lexicon, word_counts
from caslon.corpus.ocr import candidates
from caslon.corpus.shards import read_documents

MINIMUM_WORKS = 2
HELD_OUT_EACH = 16
IMPLIED_COUNT = 1  # of forms that were never seen: they are known words, but the rarest
PARADIGM_MINIMUM = 32  # how often a base form must have been seen before forms are derived from it
MISPRINT_RATIO = 1000  # a word so many times rarer than one it may be a misreading of is no word
VOWELS = "aeiou"
LETTER_WORDS = ("a", "i", "o")


def held_out(group: str) -> bool:
    """Return whether a work is kept out of the list."""
    return int(sha256(group.encode()).hexdigest()[:8], 16) % HELD_OUT_EACH == 0


def lexicon_of(works: Iterable[tuple[str, str]], minimum: int = MINIMUM_COUNT) -> Lexicon:
    """Return the list of the words of `(group, text)` pairs; texts of one group follow each other."""
    counts: Counter[str] = Counter()
    number_of_works: Counter[str] = Counter()
    for own in _counts_of_works(works):
        counts.update(own)
        number_of_works.update(own.keys())
    return lexicon_of_counts(counts, number_of_works, minimum)


def lexicon_of_counts(counts: Mapping[str, int], number_of_works: Mapping[str, int], minimum: int) -> Lexicon:
    """Return the list of the words that were counted `minimum` times in two works or more, and of the forms they imply."""
    seen = {
        word: times
        for word, times in counts.items()
        if times >= minimum and number_of_works[word] >= MINIMUM_WORKS and (len(word) > 1 or word in LETTER_WORDS)
    }
    seen = without_misprints(seen)
    rounded = {word: 1 << (times.bit_length() - 1) for word, times in seen.items()}
    return Lexicon(dict.fromkeys(implied_forms(seen), IMPLIED_COUNT) | rounded)


def _counts_of_works(works: Iterable[tuple[str, str]]) -> Iterator[Counter[str]]:
    current, own = "", Counter[str]()
    for group, text in works:
        if group != current:
            yield own
            current, own = group, Counter()
        own.update(word_counts(text))
    yield own


def without_misprints(counts: dict[str, int]) -> dict[str, int]:
    """Return the counts without words that look like a misread or a printer's makeshift form (vv) of a far commoner one."""
    return {word: times for word, times in counts.items() if not _is_misprint(word, times, counts)}


def _is_misprint(word: str, times: int, counts: dict[str, int]) -> bool:
    if counts.get(word.replace("vv", "w"), 0) > times:
        return True
    nearest = next(candidates(word)) if len(word) > 2 else []
    return max((counts.get(other, 0) for other in nearest), default=0) >= MISPRINT_RATIO * times


def implied_forms(counts: dict[str, int]) -> set[str]:
    """Return the regular forms that are missing where three of base, -s, -ed and -ing are there."""
    implied: set[str] = set()
    for base, times in counts.items():
        if times >= PARADIGM_MINIMUM and len(base) > 3 and base.isascii() and base.isalpha():
            missing = [form for form in _inflections(base) if form not in counts]
            if len(missing) == 1:
                implied.update(missing)
    return implied


def _inflections(base: str) -> tuple[str, str, str]:
    if base.endswith("e"):
        return base + "s", base + "d", base[:-1] + "ing"
    if base.endswith("y") and base[-2] not in VOWELS:
        return base[:-1] + "ies", base[:-1] + "ied", base + "ing"
    if base.endswith(("s", "x", "z", "ch", "sh")):
        return base + "es", base + "ed", base + "ing"
    return base + "s", base + "ed", base + "ing"


def works_of(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield `(group, text)` of the documents of a corpus folder that may enter a list."""
    return ((document.group, document.text) for document in read_documents(folder) if _is_wanted(document))


def _is_wanted(document: Document) -> bool:
    return document.tier != "code" and not document.metadata.get("ocr") and not held_out(document.group)


def main() -> None:
    """Write the list of a corpus folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("corpus", type=Path, help="folder that the corpus stage wrote")
    parser.add_argument("output", type=Path, help="file to write, packed when its name ends in .gz")
    arguments = parser.parse_args()
    lexicon = lexicon_of(works_of(arguments.corpus))
    lexicon.save(arguments.output)
    sys.stdout.write(f"{len(lexicon):,} words, {arguments.output.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
