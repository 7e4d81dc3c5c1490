"""`caslon tokenizer train` and `caslon tokenizer test`: a tokenizer from files outside any recipe, and the table of its tests."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from caslon.commands.output import JsonOption, print_json, print_table, say
from caslon.errors import UserError

if TYPE_CHECKING:
    from caslon.tokenizer.examine import Failure, Fit
    from caslon.tokenizer.report import Counts, Extras
    from caslon.tokenizer.sample import Sample
    from caslon.tokenizer.tokenizer import Tokenizer
    from caslon.tokenizer.train import TrainingSettings

FolderArgument = Annotated[Path, typer.Argument(help="a tokenizer, model or stage folder", metavar="FOLDER")]
FilesArgument = Annotated[
    list[Path], typer.Argument(help="files (.txt, .jsonl, .parquet) or the folder of a corpus stage", metavar="FILES")
]
SHOWN_CHARACTERS = 200


def train(
    files: FilesArgument,
    out: Annotated[Path, typer.Option("--out", help="the folder to write; must not exist")],
    vocab_size: Annotated[int, typer.Option(help="entries, everything counted")] = 30_000,
    algorithm: Annotated[str, typer.Option(help="bpe, wordpiece or unigram")] = "bpe",
    min_frequency: Annotated[int, typer.Option(help="least occurrences of a learned entry")] = 2,
    digits: Annotated[str, typer.Option(help="none, single, groups3 or groups3_right")] = "none",
    pattern: Annotated[str, typer.Option(help="gpt2 or llama3")] = "gpt2",
    lexicon: Annotated[str, typer.Option(help="words to hold as one token: london, or a lexicon file")] = "",
    special_mode: Annotated[str, typer.Option(help="what lexicon words become: words or tags")] = "words",
    special_token: Annotated[list[str] | None, typer.Option(help="a name for the next reserved token")] = None,
    sentinels: Annotated[int, typer.Option(min=0, max=1_000, help="marks of span corruption")] = 0,
    model_max_length: Annotated[int, typer.Option(min=1, help="context other readers are told")] = 1_024,
    max_bytes: Annotated[int, typer.Option(min=1, help="read a seeded sample above this")] = 2 << 30,
    seed: Annotated[int, typer.Option(help="seed of the sample and of the tests' random texts")] = 1,
    strict_size: Annotated[bool, typer.Option(help="exit 1 when the text cannot fill the vocabulary")] = False,
    preset: Annotated[str, typer.Option(help="bert or sentencepiece: lossy, for comparison")] = "",
    held_out: Annotated[list[Path] | None, typer.Option(help="text for the report's figures of fit")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a tokenizer on text, outside any recipe; of a corpus folder the train split alone is read."""
    from caslon.tokenizer.lexicon import load_lexicon
    from caslon.tokenizer.presets import train_preset
    from caslon.tokenizer.report import report_numbers
    from caslon.tokenizer.train import TrainingSettings, train_tokenizer

    if out.exists():
        raise UserError(f"{out} exists already", fix="choose another folder, or remove it")
    settings = TrainingSettings(
        vocab_size=vocab_size, algorithm=algorithm, min_frequency=min_frequency, digits=digits, pattern=pattern,
        lexicon=load_lexicon(lexicon), special_mode=special_mode, special_tokens=tuple(special_token or ()),
        sentinels=sentinels, model_max_length=model_max_length,
    )  # fmt: skip
    _check(settings, preset)
    reading = _Reading(files, max_bytes, seed)
    if preset:
        made = train_preset(preset, reading, vocab_size=vocab_size, min_frequency=min_frequency, warn=_warn)
    else:
        made = train_tokenizer(reading, settings=settings, strict_size=strict_size, warn=_warn, record=reading.record)
    unfinished = out.with_name(f"{out.name}.partial")
    made.save(unfinished)
    extras = _extras(made, reading, settings, held_out or [])
    found = _reported(made, unfinished, held_out or [], extras, seed)
    unfinished.replace(out)
    if as_json:
        print_json({"folder": str(out), **report_numbers(made, found, extras)})
    else:
        say(f"{out}  {made.vocab_size:,} entries")


