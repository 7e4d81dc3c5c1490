"""`[tokenizer]`: learns a tokenizer from the corpus's training split, tests it and writes the corpus as token files.

The stage folder is a Hugging Face tokenizer folder; `tokens/` in it holds the ids that pretraining and evaluation read.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from caslon import settings
from caslon.errors import CaslonError, UserError
from caslon.stages.stage import PlanContext, PlanRow, StageContext

if TYPE_CHECKING:
    from caslon.tokenizer.examine import Fit
    from caslon.tokenizer.sample import Sample
    from caslon.tokenizer.tokenizer import Tokenizer
    from caslon.tokenizer.train import TrainingSettings

VERSION = 2
READS: Sequence[str] = ("text",)
WRITES: str | None = "tokens"
NEEDS = {"plotly": "report"}

TOKENS_FOLDER = "tokens"
HELD_OUT_BYTES = 6_500_000  # so that 5 million characters are seen whatever the share of longer ones
MANY_CHARACTERS = 64 << 20  # below, starting processes costs more than they save
BYTES_PER_TOKEN = 3.6  # of English and of Python source at 4,096 to 30,000 entries; the report says the true figure


class Settings(settings.Settings):
    """How the vocabulary is learned and what a unit of the token files is."""

    algorithm: Literal["bpe", "wordpiece", "unigram"] = Field("bpe", description="all three are byte-level and exact")
    vocab_size: int = Field(30_000, description="entries in all: bytes, special, guaranteed and learned ones")
    min_frequency: int = Field(2, ge=1, description="how often a pair must occur to become an entry")
    digits: Literal["none", "single", "groups3", "groups3_right"] = Field(
        "none", description="learned as other text, one by one, or in groups of three from the left or the right"
    )
    pattern: Literal["gpt2", "llama3"] = Field("gpt2", description="what cuts a text; llama3 is that of groups3")
    lexicon: str = Field("", description='words that must be one token: "london", the path of a lexicon file, or none')
    special_mode: Literal["words", "tags"] = Field("words", description="what lexicon words become; tags: experiments")
    special_tokens: tuple[str, ...] = Field((), description="names for the reserved tokens, in their order: <|name|>")
    sentinels: int = Field(0, ge=0, le=1_000, description="marks of span corruption, <|extra_0|> and so on")
    model_max_length: int = Field(1_024, ge=1, description="context in tokens that other readers are told")
    max_bytes: int = Field(2 << 30, ge=1, description="bytes of text to learn from; a seeded sample above that")
    strict_size: bool = Field(False, description="fail when the corpus cannot fill the vocabulary")
    unit: Literal["document", "segment"] = Field("document", description="what the end-of-text id closes")
    workers: int = Field(
        0,
        ge=0,
        description="processes that encode; 0: one for each core when there is much text",
        json_schema_extra=settings.side_effect_only(),
    )

    @model_validator(mode="after")
    def _can_be_had(self) -> "Settings":
        try:
            self.training().check()
        except UserError as error:
            raise ValueError("; ".join(part for part in (error.what, error.where, error.fix) if part)) from None
        return self

    def training(self) -> "TrainingSettings":
        """Return the settings of the learning itself."""
        from caslon.tokenizer.lexicon import load_lexicon
        from caslon.tokenizer.train import TrainingSettings

        same = self.model_dump(
            include={
                "algorithm", "vocab_size", "min_frequency", "digits", "pattern", "special_mode", "special_tokens", "sentinels",
                "model_max_length",
            }
        )  # fmt: skip
        return TrainingSettings(**same, lexicon=load_lexicon(self.lexicon))


def sources(settings: Settings, base: Path) -> list[Path]:
    """Return every outside file the stage reads: the lexicon, unless it is built in."""
    from caslon.tokenizer.lexicon import BUILT_IN

    return [base / settings.lexicon] if settings.lexicon and settings.lexicon not in BUILT_IN else []


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
    from caslon.tokenizer.gates import FAIL
    from caslon.tokenizer.report import Extras, id_counts, write_report

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
    found = examine(tokenizer, _held_out(context), seed=context.seed)
    training = TokenSplit.open(context.folder / TOKENS_FOLDER, "train")
    extras = Extras(id_counts(training.ids, tokenizer.vocab_size), _other_mode(context))
    for line in write_report(context.folder / "report.html", tokenizer, found, extras):
        if line.verdict == FAIL:
            context.events.warn(f"{line.test}: {line.measured}, the gate is {line.bound}")
    if not found.passed:
        raise CaslonError(
            f"the tokenizer is not exact: {len(found.failures)} of {found.round_trips:,} texts did not come back",
            where=str(context.folder / "report.html"),
            fix="please report this with the text the report shows",
        )
    totals: dict[str, Any] = {"vocab_size": tokenizer.vocab_size}
    for split, figures in files.splits.items():
        totals |= {f"{split}_tokens": figures.tokens, f"{split}_bytes": figures.text_bytes}
    totals["learned_from_bytes"] = tokenizer.record["bytes_read"]
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
    sample = _sample(context, ("train",), chosen.max_bytes)
    if not sample.whole:
        read, total = int(sample.bytes_to_read.sum()), int(sample.sizes.sum())
        context.events.note(
            f"learning from {read / total:.1%} of the training text, drawn in proportion for every source"
        )
    tokenizer = train_tokenizer(
        _training_texts(context, sample),
        settings=chosen.training(),
        strict_size=chosen.strict_size,
        warn=context.events.warn,
        record={
            "dataset_id": dataset_id(context),
            "max_bytes": chosen.max_bytes,
            "seed": context.seed,
            "read": [share.to_json() for share in sample.shares],
        },
    )
    tokenizer.save(context.folder)
    return tokenizer


def _other_mode(context: StageContext) -> tuple[str, "Fit"] | None:
    """Return how the same words as words, not tags, fit the held-out text: tags are an experiment that is compared."""
    from caslon.tokenizer.examine import fit_of
    from caslon.tokenizer.train import train_tokenizer

    chosen: Settings = context.settings
    if chosen.special_mode != "tags" or not chosen.lexicon:
        return None
    sample = _sample(context, ("train",), chosen.max_bytes)
    settings = replace(chosen.training(), special_mode="words")
    other = train_tokenizer(_training_texts(context, sample), settings=settings)
    return "words", fit_of(other, _held_out(context))


def _sample(context: StageContext, splits: Sequence[str], max_bytes: int) -> "Sample":
    from caslon.tokenizer.sample import draw_sample

    corpus = context.inputs["text"].path
    sizes = chain.from_iterable(_sizes(corpus, split) for split in splits)
    return draw_sample(sizes, max_bytes=max_bytes, seed=context.seed)


def _training_texts(context: StageContext, sample: "Sample") -> Iterator[str]:
    """Yield the drawn texts of the train split."""
    total = int(sample.bytes_to_read.sum())
    read = 0
    for text in sample.drawn(_texts(context.inputs["text"].path, "train")):
        yield text
        read += len(text.encode())
        context.events.progress("read", read, total, "bytes")
    context.events.progress("learn", 0, 0, "merges")


def _held_out(context: StageContext) -> Iterator[str]:
    """Yield the validation and test documents, of many a seeded sample in proportion for every source."""
    corpus = context.inputs["text"].path
    splits = ("validation", "test")
    sample = _sample(context, splits, HELD_OUT_BYTES)
    return sample.drawn(chain.from_iterable(_texts(corpus, split) for split in splits))


def _sizes(corpus: Path, split: str) -> Iterator[tuple[str, str, int]]:
    """Yield the id, source and bytes of each document."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from caslon.corpus.shards import shard_paths

    for path in shard_paths(corpus, "documents", split):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=["id", "source", "text"], batch_size=256):
                sizes = pc.binary_length(batch.column("text")).to_pylist()
                yield from zip(batch.column("id").to_pylist(), batch.column("source").to_pylist(), sizes, strict=True)


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
