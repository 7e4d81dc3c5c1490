"""Word counts and documents become the bias report: who and what a corpus speaks of, how often, and beside which words.

Words of five lexicons (`lexicons/*.txt`: pronouns, identity, slurs, toxicity, places) are counted whole and in lower case. Text
is not altered. Companions are words within five words of an identity term, ranked by the log-likelihood ratio (Dunning 1993)
against every eighth word of the same documents. Counts of parts of a corpus merge to the counts of the whole, in any order.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from caslon.corpus.document import Document
from caslon.corpus.text_words import WORD, words_of

LEXICONS = ("pronouns", "identity", "slurs", "toxicity", "places")
WINDOW_WORDS = 5
SAMPLE_EVERY = 8  # words; the background that companions are compared with
MINIMUM_COMPANION_COUNT = 3
COMPANIONS = 10  # of each identity term in the report
EXAMPLES = 3  # of each slur
EXAMPLE_CHARACTERS = 80  # on each side
UNDATED = "undated"


@cache
def lexicon(name: str) -> Mapping[str, str]:
    """Return a lexicon: word -> its group, in the file's order."""
    groups: dict[str, str] = {}
    group = ""
    for line in files("caslon.corpus").joinpath("lexicons", f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            group = line.strip("[] ")
        elif not line.startswith("#"):
            groups.update(dict.fromkeys(line.split(), group))
    return groups


def decade_of(year: int | None) -> str:
    """Return the decade of a year, as "1720"."""
    return UNDATED if year is None else str(year // 10 * 10)


@dataclass
class PartCounts:
    """What a source or a decade holds: documents, words, and how often each word of a lexicon stands in it."""

    documents: int = 0
    words: int = 0
    terms: Counter[str] = field(default_factory=Counter)

    def add(self, other: "PartCounts") -> None:
        """Add another part."""
        self.documents += other.documents
        self.words += other.words
        self.terms.update(other.terms)

    def per_million(self, count: int) -> float:
        """Return a count as occurrences in a million words."""
        return round(count / self.words * 1e6, 2) if self.words else 0.0


@dataclass(frozen=True, order=True)
class Example:
    """A slur where it stands."""

    document: str
    source: str
    text: str


@dataclass
class BiasCounts:
    """All that the bias report is made of. Can be sent to another process; memory grows with the vocabulary only."""

    sources: dict[str, PartCounts] = field(default_factory=dict)
    decades: dict[str, PartCounts] = field(default_factory=dict)
    beside: dict[str, Counter[str]] = field(default_factory=dict)  # identity term -> words beside it
    background: Counter[str] = field(default_factory=Counter)  # every eighth word of the same documents
    examples: dict[str, list[Example]] = field(default_factory=dict)

    def add(self, source: str, decade: str | int | None, counts: Mapping[str, int]) -> None:
        """Count one document by its words in lower case; `decade` is its year, or what `decade_of` returned."""
        name = decade if isinstance(decade, str) else decade_of(decade)
        found = Counter({term: counts[term] for term in _all_terms() if term in counts})
        part = PartCounts(1, sum(counts.values()), found)
        self.sources.setdefault(source, PartCounts()).add(part)
        self.decades.setdefault(name, PartCounts()).add(part)

    def companions(self, document: Document) -> None:
        """Look at a document again: count the words beside its identity terms, and keep examples of its slurs."""
        text = document.text
        words = words_of(text)
        terms, slurs = lexicon("identity"), lexicon("slurs")
        places = [place for place, word in enumerate(words) if word in terms]
        for place in places:
            near = words[max(0, place - WINDOW_WORDS) : place] + words[place + 1 : place + 1 + WINDOW_WORDS]
            self.beside.setdefault(words[place], Counter()).update(filter(_is_companion, near))
        if places:
            self.background.update(filter(_is_companion, words[::SAMPLE_EVERY]))
        if not slurs.keys().isdisjoint(words):
            self._keep_examples(document, text)

    def merge(self, other: "BiasCounts") -> None:
        """Add the counts of another part of the corpus."""
        for mine, theirs in ((self.sources, other.sources), (self.decades, other.decades)):
            for name, part in theirs.items():
                mine.setdefault(name, PartCounts()).add(part)
        for term, near in other.beside.items():
            self.beside.setdefault(term, Counter()).update(near)
        self.background.update(other.background)
        for term, found in other.examples.items():
            self.examples[term] = _first(self.examples.get(term, ()), found)

    def to_json(self) -> dict[str, Any]:
        """Return the report: figures per source and decade, identity terms with companions, places, slurs with examples."""
        whole = PartCounts()
        for part in self.sources.values():
            whole.add(part)
        return {
            "words": whole.words,
            "documents": whole.documents,
            "all": _part_json(whole),
            "sources": {name: _part_json(part) for name, part in sorted(self.sources.items())},
            "counts": {name: _counts_of(whole, name) for name in LEXICONS},
            "identity_terms": self._identity_json(whole),
            "places": _places_json(whole),
            "decades": {name: _decade_json(part) for name, part in sorted(self.decades.items())},
            "slurs": [
                {
                    "word": word,
                    "group": lexicon("slurs")[word],
                    "count": count,
                    "per_million": whole.per_million(count),
                    "examples": [vars(example) for example in self.examples.get(word, ())],
                }
                for word, count in _counts_of(whole, "slurs").items()
            ],
        }

    def _keep_examples(self, document: Document, text: str) -> None:
        found: dict[str, list[Example]] = {}  # one of each word: three documents say more than one three times
        for match in WORD.finditer(text):
            word = match[0].casefold()
            if word in lexicon("slurs") and word not in found:
                shown = text[max(0, match.start() - EXAMPLE_CHARACTERS) : match.end() + EXAMPLE_CHARACTERS]
                found[word] = [Example(document.id, document.origin.source, " ".join(shown.split()))]
        for word, examples in found.items():
            self.examples[word] = _first(self.examples.get(word, ()), examples)

    def _identity_json(self, whole: PartCounts) -> list[dict[str, Any]]:
        sampled = self.background.total()
        rows = []
        for term, count in _counts_of(whole, "identity").items():
            near = self.beside.get(term, Counter())
            strongest = strongest_companions(near, self.background, sampled)
            rows.append(
                {
                    "word": term,
                    "group": lexicon("identity")[term],
                    "count": count,
                    "per_million": whole.per_million(count),
                    "companions": [
                        {"word": word, "count": near[word], "log_likelihood": round(strength, 2)}
                        for word, strength in strongest
                    ],
                }
            )
        return rows


def strongest_companions(near: Counter[str], background: Counter[str], sampled: int) -> list[tuple[str, float]]:
    """Return the words that stand beside a term more often than elsewhere and their log-likelihood ratio, strongest first."""
    total = near.total()
    rated = []
    for word, count in near.items():
        elsewhere = background[word]
        if count < MINIMUM_COMPANION_COUNT or not sampled or count / total <= elsewhere / sampled:
            continue
        rated.append((word, log_likelihood(count, total, elsewhere, sampled)))
    return sorted(rated, key=lambda pair: (-pair[1], pair[0]))[:COMPANIONS]


def log_likelihood(count: int, total: int, other_count: int, other_total: int) -> float:
    """Return Dunning's G2 for a word that stands `count` times in `total` words and `other_count` times in others."""
    share = (count + other_count) / (total + other_total)
    observed_and_expected = ((count, share * total), (other_count, share * other_total))
    return 2.0 * sum(seen * math.log(seen / expected) for seen, expected in observed_and_expected if seen)


def _is_companion(word: str) -> bool:
    return len(word) > 2 and word not in lexicon("stop_words") and word.isalpha()


def _first(kept: Iterable[Example], more: Iterable[Example]) -> list[Example]:
    """Return the examples with the smallest document ids: the same whatever the order of merging."""
    return sorted({*kept, *more})[:EXAMPLES]


@cache
def _all_terms() -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for name in LEXICONS for word in lexicon(name)))