def test(
    folder: FolderArgument,
    files: FilesArgument,
    against: Annotated[Path | None, typer.Option(help="a GPT-2 tokenizer folder to compare with")] = None,
    training: Annotated[
        list[Path] | None, typer.Option(help="the training text, to count which entries it uses")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="a folder for report.html, report.json and report.md")] = None,
    seed: Annotated[int, typer.Option(help="seed of the random texts")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Test a tokenizer on held-out text (of a corpus folder: validation and test); exit 1 when a gate fails."""
    from caslon.tokenizer.examine import examine
    from caslon.tokenizer.gates import FAIL
    from caslon.tokenizer.report import Extras, gate_lines, report_numbers, write_report
    from caslon.tokenizer.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(folder)
    other = (str(against), Tokenizer.load(against)) if against else None
    found = examine(tokenizer, _texts(files, HELD_OUT), seed=seed, against=other)
    extras = Extras(_counts(tokenizer, _texts(training, TRAIN)) if training else None)
    if report:
        report.mkdir(parents=True, exist_ok=True)
        write_report(report / "report.html", tokenizer, found, extras)
    lines = gate_lines(tokenizer, found, extras)
    if as_json:
        print_json(report_numbers(tokenizer, found, extras))
    else:
        for failure in (*found.failures, *found.disagreements):
            say(_shown(failure))
        rows = [(line.test, line.bound, line.measured, line.verdict, line.reason) for line in lines]
        print_table(("test", "gate", "measured", "verdict", "why"), rows)
    if any(line.verdict == FAIL for line in lines):
        raise typer.Exit(1)


TRAIN = ("train",)
HELD_OUT = ("validation", "test")


class _Reading:
    """The texts of files, or a seeded sample of them; may be read again and again."""

    def __init__(self, files: Sequence[Path], max_bytes: int, seed: int) -> None:
        from caslon.tokenizer.sample import draw_sample
        from caslon.tokenizer.texts import expanded, sized_texts

        self._paths = expanded(files, TRAIN)
        sizes, self._digest = sized_texts(self._paths)
        self._limits = {"max_bytes": max_bytes, "seed": seed}
        rows = ((text.id, text.source, text.bytes) for text in sizes)
        self._sample: Sample = draw_sample(rows, max_bytes=max_bytes, seed=seed)

    def __iter__(self) -> Iterator[str]:
        from caslon.tokenizer.texts import texts_of_files

        return self._sample.drawn(texts_of_files(self._paths))

    @property
    def record(self) -> dict[str, Any]:
        """What caslon_tokenizer.json says about it."""
        return {"dataset_id": self._digest, **self._limits, "read": [share.to_json() for share in self._sample.shares]}


def _check(settings: "TrainingSettings", preset: str) -> None:
    if not preset:
        settings.check()
        return
    plain = type(settings)(vocab_size=settings.vocab_size, min_frequency=settings.min_frequency)
    if settings != plain:
        raise UserError(
            "a preset has its own settings", fix="give --vocab-size and --min-frequency alone with --preset"
        )


def _extras(
    tokenizer: "Tokenizer", reading: Iterable[str], settings: "TrainingSettings", held_out: Sequence[Path]
) -> "Extras":
    from caslon.tokenizer.report import Extras

    other = _fit_as_words(reading, settings, held_out) if settings.tags and held_out else None
    return Extras(_counts(tokenizer, reading), other)


def _fit_as_words(reading: Iterable[str], settings: "TrainingSettings", held_out: Sequence[Path]) -> tuple[str, "Fit"]:
    from caslon.tokenizer.examine import fit_of
    from caslon.tokenizer.train import train_tokenizer

    other = train_tokenizer(reading, settings=replace(settings, special_mode="words"))
    return "words", fit_of(other, _texts(held_out, HELD_OUT))


def _reported(tokenizer: "Tokenizer", folder: Path, held_out: Sequence[Path], extras: "Extras", seed: int) -> Any:
    from caslon.tokenizer.examine import examine
    from caslon.tokenizer.report import write_report

    found = examine(tokenizer, _texts(held_out, HELD_OUT), seed=seed)
    write_report(folder / "report.html", tokenizer, found, extras)
    return found


def _counts(tokenizer: "Tokenizer", texts: Iterable[str]) -> "Counts":
    """Return how often the texts use each id."""
    import numpy as np

    from caslon.tokenizer.bulk import BulkEncoder

    encoder = BulkEncoder(tokenizer)
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    for text in texts:
        counts += np.bincount(encoder.encode(text).astype(np.int64), minlength=len(counts))
    return counts


def _texts(files: Sequence[Path], splits: Sequence[str]) -> Iterator[str]:
    from caslon.tokenizer.texts import expanded, texts_of_files

    return texts_of_files(expanded(files, splits))


def _shown(failure: "Failure") -> str:
    start = max(failure.position - SHOWN_CHARACTERS // 2, 0)
    window = slice(start, start + SHOWN_CHARACTERS)
    return (
        f"differs at character {failure.position:,}: {failure.text[window]!r} came back as {failure.decoded[window]!r}"
        + (f" (from character {start:,} on)" if start else "")
    )


def _warn(text: str) -> None:
    sys.stderr.write(f"warning: {text}\n")
