"""A shape and tokens to each project's own training loop, run as its authors run it on a CPU, held at the end of each step.

Of every project it is the script or function that its users start: nanoGPT's `train.py`, nanochat's `scripts/base_train.py`,
litgpt's `pretrain.setup`, transformers' `Trainer.train`, helloLondon's `train()`, with the arguments that their pages give for a
CPU. Only three things are put in: the tokens; autocast around nanoGPT's model, which has no other way to bf16 on a CPU; and a
tokenizer for nanochat that hands out ids without work.
"""

import importlib
import importlib.util
import os
import runpy
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from peers.turns import Job, Turns

DOCUMENT_TOKENS = 700
SEED = 1
NEVER = 10**9
REPORTED = ("torch", "transformers", "accelerate", "litgpt", "lightning")


def versions() -> dict[str, str]:
    """Return the versions of the libraries that are installed for this process."""
    found = {}
    for name in REPORTED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def caslon(job: Job, turns: Turns) -> None:
    """Train with caslon's `Trainer`; options: `optimizer` and `doc_mask` of `[pretrain]`."""
    from caslon.model.decoder import Decoder
    from caslon.observe.events import EventLog
    from caslon.stages.pretrain import Settings, train_plan
    from caslon.stages.shape import decoder_config
    from caslon.train.batches import Documents, PackedBatches
    from caslon.train.checkpoint import Checkpoints
    from caslon.train.objectives import NextToken
    from caslon.train.precision import choose_compute
    from caslon.train.trainer import Trainer

    shape = job.shape
    chosen = Settings(
        family="gpt2", depth=shape["layers"], hidden_size=shape["width"], num_attention_heads=shape["heads"],
        bias=shape["bias"], context=shape["context"], batch=shape["batch"], steps=1_000_000, eval_every=1_000_000,
        device="cpu", precision=job.precision, threads=job.threads, **job.options,
    )  # fmt: skip
    ids = np.fromfile(Path(job.data) / "train.bin", dtype=np.uint16)
    starts = np.arange(len(ids) // DOCUMENT_TOKENS + 1, dtype=np.int64) * DOCUMENT_TOKENS
    rows = PackedBatches(Documents(ids, starts, end_id=0), shape["context"], SEED, chosen.doc_mask)
    decoder = Decoder(decoder_config(chosen, shape["vocabulary"], shape["context"]))
    decoder.initialise(SEED)
    trainer = Trainer(
        train_plan(chosen, shape["vocabulary"], SEED)[0],
        decoder.train(),
        NextToken(),
        rows,
        checkpoints=Checkpoints(Path(job.work), keep=1, warn=print),
        events=EventLog(None),
        compute=choose_compute(chosen),
        save_model=lambda _model, _folder, _facts: None,
    )
    turns.facts["parameters"] = sum(one.numel() for one in decoder.parameters())
    while trainer._step():
        turns.step_done()


def nanogpt(job: Job, turns: Turns) -> None:
    """Run nanoGPT's `train.py`; option `compile`, which its README turns off on a CPU."""
    shape = job.shape
    flags = {
        "gradient_accumulation_steps": 1, "batch_size": shape["batch"], "block_size": shape["context"],
        "n_layer": shape["layers"], "n_head": shape["heads"], "n_embd": shape["width"], "bias": shape["bias"],
        "max_iters": NEVER, "lr_decay_iters": NEVER, "eval_interval": NEVER, "eval_iters": 1, "dtype": "float32",
        "compile": job.options["compile"],
    }  # fmt: skip
    run_nanogpt(job, turns, flags)


def run_nanogpt(job: Job, turns: Turns, flags: dict[str, Any], arguments: tuple[str, ...] = ()) -> None:
    """Run nanoGPT's `train.py` with arguments, on the tokens of the job."""
    os.chdir(job.source)  # it reads configurator.py and its configurations from there
    sys.path.insert(0, job.source)
    if job.precision == "bf16":
        _under_autocast(importlib.import_module("model").GPT)
    flags = {"device": "cpu", "dataset": job.data, "out_dir": job.work, **flags}
    sys.argv = ["train.py", *arguments, *(f"--{name}={value}" for name, value in flags.items())]
    turns.hold_after_optimizer()
    runpy.run_path("train.py", run_name="__main__")


def _under_autocast(model: Any) -> None:
    """Put a model's forward pass under torch's autocast in bf16, as nanoGPT does on a GPU."""
    import torch

    plain = model.forward

    def forward(self: Any, *values: Any) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return plain(self, *values)

    model.forward = forward


def nanochat(job: Job, turns: Turns) -> None:
    """Run nanochat's `scripts/base_train.py` with the arguments of its `runs/runcpu.sh`; bf16 is an environment variable."""
    shape = job.shape
    os.environ["NANOCHAT_BASE_DIR"] = job.work
    os.environ["NANOCHAT_DTYPE"] = {"fp32": "float32", "bf16": "bfloat16"}[job.precision]
    sys.path.insert(0, job.source)
    tokenizer = importlib.import_module("nanochat.tokenizer")
    tokenizer.get_tokenizer = lambda: _Ids(shape["vocabulary"])  # type: ignore[attr-defined]
    tokenizer.get_token_bytes = lambda device: None  # type: ignore[attr-defined]
    _write_texts(Path(importlib.import_module("nanochat.dataset").DATA_DIR))
    flags = {
        "device-type": "cpu", "depth": shape["layers"], "aspect-ratio": shape["width"] // shape["layers"],
        "head-dim": shape["width"] // shape["heads"], "window-pattern": "L", "max-seq-len": shape["context"],
        "device-batch-size": shape["batch"], "total-batch-size": shape["batch"] * shape["context"],
        "eval-every": -1, "core-metric-every": -1, "sample-every": -1, "num-iterations": NEVER,
    }  # fmt: skip
    sys.argv = ["base_train.py", *(f"--{name}={value}" for name, value in flags.items())]
    turns.hold_after_optimizer()
    runpy.run_module("scripts.base_train", run_name="__main__", alter_sys=True)


class _Ids:
    """Stands for nanochat's tokenizer: documents of random ids, so that none of its time is spent on text."""

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary, self.random = vocabulary, np.random.default_rng(SEED)

    def get_vocab_size(self) -> int:
        return self.vocabulary

    def get_bos_token_id(self) -> int:
        return 0

    def encode(self, texts: list[str], prepend: int, num_threads: int) -> list[list[int]]:
        return [[prepend, *self.random.integers(1, self.vocabulary, DOCUMENT_TOKENS - 1).tolist()] for _ in texts]


def _write_texts(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    for name in ("shard_00000", "shard_00001"):  # the last is its validation split
        pq.write_table(pa.table({"text": ["text"] * 4096}), folder / f"{name}.parquet")


def litgpt(job: Job, turns: Turns) -> None:
    """Run litgpt's `pretrain.setup`, which compiles; its models have rotary positions, so the shape is GPT-NeoX in sequence."""
    from torch.utils.data import DataLoader

    pretrain, args = importlib.import_module("litgpt.pretrain"), importlib.import_module("litgpt.args")
    shape, rows = job.shape, _rows(job)
    batch = shape["batch"]

    class Rows(importlib.import_module("litgpt.data").DataModule):  # type: ignore[misc]
        def connect(self, tokenizer: Any = None, batch_size: int = 1, max_seq_length: int = -1) -> None:
            self.rows = DataLoader(rows, batch_size=batch_size, shuffle=True, drop_last=True)

        def train_dataloader(self) -> Any:
            return self.rows

        def val_dataloader(self) -> Any:
            return self.rows

    config = importlib.import_module("litgpt").Config(
        name="peer", block_size=shape["context"], n_layer=shape["layers"], n_head=shape["heads"], n_embd=shape["width"],
        vocab_size=shape["vocabulary"], padded_vocab_size=shape["vocabulary"], parallel_residual=False,
        bias=shape["bias"], attn_bias=shape["bias"],
    )  # fmt: skip
    turns.hold_after_optimizer()
    pretrain.setup(
        "peer",
        model_config=config,
        out_dir=Path(job.work) / "out",
        precision={"fp32": "32-true", "bf16": job.options.get("precision", "bf16-mixed")}[job.precision],
        data=Rows(),
        train=args.TrainArgs(
            save_interval=None, log_interval=1, global_batch_size=batch, micro_batch_size=batch, max_tokens=10**11,
            max_norm=1.0, min_lr=4e-5, lr_warmup_steps=2000, tie_embeddings=True,
        ),
        eval=args.EvalArgs(interval=NEVER, max_iters=1, final_validation=False),
        devices=1,
        logger_name="csv",
    )  # fmt: skip


def transformers(job: Job, turns: Turns) -> None:
    """Run transformers' `Trainer.train` on its GPT-2, with its defaults: fused AdamW, torch's attention, nothing compiled."""
    library, shape = importlib.import_module("transformers"), job.shape
    config = library.GPT2Config(
        vocab_size=shape["vocabulary"], n_positions=shape["context"], n_embd=shape["width"], n_layer=shape["layers"],
        n_head=shape["heads"], resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    arguments = library.TrainingArguments(
        output_dir=job.work, use_cpu=True, bf16=job.precision == "bf16", per_device_train_batch_size=shape["batch"],
        max_steps=10**6, learning_rate=1e-3, weight_decay=0.1, save_strategy="no", report_to="none",
    )  # fmt: skip
    rows = [{"input_ids": row, "labels": row} for row in _rows(job)[:, :-1]]
    turns.hold_after_optimizer()
    library.Trainer(library.GPT2LMHeadModel(config), arguments, train_dataset=rows).train()


def hellolondon(job: Job, turns: Turns) -> None:
    """Run the trainer of helloLondon's small model; options are its own attributes, such as `dropout` and `dtype`."""
    path = Path(job.source) / "04_training" / "train_model_slm.py"
    spec = importlib.util.spec_from_file_location("train_model_slm", path)
    assert spec and spec.loader, f"no Python file: {path}"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shape = job.shape
    module.config.slm_config.update(
        batch_size=shape["batch"], max_length=shape["context"], n_layer=shape["layers"], n_head=shape["heads"],
        n_embd=shape["width"], max_steps=NEVER, eval_steps=NEVER, use_wandb=False, enable_amp=job.precision != "fp32",
    )  # fmt: skip

    class WithOptions(module.SimpleLondonHistoricalTrainer):  # type: ignore[misc, name-defined]
        def init_model(self) -> None:
            for name, value in job.options.items():
                setattr(self, name, value)
            super().init_model()

    turns.hold_after_optimizer()
    tokens = Path(job.data).parent  # it adds "tokenized_data" itself
    WithOptions(str(tokens), tokenizer_dir=job.work, output_dir=job.work).train()


def _rows(job: Job) -> Any:
    """Return the tokens as rows of one more than the context: `[rows, context + 1]`, int64."""
    import torch

    ids = np.fromfile(Path(job.data) / "train.bin", dtype=np.uint16).astype(np.int64)
    width = job.shape["context"] + 1
    return torch.from_numpy(ids[: len(ids) // width * width].reshape(-1, width))


TRAINERS: dict[str, Callable[[Job, Turns], None]] = {
    "caslon": caslon,
    "nanogpt": nanogpt,
    "nanochat": nanochat,
    "litgpt": litgpt,
    "transformers": transformers,
    "hellolondon": hellolondon,
}
