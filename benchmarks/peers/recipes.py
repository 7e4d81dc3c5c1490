"""A text to a model that learns from it as a project's own recipe says, and is measured in bits per byte whenever asked.

All are scored by `caslon.evaluate.bits_per_byte`, in windows of the model's own context that move by half of it, on the last
tenth of the text; they learn from the rest.
"""

import importlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from peers.trainers import run_nanogpt
from peers.turns import Job, Turns

LEARNED = 0.9  # of the text, as nanoGPT's prepare.py parts it
NANOGPT_CPU = {
    "compile": False, "block_size": 64, "batch_size": 12, "n_layer": 4, "n_head": 4, "n_embd": 128, "max_iters": 2000,
    "lr_decay_iters": 2000, "dropout": 0.0, "log_interval": 1, "dtype": "float32",
}  # fmt: skip


def nanogpt_recipe(job: Job, turns: Turns) -> None:
    """Run nanoGPT's recipe for a CPU, from its README, on the characters of a text; options replace its flags."""
    text = Path(job.data).read_text(encoding="utf-8")
    characters = sorted(set(text))
    number = {character: place for place, character in enumerate(characters)}
    cut = int(LEARNED * len(text))
    folder = Path(job.work) / "tokens"
    folder.mkdir()
    for name, part in (("train", text[:cut]), ("val", text[cut:])):
        np.array([number[character] for character in part], dtype=np.uint16).tofile(folder / f"{name}.bin")
    (folder / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": len(characters)}))
    flags = {**NANOGPT_CPU, **job.options, "eval_interval": 10**9, "eval_iters": 1}
    held_out = np.fromfile(folder / "val.bin", dtype=np.uint16)
    turns.facts |= {"steps": flags["max_iters"], "bytes": len(text[cut:].encode())}
    started: list[Any] = []
    _note_model(job.source, started)
    turns.measure = lambda: _score(
        _FullLogits(started[0]), started[0], [held_out], turns.facts["bytes"], number["\n"], flags["block_size"]
    )
    changed = Job(**{**vars(job), "data": str(folder)})
    run_nanogpt(changed, turns, flags, ("config/train_shakespeare_char.py",))


def _note_model(source: str, started: list[Any]) -> None:
    """Let nanoGPT's model put itself into a list when its optimiser is made."""
    import sys

    sys.path.insert(0, source)
    model = importlib.import_module("model").GPT
    plain = model.configure_optimizers

    def configure_optimizers(self: Any, *values: Any) -> Any:
        started.append(self)
        return plain(self, *values)

    model.configure_optimizers = configure_optimizers


class _FullLogits:
    """nanoGPT's model as the scoring wants it: it gives all logits only when it is also given targets."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, ids: Any) -> Any:
        return self.model(ids, ids)[0]

    def logits(self, hidden: Any) -> Any:
        return hidden


def caslon_recipe(job: Job, turns: Turns) -> None:
    """Train as a recipe of caslon says; options: `recipe`, a path, and `set`, a list of overrides."""
    from caslon.model.decoder import Decoder
    from caslon.observe.events import EventLog
    from caslon.recipe import load_recipe
    from caslon.runner import run
    from caslon.stages.pretrain import train_plan
    from caslon.stages.shape import decoder_config
    from caslon.tokenizer.tokenizer import Tokenizer
    from caslon.train.checkpoint import Checkpoints
    from caslon.train.dataset import TOKENS_FOLDER, open_data
    from caslon.train.objectives.next_token import NextToken, byte_counts
    from caslon.train.precision import choose_compute
    from caslon.train.trainer import Trainer

    recipe = load_recipe(Path(job.options["recipe"]), [f"tokenizer.text={job.data}", *job.options["set"]])
    source = run(recipe, Path(job.work) / "runs", until="tokenizer") / "tokenizer"
    chosen: Any = recipe.stage("pretrain").settings
    tokenizer = Tokenizer.load(source)
    data = open_data(source / TOKENS_FOLDER, chosen.mixture, Path(job.work), tokenizer)
    plan, _ = train_plan(chosen, tokenizer.vocab_size, recipe.seed)
    compute = choose_compute(chosen)
    decoder = Decoder(decoder_config(chosen, tokenizer.vocab_size, plan.context))
    decoder.initialise(recipe.seed)
    trainer = Trainer(
        plan,
        decoder.train(),
        NextToken(byte_counts=byte_counts(tokenizer, compute.device)),
        data.rows("train", chosen.packing, plan.context, plan.seed, doc_mask=chosen.doc_mask),
        checkpoints=Checkpoints(Path(job.work), keep=1, warn=print),
        events=EventLog(None),
        compute=compute,
        save_model=lambda _model, _folder, _facts: None,
    )
    held_out = data.sets[0].validation
    documents = [held_out.document(place) for place in range(len(held_out.document_starts) - 1)]
    parameters = sum(one.numel() for one in decoder.parameters())
    turns.facts |= {"steps": plan.steps, "bytes": held_out.text_bytes, "parameters": parameters}
    turns.measure = lambda: _score(
        trainer.decoder, trainer.decoder, documents, held_out.text_bytes, held_out.end_of_text_id, plan.context
    )
    while trainer._step():
        turns.step_done()


def _score(model: Any, module: Any, documents: list[Any], size: int, start_id: int, context: int) -> float:
    """Return bits per byte of the held-out text, and leave the model in training."""
    from caslon.evaluate.bits_per_byte import score_documents

    module.eval()
    sizes = [size, *[0] * (len(documents) - 1)]  # only their sum counts
    score = score_documents(model, documents, sizes, start_id=start_id, context=context)
    module.train()
    return score.bits_per_byte


RECIPES: dict[str, Callable[[Job, Turns], None]] = {"nanogpt_recipe": nanogpt_recipe, "caslon_recipe": caslon_recipe}
