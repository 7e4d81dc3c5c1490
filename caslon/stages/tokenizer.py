"""`[tokenizer]`: learns a tokenizer from the corpus's training split, tests it and writes the corpus as token files.

The stage folder is a Hugging Face tokenizer folder; `tokens/` in it holds the ids that pretraining and evaluation read.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from caslon import settings
from caslon.errors import CaslonError
from caslon.stages.stage import PlanContext, PlanRow, StageContext
from caslon.tokenizer import special

if TYPE_CHECKING:
    from caslon.tokenizer.tokenizer import Tokenizer

VERSION = 1
READS: Sequence[str] = ("text",)
WRITES: str | None = "tokens"
NEEDS = {"plotly": "report"}

TOKENS_FOLDER = "tokens"
MANY_CHARACTERS = 64 << 20  # below, starting processes costs more than they save
BYTES_PER_TOKEN = 3.6  # of English and of Python source at 4,096 to 30,000 entries; the report says the true figure


class Settings(settings.Settings):
    """How the vocabulary is learned and what a unit of the token files is."""

    algorithm: Literal["bpe"] = Field("bpe", description="byte-level byte-pair encoding")
    vocab_size: int = Field(30_000, description="entries in all: bytes, special and learned ones")
    min_frequency: int = Field(2, ge=1, description="how often a pair must occur to become an entry")
    max_bytes: int = Field(2 << 30, ge=1, description="bytes of text to learn from; a seeded sample above that")
    unit: Literal["document", "segment"] = Field("document", description="what the end-of-text id closes")
    workers: int = Field(
        0,
        ge=0,
        description="processes that encode; 0: one for each core when there is much text",
        json_schema_extra=settings.side_effect_only(),
    )

    @field_validator("vocab_size")
    @classmethod
    def _large_enough(cls, value: int) -> int:
        if value < special.LEAST_VOCAB_SIZE:
            raise ValueError(
                f"the least size is {special.LEAST_VOCAB_SIZE}: {len(special.SPECIAL_TOKENS)} special tokens "
                f"and {special.BYTE_COUNT} bytes"
            )
        return value


def plan(context: PlanContext) -> list[PlanRow]:
    """Return what the stage will do."""
    chosen: Settings = context.settings
    width = 2 if chosen.vocab_size <= 1 << 16 else 4
    rows = [
        PlanRow("vocab_size", chosen.vocab_size, "entries", "setting; less when the corpus cannot fill it"),
        PlanRow("bytes per id", width, "bytes", "two up to 65,536 entries"),
    ]
    if "text" in context.inputs:
        corpus = context.inputs["text"].path
        sizes = {split: _characters(corpus, split) for split in ("train", "validation", "test")}
        tokens = round(sum(sizes.values()) / BYTES_PER_TOKEN)
        rows += [
            PlanRow("learned from", min(sizes["train"], chosen.max_bytes), "characters", "the train split"),
            PlanRow("tokens", tokens, "tokens", f"estimate: {BYTES_PER_TOKEN} characters a token"),
            PlanRow("token files", tokens * width, "bytes", "estimate"),
        ]
    return rows


def run(context: StageContext) -> dict[str, Any]:
    """Learn, encode and test. A tokenizer that an interrupted call finished is used again."""
    from caslon.corpus.workers import available_cores
    from caslon.tokenizer.encode import TokenSplit, write_token_files
    from caslon.tokenizer.examine import examine
    from caslon.tokenizer.report import id_counts, write_report

    chosen: Settings = context.settings
    text = context.inputs["text"]
    tokenizer = _tokenizer(context)
    characters = _characters(text.path)
    files = write_token_files(
        context.folder / TOKENS_FOLDER,
        tokenizer,
        _reader(text.path, chosen.unit),
        dataset_id=dataset_id(context),
        unit=chosen.unit,
        workers=chosen.workers or (available_cores() if characters > MANY_CHARACTERS else 1),
        progress=_encode_progress(context, characters),
    )
    held_out = chain.from_iterable(_texts(text.path, split) for split in ("validation", "test"))
    found = examine(tokenizer, held_out, seed=context.seed)
    training = TokenSplit.open(context.folder / TOKENS_FOLDER, "train")
    write_report(context.folder / "report.html", tokenizer, found, id_counts(training.ids, tokenizer.vocab_size))
    if not found.passed:
        raise CaslonError(
            f"the tokenizer is not exact: {len(found.failures)} of {found.round_trips:,} texts did not come back",
            where=str(context.folder / "report.html"),
            fix="please report this with the text the report shows",
        )
    totals: dict[str, Any] = {"vocab_size": tokenizer.vocab_size}
    for split, figures in files.splits.items():
        totals |= {f"{split}_tokens": figures.tokens, f"{split}_bytes": figures.text_bytes}
    if found.held_out.tokens:
        totals["held_out_bytes_per_token"] = round(found.held_out.bytes_per_token, 4)
        totals["held_out_tokens_per_character"] = round(found.held_out.tokens_per_character, 4)
    return totals


def dataset_id(context: StageContext) -> str:
    """Return the id the corpus gave its content, or the digest of its folder when it came without one."""
    text = context.inputs["text"]
    return str(text.manifest.totals.get("dataset_id") or text.digest)


def _tokenizer(context: StageContext) -> "Tokenizer":
    from caslon.tokenizer.tokenizer import TOKENIZER_FILE, Tokenizer
    from caslon.tokenizer.train import train_tokenizer

    if (context.folder / TOKENIZER_FILE).is_file():  # `save` writes it last
        context.events.note("the tokenizer was learned before the interruption")
        return Tokenizer.load(context.folder)
    chosen: Settings = context.settings
    tokenizer = train_tokenizer(
        _training_texts(context),
        vocab_size=chosen.vocab_size,
        min_frequency=chosen.min_frequency,
        warn=context.events.warn,
        record={"dataset_id": dataset_id(context), "max_bytes": chosen.max_bytes},
    )
    tokenizer.save(context.folder)
    return tokenizer


def _training_texts(context: StageContext) -> Iterator[str]:
    """Yield the texts to learn from: all of the train split, or a seeded share of its documents, up to `max_bytes`."""
    limit = context.settings.max_bytes
    corpus = context.inputs["text"].path
    total = _characters(corpus, "train")
    share = min(1.0, limit / max(total, 1))
    if share < 1:
        context.events.note(f"learning from about {share:.1%} of the training text, drawn by document")
    read_bytes = read_characters = 0
    for document, text in _documents(corpus, "train"):
        if share < 1 and _draw(context.seed, document) >= share:
            continue
        read_bytes += len(text.encode())
        if read_bytes > limit:
            break
        read_characters += len(text)
        context.events.progress("read", read_characters, round(total * share), "characters")
        yield text
    context.events.progress("learn", 0, 0, "merges")


def _draw(seed: int, document: str) -> float:
    """Return a number in [0, 1) that depends on the seed and the document alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{document}".encode()).digest()[:8]) / 2**64


def _reader(corpus: Path, unit: str) -> Callable[[str], Iterable[tuple[str, str]]]:
    from caslon.corpus.shards import read_segments

    if unit == "segment":
        return lambda split: ((segment.id, segment.text) for segment in read_segments(corpus, split))
    return lambda split: _documents(corpus, split)


def _documents(corpus: Path, split: str) -> Iterator[tuple[str, str]]:
    from caslon.corpus.shards import read_texts

    return read_texts(corpus, split)


def _texts(corpus: Path, split: str) -> Iterator[str]:
    return (text for _, text in _documents(corpus, split))


def _characters(corpus: Path, split: str | None = None) -> int:
    """Return the characters of a split's documents, from the column that counts them."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from caslon.corpus.shards import shard_paths

    sums = [
        pc.sum(pq.read_table(path, columns=["characters"], use_threads=False)["characters"]).as_py() or 0
        for path in shard_paths(corpus, "documents", split)
    ]
    return sum(sums)


def _encode_progress(context: StageContext, total: int) -> Callable[[str, int], None]:
    done = {"train": 0, "validation": 0, "test": 0}

    def report(split: str, characters: int) -> None:
        done[split] = characters
        context.events.progress("encode", sum(done.values()), total, "characters", split)

    return report
