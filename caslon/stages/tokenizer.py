"""`[tokenizer]`: learns a tokenizer from the corpus's training split, tests it and writes the corpus as token files.

The stage folder is a Hugging Face tokenizer folder; `tokens/` in it holds the ids that pretraining and evaluation read. With
`text = "FILE"` there need be no corpus: the stage cuts that file into splits itself and keeps them as documents for evaluation.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caslon.errors import CaslonError, UserError
from caslon.stages.stage import PlanContext, PlanRow, StageContext
from caslon.tokenizer.settings import TokenizerSettings
from caslon.tokenizer.special import END_OF_TEXT

if TYPE_CHECKING:
    from caslon.tokenizer.examine import Fit
    from caslon.tokenizer.sample import Sample
    from caslon.tokenizer.tokenizer import Tokenizer

VERSION = 4
READS: Sequence[str] = ("text",)
WRITES: str | None = "tokens"
NEEDS = {"plotly": "report"}
NAMES_MATTER = False
Settings = TokenizerSettings

TOKENS_FOLDER = "tokens"
HELD_OUT_BYTES = 6_500_000  # so that 5 million characters are seen whatever the share of longer ones
MANY_CHARACTERS = 64 << 20  # below, starting processes costs more than they save
SIZE_ORIGIN = "setting; less when the corpus cannot fill it"
BYTES_PER_TOKEN = 3.6  # of English and of Python source at 4,096 to 30,000 entries; the report says the true figure


def reads(settings: TokenizerSettings) -> Sequence[str]:
    """Return what the stage needs from earlier ones: nothing, when it has a text file of its own."""
    return () if settings.text else READS


def writes(settings: TokenizerSettings) -> Sequence[str]:
    """Return what the stage makes; of a text file of its own also the text, cut into splits."""
    return ("tokens", "text") if settings.text else ("tokens",)


def sources(settings: Settings, base: Path) -> list[Path]:
    """Return every outside file the stage reads: the text, and the lexicon unless it is built in."""
    from caslon.tokenizer.lexicon import BUILT_IN

    lexicon = "" if settings.lexicon in BUILT_IN else settings.lexicon
    found = [base / name for name in (settings.text, lexicon) if name]
    for path in found:
        if not path.is_file():
            raise UserError("no such file", where=str(path), fix="give another path, as in --set tokenizer.text=FILE")
    return found


def plan(context: PlanContext) -> list[PlanRow]:
    """Return what the stage will do."""
    chosen: TokenizerSettings = context.settings
    size = chosen.planned_vocab_size(context.base)
    width = 2 if size <= 1 << 16 else 4
    origin = f"all {chosen.algorithm} and {END_OF_TEXT}" if chosen.is_untrained else SIZE_ORIGIN
    rows = [
        PlanRow("vocab_size", size, "entries", origin),
        PlanRow("bytes per id", width, "bytes", "two up to 65,536 entries"),
    ]
    if chosen.text:
        rows.append(PlanRow("text", (context.base / chosen.text).stat().st_size, "bytes", chosen.text))
    elif "text" in context.inputs:
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

    chosen: TokenizerSettings = context.settings
    corpus = _corpus(context)
    tokenizer = _tokenizer(context, corpus)
    characters = _characters(corpus.folder)
    files = write_token_files(
        context.folder / TOKENS_FOLDER,
        tokenizer,
        _reader(corpus.folder, chosen.unit),
        dataset_id=corpus.dataset_id,
        unit=chosen.unit,
        workers=chosen.workers or (available_cores() if characters > MANY_CHARACTERS else 1),
        progress=_encode_progress(context, characters),
    )
    found = examine(tokenizer, _held_out(context, corpus.folder), seed=context.seed)
    training = TokenSplit.open(context.folder / TOKENS_FOLDER, "train")
    extras = Extras(id_counts(training.ids, tokenizer.vocab_size), _other_mode(context, corpus.folder))
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
    if "bytes_read" in tokenizer.record:
        totals["learned_from_bytes"] = tokenizer.record["bytes_read"]
    if found.held_out.tokens:
        totals["held_out_bytes_per_token"] = round(found.held_out.bytes_per_token, 4)
        totals["held_out_tokens_per_character"] = round(found.held_out.tokens_per_character, 4)
    return totals


@dataclass(frozen=True)
class _Corpus:
    """The documents to learn from and to encode: those of the corpus stage, or a plain text cut into splits."""

    folder: Path
    dataset_id: str


def _corpus(context: StageContext) -> _Corpus:
    """Return the corpus; a plain text is written to the stage's own folder first. Its id is the one the corpus gave, if any."""
    from caslon.corpus.plain_text import write_plain_text

    chosen: TokenizerSettings = context.settings
    if chosen.text:
        identity = write_plain_text(context.base / chosen.text, context.folder, chosen.text_split)
        return _Corpus(context.folder, identity)
    text = context.inputs["text"]
    return _Corpus(text.path, str(text.manifest.totals.get("dataset_id") or text.digest))


