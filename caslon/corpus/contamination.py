"""Documents that share a run of 13 words with an evaluation item become `contaminated` rejects, with run and file as evidence.

Thirteen words is the run GPT-3's authors looked for (Brown et al. 2020, arXiv:2005.14165, appendix C). Words are compared in
lower case and without punctuation. Items of fewer words cannot be found this way: they are too common to prove anything.
"""

import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caslon.corpus.dedup import shingles
from caslon.corpus.document import Document, Reject
from caslon.corpus.filters import reject
from caslon.corpus.text_words import words_of
from caslon.errors import UserError

STEP = "contamination"
CODE = "contaminated"
RUN_WORDS = 13
FORMATS = (".txt", ".md", ".json", ".jsonl", ".csv", ".tsv")
CSV_FIELD_CHARACTERS = 1 << 24


@dataclass(frozen=True)
class Contamination:
    """The runs of all evaluation files as sorted hashes, and which file each is from. Without files it finds nothing."""

    files: tuple[str, ...] = ()
    hashes: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    file_of: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, dtype=np.int32))

    @staticmethod
    def load(files: Iterable[str | Path]) -> "Contamination":
        """Return the runs of evaluation files (txt, md, json, jsonl, csv, tsv, each also packed with gzip).

        `UserError` for a file that cannot be read and for one without a text of 13 words, which could protect nothing.
        """
        names = tuple(str(file) for file in files)
        found = Contamination.of_texts({name: evaluation_texts(name) for name in names})
        for number, name in enumerate(names):
            if number not in found.file_of:
                raise UserError(
                    f"no text of {RUN_WORDS} words or more",
                    where=name,
                    fix="leave the file out of corpus.decontaminate",
                )
        return found

    @staticmethod
    def of_texts(texts: Mapping[str, Iterable[str]]) -> "Contamination":
        """Return the runs of texts, given by the name of their file; texts of fewer words have none."""
        hashes, owners = [np.zeros(0, dtype=np.uint64)], [np.zeros(0, dtype=np.int32)]
        for number, items in enumerate(texts.values()):
            runs = [shingles(words, RUN_WORDS) for words in map(words_of, items) if len(words) >= RUN_WORDS]
            found = np.unique(np.concatenate(runs)) if runs else hashes[0]
            hashes.append(found)
            owners.append(np.full(len(found), number, dtype=np.int32))
        distinct, first = np.unique(np.concatenate(hashes), return_index=True)
        return Contamination(tuple(texts), distinct, np.concatenate(owners)[first])

    def reject_if_shared(self, document: Document) -> Document | Reject:
        """Return the document, or a reject that names the first run it shares and the file that run is from."""
        shared = self.shared(document.text) if self.files else None
        if shared is None:
            return document
        run, file = shared
        found = reject(document, STEP, CODE, f"{RUN_WORDS} words stand in {file} too: {run}")
        found.metadata.update(shared_run=run, evaluation_file=file)
        return found

    def shared(self, text: str) -> tuple[str, str] | None:
        """Return the first run of words that a text shares with an evaluation item, and its file."""
        words = words_of(text) if len(self.hashes) else []
        if len(words) < RUN_WORDS or not self._holds(words):
            return None
        start, end = 0, len(words)
        while end - start > RUN_WORDS:  # halves overlap, so that no run is cut in two
            middle = (start + end) // 2
            first_half = words[start : min(middle + RUN_WORDS - 1, end - 1)]
            if len(first_half) >= RUN_WORDS and self._holds(first_half):
                end = start + len(first_half)
            else:
                start = max(start + 1, start + len(first_half) - RUN_WORDS + 1)
        run = words[start:end]
        place = int(np.searchsorted(self.hashes, shingles(run, RUN_WORDS)[0]))
        return " ".join(run), self.files[self.file_of[place]]

    def _holds(self, words: list[str]) -> bool:
        runs = shingles(words, RUN_WORDS)
        places = np.minimum(np.searchsorted(self.hashes, runs), len(self.hashes) - 1)
        return bool((self.hashes[places] == runs).any())


def evaluation_texts(path: str | Path) -> Iterator[str]:
    """Yield every text of an evaluation file: each string in its JSON or its tables, or the whole of a plain text."""
    path = Path(path)
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    kind = suffixes[-1].lower() if suffixes else ""
    if kind not in FORMATS:
        raise UserError(f"an evaluation file cannot be '{kind or path.name}'", where=str(path), fix=", ".join(FORMATS))
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read the evaluation file: {error}", where=str(path), fix="check corpus.decontaminate"
        ) from error
    if kind in {".txt", ".md"}:
        yield text
    elif kind in {".csv", ".tsv"}:
        csv.field_size_limit(CSV_FIELD_CHARACTERS)
        for row in csv.reader(io.StringIO(text, newline=""), delimiter="\t" if kind == ".tsv" else ","):
            yield from row
    else:
        for value in _json_values(text, path):
            yield from _strings(value)


def _json_values(text: str, path: Path) -> Iterator[Any]:
    """Yield one value of a JSON file, or those of its lines: some sets name JSON Lines `.json`."""
    try:
        yield json.loads(text)
        return
    except ValueError:
        pass
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise UserError(
                    f"not JSON: {error}", where=f"{path}:{number}", fix="mend or remove the line"
                ) from error


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
