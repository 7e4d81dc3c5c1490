"""Commands about tokenizers: train, test, inspect, encode, decode, count."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from caslon.commands.output import JsonOption, group, print_json, print_table, say
from caslon.errors import UserError

if TYPE_CHECKING:
    from caslon.tokenizer.tokenizer import Tokenizer

app = group(no_args_is_help=True, help="Look at a tokenizer and use it.")

FolderArgument = Annotated[Path, typer.Argument(help="a tokenizer, model or stage folder", metavar="FOLDER")]
FilesArgument = Annotated[list[Path], typer.Argument(help="files of text", metavar="FILES")]
TextArgument = Annotated[str, typer.Argument(help="the text; - reads standard input", metavar="TEXT")]


@app.command()
def encode(folder: FolderArgument, text: TextArgument = "-", as_json: JsonOption = False) -> None:
    """Print the token ids of a text."""
    ids = _tokenizer(folder).encode(_given(text))
    print_json(ids) if as_json else say(" ".join(map(str, ids)))


@app.command()
def decode(
    folder: FolderArgument,
    ids: Annotated[str, typer.Argument(help="ids with spaces between, or a JSON list; - reads standard input")] = "-",
    as_json: JsonOption = False,
) -> None:
    """Print the text of token ids."""
    given = _given(ids)
    try:
        numbers = json.loads(given) if given.lstrip().startswith("[") else [int(part) for part in given.split()]
    except ValueError as error:
        raise UserError(f"ids are whole numbers: {error}", fix='give them as "17 42 7" or [17, 42, 7]') from error
    text = _tokenizer(folder).decode(numbers)
    print_json({"text": text}) if as_json else sys.stdout.write(text)


@app.command()
def count(folder: FolderArgument, text: TextArgument = "-", as_json: JsonOption = False) -> None:
    """Count the tokens of a text, or of a conversation given as a JSON list of messages."""
    given, tokenizer = _given(text), _tokenizer(folder)
    messages = _messages(given)
    ids = tokenizer.encode(given) if messages is None else tokenizer.encode_chat(messages).ids
    found = {"tokens": len(ids), "characters": len(given), "bytes": len(given.encode())}
    print_json(found) if as_json else say(str(found["tokens"]))


@app.command()
def train(
    files: FilesArgument,
    out: Annotated[Path, typer.Option("--out", help="the folder to write; must not exist")],
    vocab_size: Annotated[int, typer.Option(help="entries, special tokens and bytes included")] = 30_000,
    min_frequency: Annotated[int, typer.Option(help="least occurrences of a learned entry")] = 2,
) -> None:
    """Train a tokenizer on files of text (.txt, .jsonl or .parquet with a text column), outside any recipe."""
    from caslon.tokenizer.texts import texts_of_files
    from caslon.tokenizer.train import train_tokenizer

    if out.exists():
        raise UserError(f"{out} exists already", fix="choose another folder, or remove it")
    made = train_tokenizer(texts_of_files(files), vocab_size=vocab_size, min_frequency=min_frequency, warn=_warn)
    made.save(out)
    say(f"{out}  {made.vocab_size:,} entries")


@app.command()
def test(folder: FolderArgument, files: FilesArgument, as_json: JsonOption = False) -> None:
    """Test the exact round trip and the fit on held-out files; exit 1 when a text does not come back."""
    from caslon.tokenizer.examine import examine
    from caslon.tokenizer.report import report_numbers
    from caslon.tokenizer.texts import texts_of_files

    tokenizer = _tokenizer(folder)
    found = examine(tokenizer, texts_of_files(files))
    if as_json:
        print_json(report_numbers(tokenizer, found))
    else:
        for failure in (*found.failures, *found.disagreements):
            say(f"differs at character {failure.position}: {failure.text!r} came back as {failure.decoded!r}")
        fit = found.held_out
        say(
            f"{'passed' if found.passed else 'FAILED'}: {fit.tokens_per_character:.4f} tokens per character, "
            f"{fit.bytes_per_token:.3f} bytes per token, {fit.tokens_per_word:.3f} tokens per word"
        )
    if not found.passed:
        raise typer.Exit(1)


@app.command()
def inspect(folder: FolderArgument, text: TextArgument = "-", as_json: JsonOption = False) -> None:
    """Show how a text is cut: every token with its id, its bytes and its place."""
    from caslon.tokenizer.inspect import pieces

    found = pieces(_tokenizer(folder), _given(text))
    if as_json:
        print_json([piece.to_json() for piece in found])
        return
    print_table(("id", "text", "bytes"), [(piece.id, piece.shown, piece.bytes.hex(" ")) for piece in found])


def _warn(text: str) -> None:
    sys.stderr.write(f"warning: {text}\n")


def _tokenizer(folder: Path) -> "Tokenizer":
    from caslon.tokenizer.tokenizer import Tokenizer

    return Tokenizer.load(folder)


def _given(text: str) -> str:
    return sys.stdin.read() if text == "-" else text


def _messages(text: str) -> list[dict[str, str]] | None:
    if not text.lstrip().startswith("[{"):
        return None
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, list) else None
