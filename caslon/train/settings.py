"""The keys of a training table. Imports no torch, so that a recipe is checked in no time."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from caslon.observe.tracking import TrackerName
from caslon.settings import Conflict, Settings, side_effect_only
from caslon.train.schedule import ScheduleName

Precision = Literal["auto", "fp32", "bf16", "fp16"]
DeviceName = Literal["auto", "cpu", "cuda"]
Compilation = Literal["auto", "on", "off"]
Parallel = Literal["ddp", "fsdp"]


class OptimizationSettings(Settings):
    """What is learnt from, how fast and for how long. A key left out is derived (`caslon plan` says from what)."""

    steps: int | None = Field(None, ge=1, description="optimiser steps")
    batch: int | None = Field(None, ge=1, description="rows per step")
    micro_batch: int | None = Field(None, ge=1, description="rows in memory at once; must divide `batch`")
    context: int | None = Field(None, ge=2, le=1 << 20, description="tokens per row")
    optimizer: Literal["adamw", "muon"] = Field("muon", description="Muon needs fewer steps for the same loss")
    optimizer_state: Literal["fp32", "int8"] = Field(
        "fp32",
        description="numbers of AdamW's moments; int8 takes a quarter of the memory (beside Muon: of the tables)",
    )
    learning_rate: float | None = Field(None, gt=0, le=1, description="at its peak")
    table_rate_ratio: float | None = Field(
        None, gt=0, description="rate of the embedding (and of the head, where they are one), as a multiple of the rate"
    )
    head_rate_ratio: float | None = Field(None, gt=0, description="rate of a head with weights of its own, likewise")
    momentum: float = Field(0.95, ge=0, lt=1, description="share of Muon's momentum kept at a step; less in short runs")
    beta1: float = Field(0.9, ge=0, lt=1, description="the same of AdamW's mean gradient")
    weight_decay: float = Field(
        0.1, ge=0, le=1, description="per unit of learning rate, on matrices; beside Muon not on embedding and head"
    )
    warmup_steps: int | None = Field(None, ge=0, description="steps of rising rate")
    schedule: ScheduleName = Field("cosine", description="how the rate falls")
    min_rate_ratio: float = Field(0.1, ge=0, le=1, description="the last rate as a share of the peak")
    decay_share: float = Field(0.2, gt=0, le=1, description="share of the steps in which wsd falls")
    clip: float = Field(1.0, gt=0, description="largest global gradient norm")
    on_nan: Literal["skip", "stop"] = Field("skip", description="what to do with a step that is not finite")

    def conflicts(self) -> Iterator[Conflict]:
        """Yield what does not go together: micro-batches that are no whole part of a batch, a warm-up as long as the run."""
        yield from super().conflicts()
        if self.batch and self.micro_batch and self.batch % self.micro_batch:
            fits = [str(size) for size in range(1, self.batch + 1) if self.batch % size == 0]
            yield Conflict(
                "micro_batch",
                f"micro_batch = {self.micro_batch} does not divide batch = {self.batch}",
                f"these do: {', '.join(fits)}",
            )
        if self.steps and self.warmup_steps and self.warmup_steps >= self.steps:
            yield Conflict(
                "warmup_steps",
                f"warmup_steps = {self.warmup_steps} leaves no step of {self.steps} at the full rate",
                f"use at most {self.steps - 1}",
            )


class UpkeepSettings(Settings):
    """What happens beside the learning: evaluation, checkpoints, samples, the machine."""

    eval_every: int | None = Field(None, ge=1, description="steps between evaluations; five in a run by default")
    eval_batches: int | None = Field(None, ge=1, description="fixed batches of the validation split per evaluation")
    val_tokens: int | None = Field(
        None, ge=1, le=10_000_000, description="the same in tokens: whole batches with at least so many"
    )
    save_every: int | None = Field(None, ge=1, description="steps between checkpoints beside those at evaluations")
    keep: int = Field(5, ge=1, description="newest checkpoints kept beside the best and the last")
    keep_every: int | None = Field(None, ge=1, description="checkpoints at multiples of this step are never removed")
    best_metric: str = Field("eval/val_loss", description="the measure of an evaluation that decides which is `best`")
    patience: int | None = Field(None, ge=1, description="evaluations without a better one after which the run ends")
    history: tuple[str, ...] = Field(
        (), description="changes made while the run was under way; written by `caslon resume` and `caslon rewind`"
    )
    max_minutes: float | None = Field(
        None, gt=0, description="then save and exit with code 3, to be resumed", json_schema_extra=side_effect_only()
    )
    activation_checkpointing: Literal["off", "every-block"] | Annotated[int, Field(ge=1)] = Field(
        "off", description="compute activations again in the backward pass instead of keeping them: in every n-th block"
    )
    sample_prompts: tuple[str, ...] = Field(("def ", "import ", "The "), description="texts continued at evaluations")
    sample_tokens: int = Field(48, ge=0, le=4096, description="tokens per sample; 0 = none")
    log_every: int = Field(
        10, ge=1, description="steps between lines in the terminal", json_schema_extra=side_effect_only()
    )
    tracker: TrackerName = Field(
        "none", description="mlflow or wandb get the same metrics", json_schema_extra=side_effect_only()
    )
    tracker_uri: str = Field(
        "",
        description="a folder or a server for mlflow (`mlruns` by default); `online` lets wandb send them",
        json_schema_extra=side_effect_only(),
    )

    @property
    def checkpoint_every(self) -> int:
        """Every how many blocks activations are computed again; 0 = in none."""
        named = {"off": 0, "every-block": 1}
        chosen = self.activation_checkpointing
        return named[chosen] if isinstance(chosen, str) else chosen


class DeviceSettings(Settings):
    """Which device computes, how much of it may be used, and what happens when what was asked for is not there."""

    device: DeviceName = Field("auto", description="where to train; auto = a GPU with enough free memory, else the CPU")
    precision: Precision = Field("auto", description="bf16 only where the device computes it natively, else fp32")
    compilation: Compilation = Field(
        "auto", description="whether torch.compile makes code for the layers; auto: on a GPU, in runs of over 200 steps"
    )
    threads: int = Field(0, ge=0, le=1024, description="CPU threads; 0 = all cores")
    max_gpus: int = Field(0, ge=0, description="GPUs that may be used; 0 = all")
    min_gpu_memory_gb: float = Field(8.0, ge=0, description="a GPU with less free memory is left alone")
    gpu_memory_fraction: float = Field(0.9, gt=0, le=1, description="share of a GPU's memory that may be taken")
    fallback_to_cpu: bool = Field(False, description="train on the CPU where device = 'cuda' finds no GPU")
    fallback_to_fp32: bool = Field(False, description="train in fp32 where the precision asked for is not there")
    deterministic: bool = Field(
        False, description="on a GPU: the same bits in every run, or an error naming the operation"
    )
    price_per_hour: float | None = Field(
        None, ge=0, description="what an hour of the device costs", json_schema_extra=side_effect_only()
    )


class ProcessesSettings(Settings):
    """How several processes, started by torchrun, share a training. Their number and these keys change no result."""

    parallel: Parallel = Field(
        "ddp",
        description="several processes: each a whole model (ddp) or a part of it (fsdp)",
        json_schema_extra=side_effect_only(),
    )
    cpu_offload: bool = Field(
        False, description="with fsdp: parts and optimiser wait in host memory", json_schema_extra=side_effect_only()
    )
    collective_timeout_seconds: float = Field(
        55.0,
        gt=0,
        description="how long a process waits for another within a step",
        json_schema_extra=side_effect_only(),
    )
