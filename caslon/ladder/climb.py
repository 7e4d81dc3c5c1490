"""Rungs and a text to one table: each trained on the same bytes, judged by the same bytes, and asked for a sample.

A rung that is done is kept in a file of its own, so that a stopped ladder goes on with the next rung.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from caslon.folders import digest_of, write_atomic
from caslon.ladder.rung import Rung, Work, bits_per_byte, written
from caslon.ladder.text import LadderText
from caslon.observe.events import EventLog, Started

VERSION = 1  # raised when a rung's training changes, so that kept results are not taken for new ones


@dataclass(frozen=True)
class Climbed:
    """What one rung reached."""

    rung: str
    bytes_back: int
    syntax: str
    long_range: str
    numbers: int
    holds: str
    train_seconds: float
    score_seconds: float
    bits_per_byte: float
    sample: str


@dataclass(frozen=True)
class Sampling:
    """What every rung is asked to write."""

    prompt: bytes = b"\n"
    length: int = 200
    seed: int = 1


def climb(text: LadderText, rungs: Sequence[Rung], folder: Path, events: EventLog, sampling: Sampling) -> list[Climbed]:
    """Return what each rung reached; results already in `folder` are taken from there."""
    kept = folder / "rungs"
    kept.mkdir(parents=True, exist_ok=True)
    found: list[Climbed] = []
    for rung in rungs:
        events.emit(Started(rung.name))
        events.note(f"{rung.name} ({len(found) + 1} of {len(rungs)})")
        path = kept / f"{rung.name}-{_key(text, rung, sampling)[:16]}.json"
        if not path.is_file():
            reached = _climbed(text, rung, Work(folder / "work" / rung.name, events), sampling)
            write_atomic(path, json.dumps(asdict(reached), indent=1))
        found.append(Climbed(**json.loads(path.read_text(encoding="utf-8"))))
    return found


def _key(text: LadderText, rung: Rung, sampling: Sampling) -> str:
    asked = {"prompt": sampling.prompt.hex(), "length": sampling.length, "seed": sampling.seed}
    what = {
        "version": VERSION,
        "text": text.digest,
        "rung": rung.name,
        "settings": dict(rung.settings),
        "sample": asked,
    }
    return digest_of(what)


def _climbed(text: LadderText, rung: Rung, work: Work, sampling: Sampling) -> Climbed:
    began = time.perf_counter()
    model = rung.train(text.train, work)
    trained = time.perf_counter()
    bits = bits_per_byte(model, text.train, text.validation)
    scored = time.perf_counter()
    sample = written(model, sampling.prompt, sampling.length, sampling.seed)
    return Climbed(
        rung=rung.name,
        **asdict(rung.reach),
        numbers=model.numbers,
        holds=rung.holds,
        train_seconds=round(trained - began, 2),
        score_seconds=round(scored - trained, 2),
        bits_per_byte=round(bits, 4),
        sample=sample.decode("utf-8", errors="replace"),
    )


def conclusions(found: Sequence[Climbed]) -> list[str]:
    """Return what the table shows, in sentences: who beats counting, and whether more evidence helped."""
    grams = [item for item in found if item.rung.startswith(("witten-bell", "kneser-ney"))]
    trained = [item for item in found if item.rung in ("mlp", "rnn", "lstm", "gpt2", "llama")]
    told = []
    if grams:
        best = min(grams, key=lambda item: item.bits_per_byte)
        for item in trained:
            verdict = "beats" if item.bits_per_byte < best.bits_per_byte else "does not beat"
            told.append(
                f"{item.rung} ({item.bits_per_byte:.4f}) {verdict} the best n-gram, {best.rung} ({best.bits_per_byte:.4f})."
            )
    bayes = [item for item in found if item.rung.startswith("naive-bayes")]
    if len(bayes) > 1 and bayes[-1].bits_per_byte > bayes[0].bits_per_byte:
        told.append(
            f"Naive Bayes gets worse with more evidence ({bayes[0].bytes_back} bytes {bayes[0].bits_per_byte:.4f}, "
            f"{bayes[-1].bytes_back} bytes {bayes[-1].bits_per_byte:.4f}): it takes neighbours for independent."
        )
    return told


def as_numbers(text: LadderText, found: Sequence[Climbed]) -> Mapping[str, Any]:
    """Return the whole result as JSON values."""
    return {
        "text": {
            "source": text.source,
            "split": text.rule,
            "train_bytes": len(text.train),
            "validation_bytes": len(text.validation),
            "sha256": text.digest,
        },
        "rungs": [asdict(item) for item in found],
        "conclusions": conclusions(found),
    }
