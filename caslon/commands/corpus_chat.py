"""Commands about chat data: import, validate, export."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from caslon.commands.output import JsonOption, figure, group, print_json, print_table, say
from caslon.errors import UserError

if TYPE_CHECKING:
    from caslon.corpus.chat.record import Rejected, Row

app = group(no_args_is_help=True, help="Bring chat data into one form, check it, and write it in any other.")

SHOWN = 20
FilesArgument = Annotated[list[Path], typer.Argument(help="files of chat data", metavar="FILES")]
RowsArgument = Annotated[
    Path, typer.Argument(help="canonical rows (JSON Lines), or a file of any other form", metavar="FILE")
]
OutOption = Annotated[Path, typer.Option("--out", help="the file to write")]


@app.command("import")
def import_(
    files: FilesArgument,
    out: OutOption,
    format_: Annotated[
        str, typer.Option("--format", help="alpaca, sharegpt, openai, completion, preference, slack, text or auto")
    ] = "auto",
    source: Annotated[str, typer.Option(help="written into rows that name no source; else the file's name")] = "",
    licence: Annotated[str, typer.Option(help="written into rows that name no licence")] = "",
    author: Annotated[
        list[str], typer.Option(help="slack: a person who consented, by user id or name (repeatable)")
    ] = [],  # noqa: B006  typer copies it
    persona: Annotated[str, typer.Option(help="slack: the author who answers; else each author in turn")] = "",
    mask: Annotated[
        bool | None, typer.Option("--mask/--no-mask", help="placeholders for personal data; slack: on by default")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read chat data of any form and write canonical rows, ready for training."""
    from caslon.corpus.chat.masking import masked_rows
    from caslon.corpus.chat.record import Rejected, write_rows
    from caslon.corpus.settings import PrivacySettings

    slack = format_ == "slack" or (format_ == "auto" and all(_is_slack(path) for path in files))
    left_out: Counter[str] = Counter()
    found: Counter[str] = Counter()
    rejected: list[Rejected] = []
    rows: list[Row] = []
    for path in files:
        items = (
            _slack_rows(path, author, persona, source, licence, left_out)
            if slack
            else _rows(path, format_, source, licence)
        )
        if slack if mask is None else mask:
            items = masked_rows(items, PrivacySettings(), found)
        for item in items:
            (rejected if isinstance(item, Rejected) else rows).append(item)  # type: ignore[arg-type]
    if not rows:
        raise UserError(
            "there are no rows" + (f": {rejected[0].reason}" if rejected else ""),
            where=", ".join(map(str, files)),
            fix="check the file and --format",
        )
    write_rows(out, rows)
    summary = {
        "rows": len(rows),
        "rejected": _rejects_json(rejected),
        "messages_left_out": dict(left_out),
        "personal_data": dict(found),
        "out": str(out),
    }
    print_json(summary) if as_json else _print_import(summary, rejected)


