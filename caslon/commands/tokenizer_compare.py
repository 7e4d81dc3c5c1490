"""Commands that set tokenizers side by side: compare, import, digits."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from caslon.commands.output import JsonOption, figure, print_json, print_table, say
from caslon.commands.tokenizer import app
from caslon.errors import UserError

if TYPE_CHECKING:
    from caslon.tokenizer.compare import Comparison

OutOption = Annotated[Path, typer.Option("--out", help="the folder to write")]


@app.command()
def compare(
    folders: Annotated[list[Path], typer.Argument(help="tokenizer folders, own or imported", metavar="FOLDERS")],
    texts: Annotated[list[Path], typer.Option("--texts", help="a file of text (.txt, .jsonl, .parquet); repeat it")],
    words: Annotated[Path | None, typer.Option(help="a list of words, one a line, or a lexicon in JSON")] = None,
    out: OutOption = Path("tokenizer-comparison"),
    as_json: JsonOption = False,
) -> None:
    """Compare tokenizers on the same texts; write report.html and report.json. A missing table is "not available"."""
    from caslon.tokenizer.compare import compare as figures_of
    from caslon.tokenizer.compare import entrants, read_words
    from caslon.tokenizer.compare_report import write_comparison
    from caslon.tokenizer.texts import texts_of_files

    found = figures_of(entrants(folders), list(texts_of_files(texts)), words=read_words(words) if words else ())
    write_comparison(out, found)
    if as_json:
        print_json(found.to_json())
        return
    _print_comparison(found)
    say(f"written: {out / 'report.html'}")


def _print_comparison(found: "Comparison") -> None:
    keys = (
        "vocab_size",
        "tokens_per_character",
        "bytes_per_token",
        "tokens_per_word",
        "round_trip_share",
        "used_share",
    )
    columns = ("tokenizer", *(key.replace("_", " ") for key in keys))
    print_table(columns, ([row["name"], *(figure(row[key]) for key in keys)] for row in found.tokenizers))
    for row in found.not_available:
        say(f"{row['name']}: {row['why']}")
    for flag in found.flags:
        say(f"unequal: {flag}")


@app.command(name="import")
def import_(
    path: Annotated[Path, typer.Argument(help="a file or folder on this machine", metavar="PATH")],
    out: OutOption,
    format: Annotated[Literal["hf", "sentencepiece", "tiktoken"], typer.Option(help="whose table it is")],
    name: Annotated[str, typer.Option(help="the table's exact name, as cl100k_base; default: the file's")] = "",
    pattern: Annotated[str, typer.Option(help="tiktoken: how it cuts text: gpt2, cl100k or o200k")] = "",
    as_json: JsonOption = False,
) -> None:
    """Make a tokenizer folder of another maker's table, with the same ids. Reads local files only."""
    from caslon.tokenizer.import_table import import_table

    if out.exists():
        raise UserError(f"{out} exists already", fix="choose another folder, or remove it")
    tokenizer = import_table(path, format, name=name, pattern=pattern)
    tokenizer.save(out)
    record = tokenizer.record["imported"]
    if as_json:
        print_json({"folder": str(out), "vocab_size": tokenizer.vocab_size, **record})
        return
    say(f"{out}  {record['table']}: {tokenizer.vocab_size:,} entries")
    if "unequal" in record:
        say(f"unequal: {record['unequal']}")


@app.command()
def digits(
    out: OutOption = Path("digits-experiment"),
    steps: Annotated[int, typer.Option(help="training steps of each run", min=2)] = 500,
    seeds: Annotated[int, typer.Option(help="runs of each digit mode", min=1)] = 3,
    lengths: Annotated[int, typer.Option(help="longest operand, in digits", min=1, max=6)] = 6,
    tests: Annotated[int, typer.Option(help="test problems of each operation and length", min=1)] = 40,
    as_json: JsonOption = False,
) -> None:
    """Train one small decoder on arithmetic with each digit mode, and say whether the mode matters."""
    from caslon.observe.console import ConsoleDisplay
    from caslon.observe.events import EventLog
    from caslon.train.digits import DigitsSettings, run_digits
    from caslon.train.digits_report import write_digits_report

    settings = DigitsSettings(steps=steps, seeds=seeds, lengths=lengths, tests_per_cell=tests)
    with ConsoleDisplay() as display, EventLog(None, (display,)) as events:
        numbers = run_digits(out, settings, events=events)
    found = write_digits_report(out, numbers)
    if as_json:
        print_json(json.loads(json.dumps(found)))
        return
    overall = {cell["mode"]: cell for cell in found["cells"] if cell["operation"] == "all"}
    columns = ("digits", "exact answers", "from", "to", "tokens per problem", "parameters")
    rows = [
        (row["mode"], *(f"{value:.3f}" for value in (overall[row["mode"]]["share"], *overall[row["mode"]]["interval"])),
         f"{row['tokens_per_problem']:.2f}", f"{row['parameters']:,}")
        for row in found["modes"]
    ]  # fmt: skip
    print_table(columns, rows)
    say(found["conclusion"])
    say(f"written: {out / 'report.html'}")
