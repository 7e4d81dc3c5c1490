"""Commands about tokenizers: encode and decode. Training, inspecting, counting and comparing have modules of their own."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from caslon.commands import tokenizer_train
from caslon.commands.output import JsonOption, group, print_json, say
from caslon.errors import UserError

if TYPE_CHECKING:
    from caslon.tokenizer.tokenizer import Tokenizer

app = group(no_args_is_help=True, help="Look at a tokenizer and use it.")
app.command()(tokenizer_train.train)
app.command()(tokenizer_train.test)

FolderArgument = Annotated[Path, typer.Argument(help="a tokenizer, model or stage folder", metavar="FOLDER")]
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


def _tokenizer(folder: Path) -> "Tokenizer":
    from caslon.tokenizer.tokenizer import Tokenizer

    return Tokenizer.load(folder)


def _given(text: str) -> str:
    return sys.stdin.read() if text == "-" else text