@app.command()
def validate(
    file: RowsArgument,
    out: Annotated[Path | None, typer.Option(help="write the good rows here")] = None,
    rejects: Annotated[Path | None, typer.Option(help="write row numbers and reasons of the others here")] = None,
    splits: Annotated[
        Path | None, typer.Option(help="write train.jsonl, validation.jsonl, test.jsonl into this folder")
    ] = None,
    shares: Annotated[str, typer.Option(help="shares of the three splits")] = "0.90,0.05,0.05",
    seed: Annotated[int, typer.Option(help="of the split")] = 1,
    merge_turns: Annotated[bool, typer.Option("--merge-turns", help="join user turns that follow each other")] = False,
    max_characters: Annotated[int, typer.Option(help="longer rows are rejected; 0: no limit", min=0)] = 0,
    max_tokens: Annotated[int, typer.Option(help="the same in tokens; needs --tokenizer", min=0)] = 0,
    tokenizer: Annotated[Path | None, typer.Option(help="a tokenizer, model or stage folder")] = None,
    evaluation: Annotated[
        list[Path], typer.Option(help="a file of evaluation items that no row may hold (repeatable)")
    ] = [],  # noqa: B006  typer copies it
    near: Annotated[
        float, typer.Option(help="Jaccard similarity of a near copy; 0: exact copies only", min=0, max=1)
    ] = 0.8,
    speech_acts: Annotated[bool, typer.Option("--speech-acts", help="count seven speech acts, by rules")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check every row and say what is wrong by row number; exit 1 when rows are rejected and --out is not given."""
    from caslon.corpus.chat.record import Rejected, write_rows
    from caslon.corpus.chat.split import split_rows
    from caslon.corpus.chat.statistics import statistics
    from caslon.corpus.chat.validate import EvaluationItems, Rules, Validation
    from caslon.corpus.chat.validate import validate as validated
    from caslon.corpus.settings import NearDuplicateSettings

    if max_tokens and max_characters:
        raise UserError("a limit in tokens and one in characters", fix="give one of --max-tokens and --max-characters")
    length: dict[str, Any] = {"maximum": max_characters}
    if max_tokens:
        length = {"maximum": max_tokens, "unit": "tokens", "length": _token_counter(tokenizer)}
    settings = NearDuplicateSettings(jaccard=near) if near else NearDuplicateSettings(enabled=False)
    rules = Rules(
        merge_turns=merge_turns,
        near_duplicates=settings,
        evaluation=EvaluationItems.load(evaluation) if evaluation else EvaluationItems(),
        **length,
    )
    unread: list[Rejected] = []
    result: Validation = validated(_numbered(file, unread), rules)
    rejected = sorted([*unread, *result.rejected], key=lambda one: one.row)
    if out:
        write_rows(out, result.rows)
    if rejects:
        write_rows(rejects, _rejects_json(rejected))
    divided = {}
    if splits:
        for name, rows in split_rows(result.rows, _shares(shares), seed).items():
            divided[name] = write_rows(splits / f"{name}.jsonl", rows)
    figures = statistics(result.rows, speech_acts=speech_acts)
    summary = {
        "rows": len(result.rows),
        "rejected": _rejects_json(rejected),
        "merged_turns": result.merged_turns,
        "splits": divided,
        "statistics": figures,
    }
    print_json(summary) if as_json else _print_validation(summary, rejected)
    if rejected and not out and not splits:
        raise typer.Exit(1)


@app.command()
def export(
    file: RowsArgument,
    out: OutOption,
    format_: Annotated[
        str, typer.Option("--format", help="alpaca, sharegpt, openai, completion, preference, slack, text or canonical")
    ],
    as_json: JsonOption = False,
) -> None:
    """Write canonical rows in another form; rows that it cannot hold are named and left out."""
    from caslon.corpus.chat.forms import export_rows
    from caslon.corpus.chat.record import Rejected

    unread: list[Rejected] = []
    numbers, rows = [], []
    for number, row in _numbered(file, unread):
        numbers.append(number)
        rows.append(row)
    done = export_rows(rows, out, format_)
    left_out = sorted(
        [*unread, *(Rejected(numbers[one.row - 1], one.reason, one.id) for one in done.left_out)],
        key=lambda one: one.row,
    )
    if as_json:
        lost = dict(done.lost_fields)
        print_json({"rows": done.rows, "left_out": _rejects_json(left_out), "lost_fields": lost, "out": str(out)})
        return
    say(f"{done.rows:,} rows written to {out} as {format_}")
    for name, count in sorted(done.lost_fields.items()):
        say(f"  '{name}' has no place in this form: left out of {count:,} rows")
    _print_rejects(left_out, "left out")


def _rows(path: Path, form: str, source: str, licence: str) -> Iterator["Row | Rejected"]:
    from caslon.corpus.chat.forms import import_rows

    return import_rows(path, form, source=source, licence=licence)


def _slack_rows(
    path: Path, authors: list[str], persona: str, source: str, licence: str, left_out: Counter[str]
) -> Iterator["Row | Rejected"]:
    from caslon.corpus.chat.slack import persona_rows, read_export

    if persona and persona not in authors:
        raise UserError(f"{persona} is not on the list of consent", fix=f"add --author {persona} when they agreed")
    export = read_export(path, authors)
    left_out.update(export.left_out)
    for name in [persona] if persona else authors:
        yield from persona_rows(export, name, source=source or path.name, licence=licence)


def _is_slack(path: Path) -> bool:
    return path.is_dir() or path.suffix == ".zip"


def _numbered(file: Path, unread: list["Rejected"]) -> Iterator[tuple[int, "Row"]]:
    """Yield the rows of a file with their numbers; records of no form go to `unread`."""
    from caslon.corpus.chat.record import Rejected

    for number, item in enumerate(_rows(file, "auto", "", ""), start=1):
        if isinstance(item, Rejected):
            unread.append(item)
        else:
            yield number, item


def _token_counter(tokenizer: Path | None) -> Callable[["Row"], int]:
    if tokenizer is None:
        raise UserError("a limit in tokens needs a tokenizer", fix="give --tokenizer FOLDER")
    from caslon.corpus.chat.record import all_messages
    from caslon.tokenizer.tokenizer import Tokenizer

    loaded = Tokenizer.load(tokenizer)

    def count(row: "Row") -> int:
        if "messages" not in row:
            return sum(len(loaded.encode(str(message.get("content") or ""))) for message in all_messages(row))
        return len(loaded.encode_chat(row["messages"], tools=row.get("tools") or None).ids)

    return count


def _shares(text: str) -> tuple[float, float, float]:
    try:
        first, second, third = (float(part) for part in text.replace(",", " ").split())
    except ValueError as error:
        raise UserError(f"'{text}' are not three shares", fix="--shares 0.90,0.05,0.05") from error
    if min(first, second, third) < 0 or abs(first + second + third - 1) > 1e-9:
        raise UserError("the shares do not add up to 1", where="--shares", fix="--shares 0.90,0.05,0.05")
    return first, second, third


def _rejects_json(rejected: list["Rejected"]) -> list[dict[str, Any]]:
    return [{"row": one.row, "id": one.id, "reason": one.reason} for one in rejected]


def _print_rejects(rejected: list["Rejected"], word: str) -> None:
    if rejected:
        say(f"{len(rejected):,} {word}:")
        for one in rejected[:SHOWN]:
            say(f"  row {one.row}: {one.reason}")
        if len(rejected) > SHOWN:
            say(f"  ... and {len(rejected) - SHOWN:,} more (--json gives all)")


def _print_import(summary: dict[str, Any], rejected: list["Rejected"]) -> None:
    say(f"{summary['rows']:,} rows written to {summary['out']}")
    for reason, count in sorted(summary["messages_left_out"].items()):
        say(f"  {count:,} messages left out: {reason}")
    for kind, count in sorted(summary["personal_data"].items()):
        say(f"  {count:,} found: {kind}")
    _print_rejects(rejected, "rejected")


def _print_validation(summary: dict[str, Any], rejected: list["Rejected"]) -> None:
    figures = summary["statistics"]
    say(
        f"{summary['rows']:,} good rows"
        + (f", {summary['merged_turns']} turns merged" if summary["merged_turns"] else "")
    )
    if summary["rows"]:
        rows = [("user turns of a row", figures["user_turns"])]
        rows += [(f"characters of {role}", values) for role, values in figures["characters"].items() if values]
        columns = ("count", "mean", "median", "p95", "maximum", "sum")
        print_table(("", *columns), [(name, *(figure(values[column]) for column in columns)) for name, values in rows])
        languages = ", ".join(f"{code} {count:,}" for code, count in list(figures["languages"].items())[:8])
        say(f"languages  {languages}")
    for role, counts in figures.get("speech_acts", {}).items():
        if role != "method":
            say(f"{role} acts (by rules)  " + ", ".join(f"{name} {count:,}" for name, count in counts.items() if count))
    if summary["splits"]:
        say("splits  " + ", ".join(f"{name} {count:,}" for name, count in summary["splits"].items()))
    _print_rejects(rejected, "rejected")
