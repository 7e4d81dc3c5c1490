"""Commands about models: generate, chat, serve."""

import hashlib
import json
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from caslon.commands.output import JsonOption, group, print_json, say
from caslon.errors import UserError

if TYPE_CHECKING:
    from caslon.server.run import Ready

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


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="a model, stage or run folder", metavar="MODEL")] = "",
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 picks a free one")] = 8000,
    name: Annotated[str | None, typer.Option(help="the name clients ask for")] = None,
    page: Annotated[bool, typer.Option(help="the web page at /")] = True,
    api_key_sha256: Annotated[
        list[str], typer.Option(help="SHA-256 of a key that is let in (repeatable); caslon key makes one")
    ] = [],  # noqa: B006  typer copies it
    no_auth: Annotated[bool, typer.Option("--no-auth", help="listen beyond this machine without a key")] = False,
    max_running: Annotated[int, typer.Option(help="answers written at once")] = 16,
    max_queue: Annotated[int, typer.Option(help="answers that may wait")] = 64,
    weights: Weights = "auto",
    dtype: NumberFormat = "auto",
    device: Device = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads")] = None,
    simulate: Annotated[
        str | None, typer.Option(help="no model: answer with the times of a published row (MODEL/8x/PROFILE)")
    ] = None,
    simulate_speed: Annotated[float, typer.Option(min=0.001, help="how many times faster than the row")] = 1.0,
    simulate_fault: Annotated[
        list[str], typer.Option(help="short:5 = every fifth answer; also refused, stall, garbage (repeatable)")
    ] = [],  # noqa: B006  typer copies it
) -> None:
    """Serve a model behind an OpenAI-compatible API, with a web page, until Ctrl-C."""
    if not model and not simulate:
        raise UserError("no model to serve", fix="give a model folder: caslon serve runs/NAME/STAGE/model")
    from caslon.engine.settings import EngineSettings
    from caslon.server.run import serve as serve_folder
    from caslon.server.settings import ServerSettings
    from caslon.settings import checked

    settings = checked(
        ServerSettings, host=host, port=port, model_name=name, page=page, api_key_sha256=tuple(api_key_sha256),
        no_auth=no_auth, max_queue=max_queue,
    )  # fmt: skip
    if simulate is not None:
        from caslon.bench.simulation import parsed_faults, simulation_of
        from caslon.server.simulated_engine import serve_simulated

        simulation = simulation_of(simulate, speed=simulate_speed, faults=parsed_faults(simulate_fault))
        settings = settings.model_copy(update={"page": False})  # nobody talks with it
        serve_simulated(simulation, name or simulate, settings, on_ready=lambda ready: _say_ready(ready, False))
        return
    engine_settings = checked(
        EngineSettings, max_running=max_running, threads=threads, weights=weights, dtype=dtype, device=device
    )
    folder = Path(_model(model))
    serve_folder(folder, settings, engine_settings, on_ready=lambda ready: _say_ready(ready, page))


@app.command()
def key(as_json: JsonOption = False) -> None:
    """Make a new API key: print it once, and its SHA-256 for `caslon serve --api-key-sha256`."""
    made = f"sk-caslon-{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(made.encode()).hexdigest()
    print_json({"key": made, "sha256": digest}) if as_json else say(f"key      {made}\nsha-256  {digest}")


def _say_ready(ready: "Ready", page: bool) -> None:
    web = f"web page   {ready.url}/\n" if page else ""
    say(
        f"{web}API        {ready.url}/v1   (model {ready.model_name}, context {ready.context_tokens:,} tokens, "
        f"{'key needed' if ready.with_key else 'no key'}, ready in {ready.seconds:.1f} s)\n"
        f"try        curl {ready.url}/v1/completions -H 'Content-Type: application/json' "
        f'-d \'{{"model": "{ready.model_name}", "prompt": "def ", "max_tokens": 32}}\'\nstop       Ctrl-C'
    )
    sys.stdout.flush()


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
