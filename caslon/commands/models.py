"""Commands about models: generate, chat."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from caslon.commands.output import JsonOption, group
from caslon.errors import UserError

app = group()

ModelArgument = Annotated[str, typer.Argument(help="a model, stage or run folder, or a server's URL", metavar="MODEL")]
KeyOption = Annotated[
    str | None, typer.Option("--api-key", envvar="CASLON_API_KEY", help="key of the server at the URL")
]
NameOption = Annotated[str | None, typer.Option("--model-name", help="which of the server's models")]
MaxTokens = Annotated[int | None, typer.Option(help="most new tokens")]
MinTokens = Annotated[int | None, typer.Option(help="least new tokens")]
Temperature = Annotated[float | None, typer.Option(help="0 = always the likeliest token")]
TopK = Annotated[int | None, typer.Option(help="sample from the k likeliest tokens; 0 = off")]
TopP = Annotated[float | None, typer.Option(help="sample from the smallest set with this much probability")]
MinP = Annotated[float | None, typer.Option(help="drop tokens below this share of the likeliest one's probability")]
RepetitionPenalty = Annotated[float | None, typer.Option(help="above 1 makes repeats rarer")]
PresencePenalty = Annotated[float | None, typer.Option(help="taken once from tokens already written")]
FrequencyPenalty = Annotated[float | None, typer.Option(help="taken per earlier use of a token")]
Weights = Annotated[str, typer.Option(help="auto (as stored), or made at load: int8, int4, nf4")]
NumberFormat = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16 (GPU only)")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")]
Seed = Annotated[int | None, typer.Option(help="same seed, same answer")]


@app.command()
def generate(
    model: ModelArgument,
    prompt: Annotated[
        str, typer.Option("--prompt", "-p", help="the text to continue; @FILE reads a file, - standard input")
    ],
    max_tokens: MaxTokens = 128,
    min_tokens: MinTokens = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    presence_penalty: PresencePenalty = None,
    frequency_penalty: FrequencyPenalty = None,
    seed: Seed = None,
    model_name: NameOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Continue a text. JSON lines with a "prompt" on standard input (`--prompt -`) give one answer each."""
    params = _given(locals())
    from caslon.ui import terminal

    terminal.generate(_model(model), _prompts(prompt), params, json=as_json, api_key=api_key, model_name=model_name)


@app.command()
def chat(
    model: ModelArgument,
    system: Annotated[str | None, typer.Option(help="how the model shall behave")] = None,
    max_tokens: MaxTokens = None,
    min_tokens: MinTokens = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    presence_penalty: PresencePenalty = None,
    frequency_penalty: FrequencyPenalty = None,
    seed: Seed = None,
    model_name: NameOption = None,
    api_key: KeyOption = None,
) -> None:
    """Talk with a model in the terminal. Ctrl-C stops an answer, /help lists the commands."""
    params = _given(locals())
    from caslon.ui import terminal

    terminal.chat(_model(model), params, system=system, api_key=api_key, model_name=model_name)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """Return the sampling parameters that were given; the others are the model's or the API's defaults."""
    from caslon.ui.terminal import PARAMETERS

    return {name: values[name] for name in PARAMETERS if values.get(name) is not None}


def _model(model: str) -> str:
    from caslon.run_list import model_folder_of

    return model if model.startswith(("http://", "https://")) else str(model_folder_of(Path(model)))


def _prompts(prompt: str) -> list[str]:
    if prompt.startswith("@"):
        file = Path(prompt[1:])
        if not file.is_file():
            raise UserError(f"no file {file}", where="--prompt", fix="write the text itself, or @FILE")
        return [file.read_text(encoding="utf-8")]
    if prompt != "-":
        return [prompt]
    text = sys.stdin.read()
    lines = text.splitlines()
    if not lines or not all(line.startswith("{") for line in lines):
        return [text]
    return [_prompt_of(line, number) for number, line in enumerate(lines, start=1)]


def _prompt_of(line: str, number: int) -> str:
    try:
        return str(json.loads(line)["prompt"])
    except (ValueError, KeyError) as error:
        raise UserError('each line is a JSON object with a "prompt"', where=f"standard input, line {number}") from error
