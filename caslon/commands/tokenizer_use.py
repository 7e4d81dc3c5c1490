"""Commands that use a tokenizer: inspect, count, chat, tokens."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from caslon.commands.output import JsonOption, figure, print_json, print_table, say
from caslon.commands.tokenizer import FolderArgument, TextArgument, app
from caslon.errors import CaslonError, UserError

if TYPE_CHECKING:
    from caslon.folders import StageFolder
    from caslon.tokenizer.encode import TokenFiles
    from caslon.tokenizer.inspect import Count, Inspection
    from caslon.tokenizer.tokenizer import Tokenizer

# Figures of the published pipeline, to set ours beside: two bytes an id.
REFERENCE = "the published London run: 126 MB of ids for about 270 million characters, 0.233 tokens per character"
COLOURS = ("on dark_green", "on dark_blue", "on dark_magenta", "on dark_cyan", "on dark_red", "on grey30")


@app.command()
def inspect(
    folder: FolderArgument,
    text: TextArgument = "-",
    beside: Annotated[list[Path] | None, typer.Option("--beside", help="another tokenizer folder to show too")] = None,
    allow_special: Annotated[bool, typer.Option("--allow-special", help="let special spellings be special")] = False,
    html: Annotated[Path | None, typer.Option("--html", help="write the cuts as one HTML page")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show how a text is cut, by one tokenizer or several side by side: every token with its id and bytes."""
    from caslon.tokenizer.compare import entrants
    from caslon.tokenizer.inspect import inspect_text, write_inspection

    found = entrants([folder, *(beside or [])])
    for entrant in found:
        if entrant.tokenizer is None:
            raise UserError(entrant.missing, where=str(entrant.path), fix="give tokenizer, model or stage folders")
    tokenizers = {entrant.name: entrant.tokenizer for entrant in found if entrant.tokenizer is not None}
    inspections = inspect_text(tokenizers, _given(text), allow_special=allow_special)
    if html:
        write_inspection(html, inspections)
        say(f"written: {html}")
    elif as_json:
        shown = [inspection.to_json() for inspection in inspections]
        print_json(shown[0]["pieces"] if len(shown) == 1 else shown)
    else:
        _print_inspections(inspections)


def _print_inspections(inspections: "Sequence[Inspection]") -> None:
    from itertools import zip_longest

    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for found in inspections:
        counts = found.figures()
        names = ("tokens", "special", "characters", "bytes", "words")
        console.print(f"{found.name}: " + ", ".join(f"{counts[name]:,} {name}" for name in names), markup=False)
        line = Text()
        for number, piece in enumerate(found.pieces):
            style = "reverse bold" if piece.special else COLOURS[number % len(COLOURS)]
            line.append(piece.shown.replace("⏎", "⏎\n"), style=style)
            line.append("" if console.is_terminal else "│")
        console.print(line)
    columns = ["place", *(name for found in inspections for name in _columns(found, len(inspections) > 1))]
    rows = zip_longest(*(found.pieces for found in inspections))
    print_table(
        columns, ([place, *(cell for piece in row for cell in _cells(piece))] for place, row in enumerate(rows))
    )


def _columns(found: "Inspection", is_named: bool) -> list[str]:
    return [f"{found.name} id" if is_named else "id", "token", "bytes"]


def _cells(piece: Any) -> list[object]:
    if piece is None:
        return ["", "", ""]
    return [piece.id, f"{piece.shown} (special)" if piece.special else piece.shown, piece.bytes.hex(" ")]


