"""The command that measures what more tokens are worth: bench reasoning."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from caslon.commands.bench import app
from caslon.commands.models import KeyOption, ModelArgument, NameOption
from caslon.commands.output import JsonOption, print_json, print_table, say, tell
from caslon.commands.reasoning import (
    BranchTokens,
    JudgeOption,
    PlainOption,
    PromptOption,
    SamplesOption,
    SeedOption,
    StopOption,
    Temperature,
    ThinkingOption,
    VerifierOption,
    opened,
    strategy_options,
)

if TYPE_CHECKING:
    from caslon.reasoning.measurement import Measurement

USUAL = ("single", "self_consistency", "route")


@app.command()
def reasoning(
    model: ModelArgument,
    task: Annotated[str, typer.Argument(help="JSON lines of question and answer, or: arithmetic", metavar="TASK")],
    strategies: Annotated[
        list[str] | None, typer.Option("--strategy", help=f"what to measure (repeatable); default: {', '.join(USUAL)}")
    ] = None,
    budgets: Annotated[
        list[int] | None, typer.Option("--budget", help="tokens of a question (repeatable); default: 100 to 2,000")
    ] = None,
    questions: Annotated[int, typer.Option(min=1, help="how many of the task")] = 50,
    samples: SamplesOption = 5,
    judge: JudgeOption = "logprob",
    verifier: VerifierOption = None,
    max_tokens: BranchTokens = 256,
    thinking_budget: ThinkingOption = None,
    temperature: Temperature = 0.8,
    stop: StopOption = [],  # noqa: B006  typer copies it
    prompt_format: PromptOption = None,
    plain: PlainOption = False,
    seed: SeedOption = 0,
    compute_weight: Annotated[float, typer.Option(help="cost of a million pairs of tokens in a layer")] = 0.001,
    latency_weight: Annotated[float, typer.Option(help="cost of a second of waiting")] = 0.01,
    accuracy_weight: Annotated[float, typer.Option(help="worth of being always right")] = 1.0,
    output: Annotated[Path | None, typer.Option(help="write the figures as JSON here")] = None,
    model_name: NameOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw how often strategies are right against the tokens they take, and plan a budget from it."""
    import json

    from caslon.folders import write_atomic
    from caslon.reasoning.controller import usual_prompt
    from caslon.reasoning.curve import BUDGETS
    from caslon.reasoning.measurement import Measuring
    from caslon.reasoning.named import strategy_named
    from caslon.reasoning.planner import Weights
    from caslon.reasoning.task import read_task
    from caslon.reasoning.work import Limits

    options = strategy_options(locals())
    chosen = [strategy_named(name, options) for name in strategies or USUAL]
    items = read_task(task, questions, seed)
    with opened(model, api_key, model_name, plain=plain) as writer:
        measuring = Measuring(
            writer.generate,
            items,
            tuple(budgets or BUDGETS),
            Limits(max_tokens, temperature, thinking_budget, tuple(stop)),
            prompt_format or usual_prompt(chat=writer.chats),
            seed,
        )
        weights = Weights(compute_weight, latency_weight, accuracy_weight)
        measured = measuring.measured(chosen, writer.layers, weights, tell)
    figures = {"model": model, "task": task, "questions": len(items), "seed": seed, **measured.to_json()}
    if output is not None:
        write_atomic(output, json.dumps(figures, indent=2) + "\n")
    print_json(figures) if as_json else print_measurement(measured)


def print_measurement(measured: "Measurement") -> None:
    """Print the curves, what is better than what, and the plan."""
    print_table(
        ("strategy", "budget", "right", "accuracy", "95 % interval", "mean tokens", "tokens per right answer"),
        [
            (
                one.strategy,
                f"{point.budget_tokens:,}",
                f"{sum(point.right)} of {len(point.right)}",
                f"{point.accuracy:.1%}",
                f"{point.interval[0]:.1%} to {point.interval[1]:.1%}",
                f"{point.mean_tokens:,.1f}",
                "none" if point.tokens_per_correct_answer is None else f"{point.tokens_per_correct_answer:,.0f}",
            )
            for one in measured.curves
            for point in one.points
        ],
    )
    for one in measured.curves:
        say(f"area under the curve of {one.strategy}: {one.area(measured.largest_budget):.3f}")
    say()
    for verdict in measured.verdicts:
        say(verdict.sentence)
    say()
    print_table(
        ("setting", "traces", "tokens of one", "million token pairs", "seconds", "accuracy", "cost", ""),
        [
            (
                one.setting.name,
                f"{one.setting.width:.1f}",
                f"{one.setting.trace_tokens:.0f}",
                f"{one.compute / 1e6:.3f}",
                f"{one.latency_seconds:.2f}",
                f"{one.setting.accuracy:.1%}",
                f"{one.cost:.4f}",
                " ".join(["least cost"] * one.is_best + ["knee"] * one.is_knee),
            )
            for one in measured.planned
        ],
    )
