"""Commands about models: generate, chat."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from caslon.commands.output import JsonOption, group
from caslon.commands.sampling_flags import with_sampling
from caslon.errors import UserError

app = group()

ModelArgument = Annotated[str, typer.Argument(help="a model, stage or run folder, or a server's URL", metavar="MODEL")]
KeyOption = Annotated[
    str | None, typer.Option("--api-key", envvar="CASLON_API_KEY", help="key of the server at the URL")
]
NameOption = Annotated[str | None, typer.Option("--model-name", help="which of the server's models")]
Weights = Annotated[str, typer.Option(help="auto (as stored), or made at load: int8, int4, nf4")]
NumberFormat = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16 (GPU only)")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")]
SpeculateOption = Annotated[
    str, typer.Option(help="guess tokens ahead, which changes no answer: off, ngram or draft:FOLDER")
]
KvFormat = Annotated[str, typer.Option("--kv-dtype", help="how the cache keeps keys and values: auto, int8 or int4")]
Retention = Annotated[str, typer.Option(help="tokens the cache keeps: full, window:N or heavy_hitter:N")]


@app.command()
@with_sampling
def generate(
    model: ModelArgument,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="the text to continue; @FILE reads a file, - standard input")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="a file of prompts: JSON lines with a prompt, or texts")] = None,
    grid: Annotated[list[str], typer.Option(help="NAME=VALUE,VALUE: write a table of all settings (repeatable)")] = [],  # noqa: B006  typer copies it
    output: Annotated[Path, typer.Option(help="where the table goes: FILE.html, and FILE.json beside it")] = Path(
        "grid.html"
    ),
    params: dict[str, Any] = {},  # noqa: B006
    stats: Annotated[bool, typer.Option(help="say what the model is and how fast each answer came")] = False,
    speculate: SpeculateOption = "off",
    weights: Weights = "auto",
    dtype: NumberFormat = "auto",
    device: Device = "auto",
    model_name: NameOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Continue a text. JSON lines with a "prompt" on standard input (`--prompt -`) give one answer each.

    Without a prompt, in a terminal, each line typed is one. `--prompts FILE --grid temperature=0.2,1` compares settings.
    """
    from caslon.ui import generation

    params = {"max_tokens": 128, **params}
    engine = {"speculate": speculate, "weights": weights, "dtype": dtype, "device": device}
    opened = generation.Opened(model_or_url(model), api_key, model_name, engine)
    if grid:
        generation.write_grid(opened, _file_prompts(prompts, prompt), params, grid, output)
        return
    texts = _file_prompts(prompts, prompt) if prompts or prompt is not None else None
    generation.generate(opened, texts, params, json=as_json, stats=stats)


@app.command()
@with_sampling
def chat(
    model: ModelArgument,
    system: Annotated[str | None, typer.Option(help="how the model shall behave")] = None,
    params: dict[str, Any] = {},  # noqa: B006
    speculate: SpeculateOption = "off",
    weights: Weights = "auto",
    dtype: NumberFormat = "auto",
    device: Device = "auto",
    model_name: NameOption = None,
    api_key: KeyOption = None,
) -> None:
    """Talk with a model in the terminal. Ctrl-C stops an answer, /help lists the commands."""
    from caslon.ui import terminal

    engine = {"speculate": speculate, "weights": weights, "dtype": dtype, "device": device}
    terminal.chat(model_or_url(model), params, system=system, api_key=api_key, model_name=model_name, engine=engine)


def model_or_url(model: str) -> str:
    """Return the folder of a model, stage or run, or the URL as it is."""
    from caslon.run_list import model_folder_of

    return model if model.startswith(("http://", "https://")) else str(model_folder_of(Path(model)))


def _file_prompts(file: Path | None, prompt: str | None) -> list[str]:
    """Return the prompts of a file, or the one that was given."""
    if file is None:
        return _prompts("-" if prompt is None else prompt)
    if prompt is not None:
        raise UserError("--prompt and --prompts exclude each other", fix="give one of them")
    if not file.is_file():
        raise UserError(f"no file {file}", where="--prompts")
    return _lines(file.read_text(encoding="utf-8"), str(file)) or [""]


def _prompts(prompt: str) -> list[str]:
    if prompt.startswith("@"):
        file = Path(prompt[1:])
        if not file.is_file():
            raise UserError(f"no file {file}", where="--prompt", fix="write the text itself, or @FILE")
        return [file.read_text(encoding="utf-8")]
    if prompt != "-":
        return [prompt]
    text = sys.stdin.read()
    return _lines(text, "standard input") if text.lstrip().startswith("{") else [text]


def _lines(text: str, where: str) -> list[str]:
    """Return the prompt of each line: a JSON object's, where all are such objects, else the line."""
    lines = [line for line in text.split("\n") if line.strip()]
    if not all(line.startswith("{") for line in lines):
        return lines
    return [_prompt_of(line, f"{where}, line {number}") for number, line in enumerate(lines, start=1)]


def _prompt_of(line: str, where: str) -> str:
    try:
        return str(json.loads(line)["prompt"])
    except (ValueError, KeyError) as error:
        raise UserError('each line is a JSON object with a "prompt"', where=where) from error
