"""The command that says what answering with a model takes, and on which devices it fits."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from caslon.commands.output import JsonOption, print_json, print_table, say
from caslon.errors import UserError

if TYPE_CHECKING:
    from caslon.engine.planner import MemoryQuestion

WEIGHTS = ("auto", "int8", "int4", "nf4")
CACHES = ("auto", "float32", "bfloat16", "float16", "int8", "int4")


def memory(
    model: Annotated[str | None, typer.Argument(help="a model folder", metavar="[MODEL]")] = None,
    shape: Annotated[str | None, typer.Option(help="a published shape instead: llama2-7b, llama3-8b, gpt2 ...")] = None,
    context: Annotated[
        int | None, typer.Option(min=1, help="tokens of each sequence; the model's own by default")
    ] = None,
    sequences: Annotated[int, typer.Option(min=1, help="sequences at once")] = 1,
    weights: Annotated[str, typer.Option(help="auto (as stored), int8, int4 or nf4")] = "auto",
    kv: Annotated[
        str, typer.Option(help="auto (as the weights are stored), float32, bfloat16, float16, int8 or int4")
    ] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Say what a model takes in memory when it answers, and on which devices it fits. Reads no weights."""
    question = _question(model, shape, context, sequences, weights, kv)
    facts = _facts(question)
    if as_json:
        print_json(facts)
        return
    config, plan = question.config, facts["bytes"]
    say(
        f"{shape or model}: {facts['parameters']:,} parameters, {question.sequences} x {question.context:,} tokens, "
        f"weights {_named(weights, question.dtype)}, cache {question.kv}"
    )
    rules = {"weights": f"{facts['rules']['weights']:,}", "kv cache": f"{facts['rules']['kv']:,}"}
    rows = (
        ("weights", plan["weights"]),
        ("kv cache", plan["kv"]),
        ("activations", plan["activations"]),
        ("total", plan["total"]),
    )
    print_table(
        ("", "bytes", "GB", "rule of thumb (2 B a parameter, 1 MB a token), bytes"),
        [(name, f"{size:,}", f"{size / 1e9:.2f}", rules.get(name, "")) for name, size in rows],
    )
    say(
        f"a token of the cache: {facts['kv_bytes_per_token']:,.0f} bytes (made for {config.max_position_embeddings:,} tokens)"
    )
    print_table(
        ("device", "", "largest context", "most sequences"),
        [
            (
                name,
                "fits" if found["fits"] else "does not fit",
                f"{found['largest_context']:,}",
                f"{found['most_sequences']:,}",
            )
            for name, found in facts["devices"].items()
        ],
    )


def _question(
    model: str | None, shape: str | None, context: int | None, sequences: int, weights: str, kv: str
) -> "MemoryQuestion":
    from caslon.engine.planner import NUMBER_BYTES, MemoryQuestion, shape_named

    if (model is None) == (shape is None):
        raise UserError("a model folder or a shape is needed", fix="caslon plan memory MODEL, or --shape llama2-7b")
    _check_choice("--weights", weights, WEIGHTS)
    _check_choice("--kv", kv, CACHES)
    if shape is not None:
        config = shape_named(shape)
    else:
        from caslon.model.folder import ModelFolder
        from caslon.run_list import model_folder_of

        config = ModelFolder.open(model_folder_of(Path(str(model)))).config
    dtype: Any = config.dtype if config.dtype in NUMBER_BYTES else "float32"
    question = MemoryQuestion(config, context or config.max_position_embeddings, sequences, dtype=dtype)
    return replace(question, weights=weights, kv=dtype if kv == "auto" else kv)  # type: ignore[arg-type]


def _facts(question: "MemoryQuestion") -> dict[str, Any]:
    from caslon.engine.planner import DEVICES, RULE_BYTES_PER_PARAMETER, RULE_BYTES_PER_TOKEN, kv_block_bytes
    from caslon.model.size import parameter_counts

    plan, config = question.plan(), question.config
    parameters = parameter_counts(config).trained
    return {
        "parameters": parameters,
        "context": question.context,
        "sequences": question.sequences,
        "weights": question.weights,
        "kv": question.kv,
        "kv_bytes_per_token": kv_block_bytes(config, question.kv, question.block_tokens) / question.block_tokens,
        "bytes": {"weights": plan.weights, "kv": plan.kv, "activations": plan.activations, "total": plan.total},
        "rules": {
            "weights": RULE_BYTES_PER_PARAMETER * parameters,
            "kv": RULE_BYTES_PER_TOKEN * question.context * question.sequences,
        },
        "devices": {
            name: {
                "bytes": size,
                "fits": plan.fits(size),
                "largest_context": question.largest_context(size),
                "most_sequences": question.largest_sequences(size),
            }
            for name, size in DEVICES.items()
        },
    }


def _named(weights: str, dtype: str) -> str:
    return f"as stored ({dtype})" if weights == "auto" else weights


def _check_choice(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"{option} {value} is not known", where=option, fix=f"choose one of {', '.join(allowed)}")
