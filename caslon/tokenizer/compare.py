"""Several tokenizers and one set of texts to the figures that set them side by side.

Every figure is measured here, on the same texts, in the same run. A table that is not on this machine has no figures: none is
remembered from elsewhere. Perplexities of different tokenizers are not comparable and do not occur.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from caslon.errors import CaslonError, UserError
from caslon.tokenizer.bulk import BulkEncoder
from caslon.tokenizer.inspect import pieces, shown_bytes
from caslon.tokenizer.reference_texts import DIGIT_SAMPLES, ENGLISH, WITHOUT_SPACES, parallel_texts, text_types
from caslon.tokenizer.tokenizer import TOKENIZER_FILE, Tokenizer

LONGEST = 20
RANKS = 120  # points of a rank-frequency curve
NOT_COUNTED = ("report.html", "report.json", "report.md", "tokens")  # beside the tokenizer in its folder
DECODED_BYTES = 4 << 20  # of text decoded to measure the speed


@dataclass(frozen=True)
class Entrant:
    """A tokenizer to compare, or a table that is not there and why."""

    name: str
    path: Path
    tokenizer: Tokenizer | None
    missing: str = ""


@dataclass(frozen=True)
class Comparison:
    """All figures: what `report.json` holds and the page shows."""

    texts: dict[str, Any]
    tokenizers: list[dict[str, Any]]
    not_available: list[dict[str, str]]
    flags: list[str]
    samples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # text -> per tokenizer: pieces

    def to_json(self) -> dict[str, Any]:
        """Return the numbers of the report."""
        return {
            "texts": self.texts,
            "tokenizers": self.tokenizers,
            "not_available": self.not_available,
            "flags": self.flags,
            "parallel_text": {"title": parallel_texts().title, "source": parallel_texts().source},
            "text_types": {"source": text_types().source},
        }


def entrants(paths: Sequence[Path]) -> list[Entrant]:
    """Return the tokenizers of folders; one that is missing or cannot be read has a reason instead."""
    found = []
    for path in paths:
        try:
            tokenizer = Tokenizer.load(path)
        except UserError as error:
            found.append(Entrant(path.name or str(path), path, None, "not available: " + error.what))
            continue
        found.append(Entrant(_table_name(tokenizer, path), path, tokenizer))
    return _told_apart(found)


def compare(found: Sequence[Entrant], texts: Sequence[str], *, words: Sequence[str] = ()) -> Comparison:
    """Return every figure of the tokenizers on `texts`; `words` are looked up as whole words, a space before them.

    `UserError` when there is no tokenizer or no text.
    """
    there = [entrant for entrant in found if entrant.tokenizer is not None]
    if not there:
        reasons = "; ".join(f"{entrant.name}: {entrant.missing}" for entrant in found)
        raise UserError("there is no tokenizer to compare", where=reasons, fix="give tokenizer folders")
    if not any(texts):
        raise UserError("there is no text to compare on", fix="give files with --texts")
    rows = [_figures(entrant, texts, words) for entrant in there]
    return Comparison(
        texts={
            "texts": len(texts),
            "characters": sum(map(len, texts)),
            "bytes": sum(len(text.encode()) for text in texts),
            "words": sum(len(text.split()) for text in texts),
            "word_list": len(words),
        },
        tokenizers=rows,
        not_available=[{"name": e.name, "path": str(e.path), "why": e.missing} for e in found if e.tokenizer is None],
        flags=_flags(rows),
        samples=_samples(there),
    )


def _figures(entrant: Entrant, texts: Sequence[str], words: Sequence[str]) -> dict[str, Any]:
    tokenizer = entrant.tokenizer
    assert tokenizer is not None
    measured = _measured(tokenizer, texts)
    return {
        "name": entrant.name,
        "path": str(entrant.path),
        "digest": tokenizer.digest,
        "algorithm": json.loads(tokenizer.tokenizer_json)["model"]["type"],
        "imported": dict(tokenizer.record.get("imported", {})),
        "dataset_id": tokenizer.record.get("dataset_id", ""),
        "normaliser": _normaliser(tokenizer),
        "vocab_size": tokenizer.vocab_size,
        "special_tokens": len(tokenizer.special_tokens),
        "size_on_disk_bytes": _size_on_disk(entrant.path),
        **measured,
        "whole_word_rate": _whole_word_rate(tokenizer, words),
        "longest_entries": [shown_bytes(data) for data in _longest(tokenizer)],
        "entry_lengths": _entry_lengths(tokenizer),
        "languages": _languages(tokenizer),
        "text_types": _text_types(tokenizer),
        "digits": {sample: [piece.shown for piece in pieces(tokenizer, sample)] for sample in DIGIT_SAMPLES},
    }


def _measured(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, Any]:
    encoder = BulkEncoder(tokenizer)
    encoder.use_ranks()
    began = time.process_time()
    encoded = [encoder.encode(text) for text in texts]
    encode_seconds = time.process_time() - began
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    for ids in encoded:
        counts += np.bincount(ids, minlength=tokenizer.vocab_size)
    decoded_bytes = restored = 0
    decode_seconds = 0.0
    for text, ids in zip(texts, encoded, strict=True):
        began = time.process_time()
        decoded = tokenizer.decode(ids.tolist())
        decode_seconds += time.process_time() - began
        decoded_bytes += len(decoded.encode())
        restored += decoded == text
    characters, text_bytes = sum(map(len, texts)), sum(len(text.encode()) for text in texts)
    tokens, used = int(counts.sum()), int((counts > 0).sum())
    unknown = _unknown_id(tokenizer)
    return {
        "tokens": tokens,
        "tokens_per_character": tokens / max(characters, 1),
        "bytes_per_token": text_bytes / max(tokens, 1),
        "tokens_per_byte": tokens / max(text_bytes, 1),
        "tokens_per_word": tokens / max(sum(len(text.split()) for text in texts), 1),
        "round_trip_share": restored / len(texts),
        "unknown_share": 0.0 if unknown is None else int(counts[unknown]) / max(tokens, 1),
        "used_entries": used,
        "used_share": used / tokenizer.vocab_size,
        "encode_megabytes_per_second": text_bytes / 1e6 / max(encode_seconds, 1e-9),
        "decode_megabytes_per_second": decoded_bytes / 1e6 / max(decode_seconds, 1e-9),
        "rank_frequency": _rank_frequency(counts),
    }


def _rank_frequency(counts: np.ndarray[Any, Any]) -> list[list[int]]:
    ordered = np.sort(counts[counts > 0])[::-1]
    if not len(ordered):
        return []
    ranks = np.unique(np.geomspace(1, len(ordered), num=RANKS).astype(int))
    return [[int(rank), int(ordered[rank - 1])] for rank in ranks]


def _unknown_id(tokenizer: Tokenizer) -> int | None:
    model = json.loads(tokenizer.tokenizer_json)["model"]
    if model.get("unk_id") is not None:  # Unigram
        return int(model["unk_id"])
    token = model.get("unk_token")
    return tokenizer.id_of(token) if token is not None and token in tokenizer else None


def _normaliser(tokenizer: Tokenizer) -> str:
    step = json.loads(tokenizer.tokenizer_json).get("normalizer")
    if step is None:
        return ""
    steps = step.get("normalizers", [step])
    return ", ".join(dict.fromkeys(str(part["type"]) for part in steps))


def _whole_word_rate(tokenizer: Tokenizer, words: Sequence[str]) -> float | None:
    if not words:
        return None
    return sum(len(tokenizer.encode(" " + word)) == 1 for word in words) / len(words)


def _ordinary_entries(tokenizer: Tokenizer) -> list[bytes]:
    ids = (id for id in range(tokenizer.vocab_size) if id not in tokenizer.special_ids)
    return [data for data in map(tokenizer.token_bytes, ids) if data]


def _longest(tokenizer: Tokenizer) -> list[bytes]:
    return sorted(_ordinary_entries(tokenizer), key=lambda data: (-len(data), data))[:LONGEST]


def _entry_lengths(tokenizer: Tokenizer) -> list[list[int]]:
    """Return `[bytes, entries]` for each length that occurs."""
    lengths = np.bincount([len(data) for data in _ordinary_entries(tokenizer)])
    return [[size, int(count)] for size, count in enumerate(lengths) if count]


def _languages(tokenizer: Tokenizer) -> dict[str, dict[str, Any]]:
    texts = parallel_texts().texts
    english = len(tokenizer.encode(texts[ENGLISH]))
    found = {}
    for language, text in texts.items():
        tokens = len(tokenizer.encode(text))
        found[language] = {
            "tokens": tokens,
            "characters": len(text),
            "bytes": len(text.encode()),
            "tokens_per_character": tokens / len(text),
            "tokens_per_word": None if language in WITHOUT_SPACES else tokens / len(text.split()),
            "tax": tokens / english,
        }
    return found


def _text_types(tokenizer: Tokenizer) -> dict[str, dict[str, Any]]:
    found = {}
    for name, text in text_types().texts.items():
        tokens = len(tokenizer.encode(text))
        found[name] = {
            "tokens": tokens,
            "tokens_per_character": tokens / len(text),
            "tokens_per_word": tokens / len(text.split()),
        }
    return found


def _samples(found: Sequence[Entrant]) -> dict[str, list[dict[str, Any]]]:
    texts = {name: text_types().texts[name] for name in ("prose", "code")} | {
        language: parallel_texts().texts[language] for language in (ENGLISH, "Hindi")
    }
    return {
        title: [
            {"name": entrant.name, "pieces": pieces(entrant.tokenizer, text)} for entrant in found if entrant.tokenizer
        ]
        for title, text in texts.items()
    }


def _flags(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what makes the figures of one tokenizer another thing than those of the others."""
    flags = []
    for row in rows:
        if row["normaliser"]:
            flags.append(f"{row['name']} changes the text before it is cut ({row['normaliser']}).")
        if row["round_trip_share"] < 1:
            flags.append(
                f"{row['name']} is lossy: {row['round_trip_share']:.2%} of the texts come back exactly, "
                "so its token counts leave something out."
            )
        if row["unknown_share"]:
            flags.append(
                f"{row['name']} has unknown tokens: {row['unknown_share']:.3%} of its tokens stand for anything."
            )
        if row["imported"].get("unequal"):
            flags.append(f"{row['name']}: {row['imported']['unequal']}.")
    trained_on = {row["dataset_id"] for row in rows}
    if len(trained_on) > 1 or ("" in trained_on and len(rows) > 1):
        names = "; ".join(f"{row['name']}: {row['dataset_id'][:12] or 'unknown'}" for row in rows)
        flags.append(
            f"They were trained on different or unknown text ({names}); one trained on text like this has an advantage."
        )
    return flags