def _tokenizer(context: StageContext, corpus: _Corpus) -> "Tokenizer":
    from caslon.tokenizer.tokenizer import TOKENIZER_FILE, Tokenizer

    if (context.folder / TOKENIZER_FILE).is_file():  # `save` writes it last
        context.events.note("the tokenizer was learned before the interruption")
        return Tokenizer.load(context.folder)
    chosen: TokenizerSettings = context.settings
    tokenizer = _untrained(chosen, corpus.folder) if chosen.is_untrained else _trained(context, corpus)
    tokenizer.save(context.folder)
    return tokenizer


def _untrained(chosen: TokenizerSettings, corpus: Path) -> "Tokenizer":
    """Return the vocabulary of all bytes, or of all characters: those of the held-out text too, so that it can be spelled."""
    from caslon.tokenizer.alphabet import byte_tokenizer, character_tokenizer

    given = {"model_max_length": chosen.model_max_length}
    if chosen.algorithm == "bytes":
        return byte_tokenizer(chosen.special_tokens, chosen.sentinels, **given)
    texts = chain.from_iterable(_texts(corpus, split) for split in ("train", "validation", "test"))
    return character_tokenizer(texts, chosen.special_tokens, chosen.sentinels, **given)


def _trained(context: StageContext, corpus: _Corpus) -> "Tokenizer":
    from caslon.tokenizer.train import train_tokenizer

    chosen: TokenizerSettings = context.settings
    sample = _sample(context, corpus.folder, ("train",), chosen.max_bytes)
    if not sample.whole:
        read, total = int(sample.bytes_to_read.sum()), int(sample.sizes.sum())
        context.events.note(
            f"learning from {read / total:.1%} of the training text, drawn in proportion for every source"
        )
    return train_tokenizer(
        _training_texts(context, corpus.folder, sample),
        settings=chosen.training(),
        strict_size=chosen.strict_size,
        warn=context.events.warn,
        record={
            "dataset_id": corpus.dataset_id,
            "max_bytes": chosen.max_bytes,
            "seed": context.seed,
            "read": [share.to_json() for share in sample.shares],
        },
    )


def _other_mode(context: StageContext, corpus: Path) -> tuple[str, "Fit"] | None:
    """Return how the same words as words, not tags, fit the held-out text: tags are an experiment that is compared."""
    from caslon.tokenizer.examine import fit_of
    from caslon.tokenizer.train import train_tokenizer

    chosen: TokenizerSettings = context.settings
    if chosen.special_mode != "tags" or not chosen.lexicon:
        return None
    sample = _sample(context, corpus, ("train",), chosen.max_bytes)
    settings = replace(chosen.training(), special_mode="words")
    other = train_tokenizer(_training_texts(context, corpus, sample), settings=settings)
    return "words", fit_of(other, _held_out(context, corpus))


def _sample(context: StageContext, corpus: Path, splits: Sequence[str], max_bytes: int) -> "Sample":
    from caslon.tokenizer.sample import draw_sample

    sizes = chain.from_iterable(_sizes(corpus, split) for split in splits)
    return draw_sample(sizes, max_bytes=max_bytes, seed=context.seed)


def _training_texts(context: StageContext, corpus: Path, sample: "Sample") -> Iterator[str]:
    """Yield the drawn texts of the train split."""
    total = int(sample.bytes_to_read.sum())
    read = 0
    for text in sample.drawn(_texts(corpus, "train")):
        yield text
        read += len(text.encode())
        context.events.progress("read", read, total, "bytes")
    context.events.progress("learn", 0, 0, "merges")


def _held_out(context: StageContext, corpus: Path) -> Iterator[str]:
    """Yield the validation and test documents, of many a seeded sample in proportion for every source."""
    splits = ("validation", "test")
    sample = _sample(context, corpus, splits, HELD_OUT_BYTES)
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