def _counts_of(part: PartCounts, name: str) -> dict[str, int]:
    """Return the counts of a lexicon's words that occur, the most frequent first."""
    found = [(word, part.terms[word]) for word in lexicon(name) if part.terms[word]]
    return dict(sorted(found, key=lambda pair: (-pair[1], pair[0])))


def _groups_of(part: PartCounts, name: str) -> Counter[str]:
    groups = Counter(dict.fromkeys(lexicon(name).values(), 0))
    for word, count in _counts_of(part, name).items():
        groups[lexicon(name)[word]] += count
    return groups


def _part_json(part: PartCounts) -> dict[str, Any]:
    pronouns = _groups_of(part, "pronouns")
    return {
        "documents": part.documents,
        "words": part.words,
        "per_million": {
            name: {group: part.per_million(count) for group, count in _groups_of(part, name).items()}
            for name in LEXICONS
        },
        "masculine_per_feminine": _ratio(pronouns["masculine"], pronouns["feminine"]),
        "london_share_of_places": _london_share(part),
    }


def _places_json(part: PartCounts) -> dict[str, Any]:
    return {
        "groups": dict(_groups_of(part, "places")),
        "london_share": _london_share(part),
        "words": _counts_of(part, "places"),
    }


def _decade_json(part: PartCounts) -> dict[str, Any]:
    return {"documents": part.documents, "words": part.words, "london_share_of_places": _london_share(part)}


def _london_share(part: PartCounts) -> float | None:
    groups: Mapping[str, int] = _groups_of(part, "places")
    return _ratio(groups["london"], sum(groups.values()))


def _ratio(count: int, other: int) -> float | None:
    return round(count / other, 4) if other else None


def terms_of(names: Sequence[str] = LEXICONS) -> frozenset[str]:
    """Return every word of these lexicons: what a text must hold for a second look to find anything."""
    return frozenset(word for name in names for word in lexicon(name))