@app.command()
def count(
    folder: FolderArgument,
    text: TextArgument = "-",
    files: Annotated[
        list[Path] | None, typer.Option("--file", help="count this file instead: text, JSONL, Parquet")
    ] = None,
    tools: Annotated[
        Path | None, typer.Option("--tools", help="a JSON list of tools the conversation may call")
    ] = None,
    prompt: Annotated[
        bool, typer.Option("--prompt", help="with the opening of the answer, as a server counts")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Count what a model would get: a text, files, or a conversation (a JSON list of messages, template included)."""
    from caslon.tokenizer.inspect import count_text

    tokenizer = _tokenizer(folder)
    if files:
        _count_files(tokenizer, files, prompt, as_json)
        return
    given = _given(text)
    messages = _messages(given)
    if messages is None:
        found = _count_json(count_text(tokenizer, given))
    else:
        found = {"messages": len(messages), "tokens": _chat_tokens(tokenizer, messages, prompt, _tools(tools))}
    print_json(found) if as_json else say(str(found["tokens"]))


def _count_files(tokenizer: "Tokenizer", files: Sequence[Path], prompt: bool, as_json: bool) -> None:
    rows = [{"file": str(path), **_count_file(tokenizer, path, prompt)} for path in files]
    if as_json:
        print_json(rows)
        return
    print_table(list(rows[0]), ([figure(value) for value in row.values()] for row in rows))


def _count_file(tokenizer: "Tokenizer", path: Path, prompt: bool) -> dict[str, Any]:
    from caslon.tokenizer.chat_files import read_conversations
    from caslon.tokenizer.inspect import NOTHING, count_text
    from caslon.tokenizer.texts import texts_of_files

    if _holds_conversations(path):
        lengths = [
            _chat_tokens(tokenizer, record["messages"], prompt, record.get("tools"))
            for _, record in read_conversations([path])
        ]
        return {"tokens": sum(lengths), "rows": len(lengths), "longest": max(lengths, default=0)}
    return _count_json(sum((count_text(tokenizer, text) for text in texts_of_files([path])), NOTHING))


def _holds_conversations(path: Path) -> bool:
    if path.suffix != ".jsonl" or not path.is_file():
        return False
    with path.open(encoding="utf-8") as lines:
        first = next((line for line in lines if line.strip()), "{}")
    try:
        return "messages" in json.loads(first)
    except (ValueError, TypeError):
        return False


def _count_json(found: "Count") -> dict[str, Any]:
    return {"tokens": found.tokens, "characters": found.characters, "bytes": found.bytes, "words": found.words}


def _chat_tokens(
    tokenizer: "Tokenizer",
    messages: Sequence[Mapping[str, Any]],
    prompt: bool,
    tools: Sequence[Mapping[str, Any]] | None,
) -> int:
    from caslon.tokenizer.inspect import count_chat

    return count_chat(tokenizer, messages, add_generation_prompt=prompt, tools=tools)


@app.command()
def chat(
    folder: FolderArgument,
    messages: Annotated[str, typer.Argument(help="a JSON list of messages; - reads standard input")] = "-",
    tools: Annotated[Path | None, typer.Option("--tools", help="a JSON list of tools")] = None,
    prompt: Annotated[bool, typer.Option("--prompt", help="open the assistant's turn at the end")] = False,
    drop_earlier_thinking: Annotated[
        bool, typer.Option("--drop-earlier-thinking", help="leave out reasoning before the last user message")
    ] = False,
    context: Annotated[int | None, typer.Option(help="refuse a conversation of more tokens", min=1)] = None,
    as_json: JsonOption = False,
) -> None:
    """Show a conversation as the model gets it: text, ids, what is learned, and where each message lies."""
    from caslon.tokenizer.chat import encode_chat

    tokenizer = _tokenizer(folder)
    given = _messages(_given(messages))
    if given is None:
        raise UserError("this is no conversation", fix='give a JSON list: [{"role": "user", "content": "..."}]')
    found = encode_chat(
        tokenizer,
        given,
        add_generation_prompt=prompt,
        tools=_tools(tools),
        drop_earlier_thinking=drop_earlier_thinking,
        context=context,
    )
    text = tokenizer.decode(found.ids)
    if as_json:
        print_json({"text": text, "ids": found.ids, "assistant_mask": found.assistant_mask, "ranges": found.ranges})
        return
    say(text)
    rows = [
        (number, message["role"], f"{start}-{end}", sum(found.assistant_mask[start:end]))
        for number, (message, (start, end)) in enumerate(zip(given, found.ranges, strict=False))
    ]
    print_table(("message", "role", "ids", "learned"), rows)
    say(f"{len(found.ids):,} tokens, {sum(found.assistant_mask):,} of them learned")


@app.command()
def tokens(
    folder: FolderArgument,
    sources: Annotated[list[Path], typer.Argument(help="a corpus folder, or files of conversations (.jsonl)")],
    out: Annotated[Path, typer.Option("--out", help="the folder for the token files")],
    unit: Annotated[Literal["document", "segment"], typer.Option(help="what the end-of-text id closes")] = "document",
    workers: Annotated[int, typer.Option(help="processes that encode; 0: one for each core", min=0)] = 0,
    context: Annotated[int, typer.Option(help="conversations: longest row, in tokens", min=1)] = 1_024,
    check: Annotated[bool, typer.Option("--check", help="decode everything and compare it with the corpus")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a corpus, or conversations, as token files. A call that was killed goes on; finished files are kept."""
    tokenizer = _tokenizer(folder)
    if all(source.suffix == ".jsonl" for source in sources):
        _write_chat(tokenizer, sources, out, context, as_json)
        return
    if len(sources) > 1:
        raise UserError("give one corpus folder, or files of conversations that end in .jsonl")
    _write_corpus(tokenizer, sources[0], out, unit, workers, check, as_json)


def _write_corpus(
    tokenizer: "Tokenizer", corpus: Path, out: Path, unit: str, workers: int, check: bool, as_json: bool
) -> None:
    from dataclasses import asdict

    from caslon.corpus.workers import available_cores
    from caslon.folders import StageFolder
    from caslon.tokenizer.encode import check_token_files, write_token_files

    stage = StageFolder.open(corpus)
    dataset = str(stage.manifest.totals.get("dataset_id") or stage.digest)
    read = _reader(corpus, unit)
    files = write_token_files(
        out, tokenizer, read, dataset_id=dataset, unit=unit, workers=workers or available_cores(), progress=_progress
    )
    _check_totals(files, stage)
    checked = check_token_files(out, tokenizer, read) if check else None
    if as_json:
        print_json({**asdict(files), "units_checked": checked})
        return
    columns = ("split", "tokens", "documents", "characters", "bytes of text", "tokens per character", "files")
    print_table(
        columns,
        (
            [
                name,
                *map(figure, (s.tokens, s.documents, s.characters, s.text_bytes)),
                _rate(s.tokens, s.characters),
                len(s.files),
            ]
            for name, s in files.splits.items()
        ),
    )
    width = 2 if files.id_type == "uint16" else 4
    count, characters = files.total("tokens"), files.total("characters")
    say(
        f"{count * width / 1e6:,.1f} MB of ids for {characters / 1e6:,.1f} million characters, "
        f"{_rate(count, characters)} tokens per character; {REFERENCE}"
    )
    if checked is not None:
        say(f"every one of {checked:,} {unit}s decodes to its text")


def _rate(count: int, characters: int) -> str:
    return f"{count / characters:.4f}" if characters else "-"


def _check_totals(files: "TokenFiles", stage: "StageFolder") -> None:
    """Raise `CaslonError` when the corpus says it holds another number of documents or characters than was read."""
    names = ("documents", "characters", "text_bytes") if files.unit == "document" else ()
    for split, totals in stage.manifest.totals.get("splits", {}).items():
        for name in names:
            found = getattr(files.splits[split], name)
            if name in totals and found != totals[name]:
                raise CaslonError(
                    f"'{split}' holds {found:,} {name}, its manifest says {totals[name]:,}",
                    where=str(stage.path),
                    fix="check the corpus folder: caslon corpus verify",
                )


def _reader(corpus: Path, unit: str) -> Callable[[str], Iterable[tuple[str, str]]]:
    from caslon.corpus.shards import read_segments, read_texts

    if unit == "segment":
        return lambda split: ((segment.id, segment.text) for segment in read_segments(corpus, split))
    return lambda split: read_texts(corpus, split)


def _write_chat(tokenizer: "Tokenizer", paths: Sequence[Path], out: Path, context: int, as_json: bool) -> None:
    from dataclasses import asdict

    from caslon.tokenizer.chat_files import read_conversations, write_chat_files

    files = write_chat_files(out, tokenizer, read_conversations(paths), context=context)
    if as_json:
        print_json(asdict(files))
        return
    say(f"{files.rows:,} rows, {files.tokens:,} tokens, {files.learned_tokens:,} of them learned")
    for row in files.too_long:
        say(f"left out: {row.row} has {row.tokens:,} tokens, the context {files.context:,}")


def _progress(split: str, characters: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{split}: {characters:,} characters")
        sys.stderr.flush()


def _tokenizer(folder: Path) -> "Tokenizer":
    from caslon.tokenizer.tokenizer import Tokenizer

    return Tokenizer.load(folder)


def _given(text: str) -> str:
    return sys.stdin.read() if text == "-" else text


def _messages(text: str) -> list[dict[str, Any]] | None:
    """Return a conversation, or None for any other text."""
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return None
    is_conversation = isinstance(found, list) and all(isinstance(item, dict) and "role" in item for item in found)
    return found if is_conversation else None


def _tools(path: Path | None) -> list[dict[str, Any]] | None:
    if path is None:
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"the tools cannot be read: {error}", where=str(path)) from error
    if not isinstance(found, list):
        raise UserError("tools are a JSON list", where=str(path))
    return found
