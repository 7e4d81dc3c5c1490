"""The command that spends more tokens on a question: reason."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from caslon.commands.models import KeyOption, ModelArgument, NameOption, model_or_url
from caslon.commands.output import JsonOption, group, print_json, say, tell

if TYPE_CHECKING:
    from caslon.reasoning.branch import Generate
    from caslon.reasoning.named import Options

app = group()

PlainOption = Annotated[bool, typer.Option("--plain", help="ask as plain text, also where there is a chat template")]
PromptOption = Annotated[
    str | None, typer.Option("--prompt-format", help="what is asked, with the question at {question}")
]
SamplesOption = Annotated[int, typer.Option(min=1, help="answers of self_consistency, best_of, branch_first and route")]
JudgeOption = Annotated[str, typer.Option("--judge", help="logprob, verifier, or module:function")]
VerifierOption = Annotated[
    str | None, typer.Option("--verifier", help="steps (arithmetic), known-steps, or module:function")
]
WidthOption = Annotated[int, typer.Option(min=1, help="answers that step_search keeps")]
DepthOption = Annotated[int, typer.Option(min=1, help="most steps of step_search and temperature_anneal")]
TriesOption = Annotated[int, typer.Option(min=1, help="ways step_search continues each")]
RoundsOption = Annotated[int, typer.Option(min=1, help="most rounds of revise, 1 or 2")]
StartOption = Annotated[float, typer.Option("--start-temperature", help="of temperature_anneal")]
EndOption = Annotated[float, typer.Option("--end-temperature", help="of temperature_anneal")]
BranchTokens = Annotated[int, typer.Option("--max-tokens", min=1, help="most tokens of one answer")]
ThinkingOption = Annotated[
    int | None, typer.Option("--thinking-budget", min=0, help="tokens to think before each answer")
]
Temperature = Annotated[float, typer.Option(min=0, max=2, help="how boldly answers are drawn")]
StopOption = Annotated[list[str], typer.Option("--stop", help="a text that ends an answer (repeatable)")]
SeedOption = Annotated[int, typer.Option(help="same seed, same record")]


@app.command()
def reason(
    model: ModelArgument,
    question: Annotated[str, typer.Option("--question", "-q", help="what is to be answered")],
    strategy: Annotated[str, typer.Option(help="single, self_consistency, best_of, step_search, ...")] = (
        "self_consistency"
    ),
    budget: Annotated[int, typer.Option(min=1, help="most tokens of all branches together")] = 2000,
    level: Annotated[str | None, typer.Option(help="easy, medium or hard: overrides the classifier of route")] = None,
    gate: Annotated[bool, typer.Option("--gate", help="withhold an answer that fails the verifier")] = False,
    samples: SamplesOption = 5,
    judge: JudgeOption = "logprob",
    verifier: VerifierOption = None,
    width: WidthOption = 3,
    depth: DepthOption = 8,
    tries: TriesOption = 2,
    rounds: RoundsOption = 2,
    start_temperature: StartOption = 1.0,
    end_temperature: EndOption = 0.0,
    max_tokens: BranchTokens = 256,
    thinking_budget: ThinkingOption = None,
    temperature: Temperature = 0.8,
    stop: StopOption = [],  # noqa: B006  typer copies it
    prompt_format: PromptOption = None,
    plain: PlainOption = False,
    seed: SeedOption = 0,
    record: Annotated[Path | None, typer.Option("--record", help="write every decision here, as JSON lines")] = None,
    model_name: NameOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a question by several branches, votes, judges or revisions, within one budget of tokens."""
    from caslon.errors import UserError
    from caslon.folders import write_atomic
    from caslon.reasoning import controller
    from caslon.reasoning.named import strategy_named
    from caslon.reasoning.work import Limits

    options = strategy_options(locals())
    if gate and options.verifier is None:
        raise UserError("a gate needs a verifier", where="--gate", fix="--verifier steps, or your own")
    chosen = strategy_named(strategy, options)
    with opened(model, api_key, model_name, plain=plain) as writer:
        told = controller.reason(
            question,
            chosen,
            writer.generate,
            budget_tokens=budget,
            limits=Limits(max_tokens, temperature, thinking_budget, tuple(stop)),
            seed=seed,
            prompt=prompt_format or controller.usual_prompt(chat=writer.chats),
            level=level,
            gate=options.verifier if gate else None,
        )
    if record is not None:
        write_atomic(record, "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in told.record))
    if as_json:
        print_json({name: value for name, value in vars(told).items() if name != "record"})
        return
    say(told.shown)
    tell(f"answer {told.answer} · {told.branches} branches, {told.tokens} of {budget} tokens · {told.stop_reason}")


class Writer(NamedTuple):
    """What writes: whether it is asked by messages, and how many layers it has where that is known, else 1."""

    generate: "Generate"
    chats: bool
    layers: int


@contextlib.contextmanager
def opened(model: str, api_key: str | None, model_name: str | None, *, plain: bool) -> Iterator[Writer]:
    """Give what writes for a folder or URL while the block runs."""
    from caslon.client import Client

    place = model_or_url(model)
    if place.startswith(("http://", "https://")):
        from caslon.reasoning.over_http import HttpGenerate

        with Client(place, api_key=api_key) as client:
            yield Writer(HttpGenerate(client, model_name or client.only_model(), chat=not plain), not plain, 1)
        return
    from caslon.engine.engine import Engine
    from caslon.reasoning.with_engine import EngineGenerate

    with Engine.load(Path(place)) as engine:
        chats = engine.tokenizer.chat_template is not None and not plain
        yield Writer(EngineGenerate(engine, chat=chats), chats, engine.decoder.config.num_hidden_layers)


def strategy_options(values: Mapping[str, Any]) -> "Options":
    """Return what strategies are told by a command's options."""
    from dataclasses import fields

    from caslon.reasoning.named import Options, judge_named, verifier_named

    verifier = None if values["verifier"] is None else verifier_named(values["verifier"])
    given = {one.name: values[one.name] for one in fields(Options) if one.name in values}
    return Options(**{**given, "verifier": verifier, "judge": judge_named(values["judge"], verifier)})