def _table_name(tokenizer: Tokenizer, path: Path) -> str:
    table = tokenizer.record.get("imported", {}).get("table")
    return str(table or path.resolve().name)


def _told_apart(found: Sequence[Entrant]) -> list[Entrant]:
    """Name by its path every entrant whose name another one has too."""
    names = [entrant.name for entrant in found]
    return [Entrant(str(e.path), e.path, e.tokenizer, e.missing) if names.count(e.name) > 1 else e for e in found]


def _size_on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file() and path.name not in NOT_COUNTED)


def read_words(path: Path) -> list[str]:
    """Return the words of a file, one a line, or of a lexicon in JSON that has `form` or `canonical` fields."""
    if not path.is_file():
        raise UserError("no such file of words", where=str(path))
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".json":
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        found = list(_words_among(json.loads(text)))
    except ValueError as error:
        raise UserError(f"not valid JSON: {error}", where=str(path)) from error
    if not found:
        raise CaslonError("no words in this file", where=str(path))
    return found


def _words_among(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        named = value.get("canonical") or value.get("form") or value.get("word")
        if isinstance(named, str):
            return [named]
        return [word for item in value.values() for word in _words_among(item) if not isinstance(item, str)]
    return [word for item in value for word in _words_among(item)] if isinstance(value, list) else []


__all__ = ["TOKENIZER_FILE", "Comparison", "Entrant", "compare", "entrants", "read_words"]
