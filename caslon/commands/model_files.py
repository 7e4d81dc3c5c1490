"""Commands that turn model files into other model files: import and export."""

from pathlib import Path
from typing import Annotated

import typer

from caslon.commands.output import JsonOption, group, print_json, say
from caslon.errors import UserError

app = group(no_args_is_help=True, help="Write a model in a form that other programs read.")


def import_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(help="a nanoGPT-style .pt file", metavar="CKPT")],
    out: Annotated[Path, typer.Argument(help="the model folder to write", metavar="OUT")],
    tokenizer: Annotated[Path | None, typer.Option(help="a tokenizer's folder, to go into the model's")] = None,
    shape: Annotated[
        list[str], typer.Option(help="a value the checkpoint lacks, as n_head=12 (repeatable)", metavar="KEY=NUMBER")
    ] = [],  # noqa: B006  typer copies it
    as_json: JsonOption = False,
) -> None:
    """Turn a nanoGPT-style checkpoint into a model folder. Nothing in the file is run."""
    given = dict(map(_pair, shape))
    _refuse_full(out)
    from caslon.model.import_nanogpt import import_checkpoint as to_folder
    from caslon.model.size import parameter_counts
    from caslon.tokenizer.tokenizer import Tokenizer

    table = Tokenizer.load(tokenizer) if tokenizer else None
    config = to_folder(checkpoint, out, tokenizer=table, shape=given)
    parameters = parameter_counts(config).trained
    if as_json:
        print_json({"folder": str(out), "parameters": parameters, "activation": config.hidden_act})
        return
    say(f"wrote {out}: GPT-2 layout, {parameters:,} parameters, activation {config.hidden_act}")
    say(f"next  caslon generate {out} -p 'Once upon a time'" if table else _NO_TOKENIZER)


_NO_TOKENIZER = (
    "without a tokenizer transformers loads the folder, caslon does not: import again with --tokenizer FOLDER"
)


@app.command()
def hf(
    model: Annotated[Path, typer.Argument(help="a model, stage or run folder", metavar="MODEL")],
    out: Annotated[Path, typer.Option(help="the folder to write")],
    save_dtype: Annotated[str, typer.Option(help="fp32 or bf16")] = "bf16",
    pad_vocab_to: Annotated[int | None, typer.Option(help="entries of the vocabulary, padding included")] = None,
    shard_gb: Annotated[float, typer.Option(help="size above which the weights are cut into files")] = 5.0,
) -> None:
    """Write a Hugging Face model folder for release: weights in bf16, the vocabulary padded if wished."""
    if save_dtype not in ("fp32", "bf16"):
        raise UserError(f"unknown number format {save_dtype!r}", where="--save-dtype", fix="use fp32 or bf16")
    _refuse_full(out)
    from caslon.model.release import SaveDtype, release
    from caslon.run_list import model_folder_of

    dtype: SaveDtype = "fp32" if save_dtype == "fp32" else "bf16"
    config = release(
        model_folder_of(model), out, save_dtype=dtype, pad_vocab_to=pad_vocab_to, shard_bytes=round(shard_gb * 1e9)
    )
    say(f"wrote {out}: {config.family}, {config.vocab_size:,} entries, weights in {save_dtype}")
    say(f"next  caslon generate {out} -p 'Once upon a time'")


def _pair(text: str) -> tuple[str, int]:
    from caslon.model.import_nanogpt import SHAPE_KEYS

    key, _, value = text.partition("=")
    if key not in SHAPE_KEYS or not value.isdigit():
        raise UserError(
            f"cannot read {text!r}", where="--shape", fix=f"KEY=NUMBER with a key of {', '.join(SHAPE_KEYS)}"
        )
    return key, int(value)


def _refuse_full(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()):
        raise UserError("the folder to write is not empty", where=str(out), fix="choose another, or remove it")
