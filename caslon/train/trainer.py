"""The only training loop: batches in, checkpoints and events out; stop it anywhere and it goes on to the same last bit.

A step is a function of the weights, the optimiser's state and its number: its batch comes from (seed, step), and so does the
random state of its dropout. What else the loop carries from step to step stands in `trainer.json`. The loss is a sum divided
once by the targets of the whole step, so micro-batches change nothing but memory.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from caslon.errors import Diverged, OutOfMemory, Stopped, StorageError
from caslon.model.decoder import Decoder
from caslon.model.folder import ModelFolder
from caslon.observe.events import EventLog, Metrics, Resumed, Sample, Timing
from caslon.train.batches import Batch, Batches
from caslon.train.checkpoint import Checkpoint, Checkpoints, SaveModel, refuse_changes
from caslon.train.objectives import Objective, add_metrics
from caslon.train.optimizer import Optimizer
from caslon.train.peak import Peak, memory_gb
from caslon.train.plan import TrainPlan
from caslon.train.precision import Compute
from caslon.train.validation import validation_metrics

SKIPS_BEFORE_REWIND = 5
REWINDS_BEFORE_STOP = 2
SMOOTHING = 0.9  # of the shown speed, from the sixth step on
FIRST_SMOOTHED_STEP = 6
SAMPLE_SEED_MULTIPLIER = 1_000_003  # keeps (seed, step) pairs apart

Sampler = Callable[[Decoder, int], Sequence[tuple[str, str]]]
"""`(decoder, step) -> [(prompt, text), ...]`, the same for the same weights."""


@dataclass(frozen=True)
class Extras:
    """What the loop does beside learning, passed in by the stage."""

    validation: Sequence[Batch] = ()
    sample: Sampler | None = None
    measure: Callable[[Decoder, int], Mapping[str, float]] | None = None  # more values at an evaluation
    lineage: Mapping[str, Any] = field(default_factory=dict)  # digests that must stay the same when a run is resumed
    flops_per_token: int = 0
    peak: Peak | None = None  # of the device: what `train/mfu` is a share of


NO_EXTRAS = Extras()


@dataclass
class Progress:
    """What the loop carries from step to step beside weights and optimiser state."""

    step: int = 0
    tokens: int = 0
    best_step: int | None = None
    best_loss: float = math.inf
    recent_loss: float = 0.0  # summed since the last evaluation
    recent_count: int = 0
    rate_scale: float = 1.0
    skipped_in_row: int = 0
    skipped: int = 0
    rewinds: int = 0
    micro_batch: int = 0
    checkpoint_every: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    step: int
    tokens: int
    best: Path
    best_step: int
    metrics: Mapping[str, float]  # of the best checkpoint's evaluation
    skipped: int


class Trainer:
    """Trains one decoder for one objective as a plan says."""

    def __init__(
        self,
        plan: TrainPlan,
        decoder: Decoder,
        objective: Objective,
        batches: Batches,
        *,
        checkpoints: Checkpoints,
        events: EventLog,
        compute: Compute,
        save_model: SaveModel,
        extras: Extras = NO_EXTRAS,
    ) -> None:
        self.plan, self.objective, self.batches = plan, objective, batches
        self.checkpoints, self.events, self.compute, self.extras = checkpoints, events, compute, extras
        self.save_model = save_model
        self.decoder = decoder.to(compute.device)
        self.optimizer = Optimizer(
            decoder,
            plan.optimizer,
            weight_decay=plan.weight_decay,
            table_rate_ratio=plan.table_rate_ratio,
            head_rate_ratio=plan.head_rate_ratio,
            momentum=plan.momentum,
            beta1=plan.beta1,
            product_dtype=compute.product_dtype,
        )
        self.progress = Progress(micro_batch=plan.micro_batch)
        self.last_metrics: dict[str, float] = {}
        self._step_seconds = 0.0
        self._timed_steps = 0
        self._stop_signal: str | None = None
        self._prepared: tuple[int, Batch] | None = None
        self._compiled = compute.compiles(plan.steps)
        if self._compiled:
            compile_layers(self.decoder)

    def run(self) -> Outcome:
        """Train to the last step, from the newest intact checkpoint if there is one; `Stopped` on SIGTERM or SIGINT."""
        found = self.checkpoints.newest_intact()
        if found:
            self._resume(found)
        self.decoder.train()
        with self._listening_for_signals():
            while self.progress.step < self.plan.steps:
                if self._step():
                    self._evaluate_if_due()
                    self._save_if_due()
                if self._stop_signal:
                    self._stop()
        return self._outcome()

    # One step

    def _step(self) -> bool:
        """Take one step; return whether the run is one step further, and not back at a checkpoint."""
        began = time.perf_counter()
        progress = self.progress
        rate = self.plan.schedule.rate(progress.step) * progress.rate_scale
        torch.manual_seed((self.plan.seed * SAMPLE_SEED_MULTIPLIER + progress.step) % 2**63)
        batch = self._batch(progress.step)
        loss_there, sums, count = self._gradients(batch)
        norm_there = torch.nn.utils.clip_grad_norm_(self.decoder.parameters(), self.plan.clip)
        self._prepare(progress.step + 1)  # while a GPU still computes: the next two lines wait for it
        loss, norm = float(loss_there), float(norm_there)
        if math.isfinite(loss) and math.isfinite(norm):
            self.optimizer.step(rate)
            progress.skipped_in_row = 0
            progress.recent_loss += loss
            progress.recent_count += count
        self.decoder.zero_grad(set_to_none=True)
        progress.step += 1
        progress.tokens += self.plan.tokens_per_step
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return self._skip(batch, loss, norm)
        measures = self.objective.measures(loss, count, sums)
        self._log(loss / count, rate, norm, measures, time.perf_counter() - began)
        return True

    def _batch(self, step: int) -> Batch:
        number, batch = self._prepared or (None, None)
        return batch if batch is not None and number == step else self.batches.batch(step, self.plan.batch)

    def _prepare(self, step: int) -> None:
        self._prepared = (step, self.batches.batch(step, self.plan.batch)) if step < self.plan.steps else None

    def _gradients(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor], int]:
        """Return the summed loss and metrics of a whole batch and its count, and leave the gradient of loss by count."""
        count = self.objective.count(batch)
        while True:
            try:
                return *self._accumulated(batch, count), count
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                self.decoder.zero_grad(set_to_none=True)
                if is_out_of_memory(error):
                    self._use_less_memory()
                elif self._compiled and is_compile_failure(error):
                    self._stop_compiling(error)
                else:
                    raise

    def _stop_compiling(self, error: Exception) -> None:
        reason = str(error).strip().splitlines()[0]
        self.events.warn(f"going on without compiled layers: {type(error).__name__}: {reason}")
        self._compiled = False
        for layer in self.decoder.model.layers:
            layer._compiled_call_impl = None

    def _accumulated(self, batch: Batch, count: int) -> tuple[Tensor, dict[str, Tensor]]:
        total, sums = torch.zeros((), dtype=torch.float64, device=self.compute.device), dict[str, Tensor]()
        for micro in batch.split(self.progress.micro_batch):
            with self.compute.autocast():
                part = self.objective.loss(self.decoder, micro.to(self.compute.device))
            (part.sum / count).backward()  # type: ignore[no-untyped-call]
            total += part.sum.detach()
            add_metrics(sums, part.metrics)
        return total, sums

    def _use_less_memory(self) -> None:
        """Halve the micro-batch, then recompute activations; the batch and so the result stay what they are."""
        progress = self.progress
        if progress.micro_batch > 1:
            progress.micro_batch = max(
                size for size in range(1, progress.micro_batch // 2 + 1) if self.plan.batch % size == 0
            )
            self.events.warn(f"out of memory: going on with micro-batches of {progress.micro_batch}")
        elif not progress.checkpoint_every:
            progress.checkpoint_every = self.decoder.checkpoint_every = 1
            self.events.warn("out of memory: going on with activations computed twice")
        else:
            raise OutOfMemory(
                "one row of the batch does not fit into memory", fix="use a smaller context or a smaller model"
            )

    def _skip(self, batch: Batch, loss: float, norm: float) -> bool:
        """Count a step that was not finite and not taken; too many in a row go back to the last checkpoint: false."""
        progress = self.progress
        progress.skipped += 1
        progress.skipped_in_row += 1
        shown = ", ".join(map(str, batch.sources[:20])) + (", ..." if len(batch.sources) > 20 else "")
        what = f"step {progress.step}: loss {loss}, gradient norm {norm}; documents {shown}"
        self.events.emit(Metrics(progress.step, {"train/skipped": float(progress.skipped)}))
        if self.plan.on_nan == "stop":
            raise Diverged(what, fix="lower learning_rate, or look at these documents")
        self.events.warn(f"{what}: step skipped")
        if progress.skipped_in_row < SKIPS_BEFORE_REWIND:
            return True
        self._rewind()
        return False

    def _rewind(self) -> None:
        progress = self.progress
        rewinds, scale = progress.rewinds + 1, progress.rate_scale / 2
        found = self.checkpoints.newest_intact()
        if found is None or rewinds > REWINDS_BEFORE_STOP:
            raise Diverged(
                f"{SKIPS_BEFORE_REWIND} steps in a row up to step {progress.step} gave numbers that are not finite",
                fix="lower learning_rate, raise warmup_steps, or look at the documents named above",
            )
        regular = bool(found.state()["regular"])
        self._resume(found)
        self.progress.rewinds, self.progress.rate_scale = rewinds, scale
        self._save(regular=regular)  # so that a run killed after this goes on with the lower rate
        self.events.warn(f"went back to step {self.progress.step}; the learning rate is now {scale:g} of the plan's")

    # Evaluation and samples

    def _is_evaluation_due(self) -> bool:
        return self.progress.step % self.plan.eval_every == 0 or self.progress.step == self.plan.steps

    def _evaluate_if_due(self) -> None:
        if not self._is_evaluation_due():
            return
        # Only steps are worth compiling: every other shape would cost half a minute.
        with torch.compiler.set_stance("force_eager") if self._compiled else nullcontext():
            self._evaluate()

    def _evaluate(self) -> None:
        began = time.perf_counter()
        progress, values = self.progress, {"eval/iter": float(self.progress.step)}
        if progress.recent_count:
            values["eval/train_loss"] = progress.recent_loss / progress.recent_count
        if self.extras.validation:
            values |= validation_metrics(self.decoder, self.objective, self.extras.validation, self.compute.autocast)
            if values["eval/val_loss"] < progress.best_loss:
                progress.best_loss, progress.best_step = values["eval/val_loss"], progress.step
        if self.extras.measure:
            values |= self.extras.measure(self.decoder, progress.step)
        progress.recent_loss, progress.recent_count = 0.0, 0
        self.last_metrics = values
        self.events.emit(Metrics(progress.step, values))
        self._sample()
        self.decoder.train()
        self.events.emit(Timing(progress.step, {"eval/seconds": time.perf_counter() - began}))

    @torch.no_grad()
    def _sample(self) -> None:
        if self.extras.sample is None:
            return
        self.decoder.eval()
        for prompt, text in self.extras.sample(self.decoder, self.progress.step):
            self.events.emit(Sample(self.progress.step, prompt, text))

    # Checkpoints

    def _save_if_due(self) -> None:
        step, every = self.progress.step, self.plan.save_every
        if step and (self._is_evaluation_due() or (every and step % every == 0)):
            self._save(regular=True)

    def _save(self, *, regular: bool) -> Checkpoint | None:
        began = time.perf_counter()
        progress = self.progress
        is_best = progress.best_step in (None, progress.step)
        saved = self.checkpoints.save(
            progress.step, self.save_model, self.optimizer.state(), self._state(regular), best=is_best
        )
        if saved is None and progress.step == self.plan.steps:
            raise StorageError(
                "the last checkpoint could not be written", where=str(self.checkpoints.folder), fix="free disk space"
            )
        self.events.emit(Timing(progress.step, {"save/seconds": time.perf_counter() - began}))
        return saved

    def _state(self, regular: bool) -> dict[str, Any]:
        progress = asdict(self.progress)
        if math.isinf(progress["best_loss"]):
            progress["best_loss"] = None  # JSON has no infinity
        epoch, row = divmod(self.progress.step * self.plan.batch, self.batches.rows_per_epoch)
        return {
            **progress,
            "format": 1,
            "regular": regular,  # false: written because the run was stopped
            "metrics": self.last_metrics,
            "random_state": {"seed": self.plan.seed, "rule": "drawn anew from (seed, step) at every step"},
            "cursor": {"epoch": epoch, "row": row, "rule": "the rows of a step follow from (seed, step)"},
            "identity": self._identity(),
        }

    def _identity(self) -> dict[str, Any]:
        return {**self.plan.identity(), "objective": self.objective.name, **self.extras.lineage}

    def _resume(self, checkpoint: Checkpoint) -> None:
        """Take over everything a checkpoint holds, so that the next step is the one an uninterrupted run would take."""
        state = checkpoint.state()
        refuse_changes(state["identity"], self._identity(), checkpoint.path)
        weights = ModelFolder.open(checkpoint.path).load().state_dict()
        self.decoder.load_state_dict(weights)
        self.optimizer.load(checkpoint.optimizer())
        known = {name: state[name] for name in asdict(self.progress)}
        self.progress = Progress(**known)
        if known["best_loss"] is None:
            self.progress = replace(self.progress, best_loss=math.inf)
        self.decoder.checkpoint_every = self.progress.checkpoint_every
        self.last_metrics = state["metrics"]
        self.checkpoints.go_on_from(checkpoint, self.progress.best_step)
        self.events.emit(Resumed(self.progress.step))

    def _outcome(self) -> Outcome:
        self.checkpoints.prune()
        best = self.checkpoints.best()
        assert best is not None, "the last step saves a checkpoint, and the first one saved is the best so far"
        progress = self.progress
        return Outcome(progress.step, progress.tokens, best.path, best.step, best.state()["metrics"], progress.skipped)

    # Being stopped

    @contextmanager
    def _listening_for_signals(self) -> Iterator[None]:
        """Turn the first SIGTERM or SIGINT into a wish to stop after this step; a second one acts at once."""

        def note(number: int, frame: FrameType | None) -> None:
            which = signal.Signals(number)
            self._stop_signal = which.name
            signal.signal(which, previous[which])

        try:
            previous = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not the main thread: signals are somebody else's there
            yield
            return
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _stop(self) -> None:
        if self.progress.step >= self.plan.steps:
            return
        newest = self.checkpoints.all()[-1:]
        if not newest or newest[0].step < self.progress.step:
            self._save(regular=False)
        raise Stopped(
            f"stopped by {self._stop_signal} after step {self.progress.step} of {self.plan.steps}; the state is saved",
            fix="run the same command again to go on from here",
        )

    # Telling

    def _log(self, loss: float, rate: float, norm: float, measures: Mapping[str, float], seconds: float) -> None:
        step = self.progress.step
        values = {
            "train/iter": float(step),
            "train/loss": loss,
            "train/lr": rate,
            "train/grad_norm": norm,
            "train/tokens": self.progress.tokens,
            **{f"train/{name}": value for name, value in measures.items()},
        }
        self.events.emit(Metrics(step, values))
        self._timed_steps += 1
        smoothed = self._timed_steps >= FIRST_SMOOTHED_STEP
        self._step_seconds = SMOOTHING * self._step_seconds + (1 - SMOOTHING) * seconds if smoothed else seconds
        speed = self.plan.tokens_per_step / self._step_seconds
        timing = {
            "train/dt_ms": seconds * 1e3,
            "train/tokens_per_s": speed,
            **self._device_share(speed),
            "train/mem_gb": memory_gb(self.compute.device),
        }
        self.events.emit(Timing(step, timing))
        if step % self.plan.log_every == 0 or step == self.plan.steps:
            self.events.progress("training", step, self.plan.steps, "steps", self._line(loss, rate, norm, timing))

    def _device_share(self, tokens_per_second: float) -> dict[str, float]:
        """Return the share of the device's peak that training uses, evaluation and saving left out."""
        if self.extras.peak is None:
            return {}
        return {"train/mfu": tokens_per_second * self.extras.flops_per_token / self.extras.peak.flops_per_second}

    def _line(self, loss: float, rate: float, norm: float, timing: Mapping[str, float]) -> str:
        parts = [
            f"loss {loss:.4f}",
            f"lr {rate:.2e}",
            f"gnorm {norm:.2f}",
            f"{timing['train/tokens_per_s']:,.0f} tok/s",
        ]
        if self.extras.peak is not None:
            parts.append(f"mfu {timing['train/mfu']:.1%} of {self.extras.peak.describe()}")
        if "eval/val_bpb" in self.last_metrics:
            parts.append(f"val {self.last_metrics['eval/val_bpb']:.3f} bits/byte")
        return " | ".join(parts)


def compile_layers(decoder: Decoder) -> None:
    """Compile each layer's forward and backward pass at its first call: all layers share one compiled code."""
    for layer in decoder.model.layers:
        layer.compile()


def is_compile_failure(error: BaseException) -> bool:
    """Return whether an error comes from torch.compile and not from what it compiled."""
    from torch._dynamo.exc import TorchDynamoException

    return isinstance(error, TorchDynamoException)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out; the CPU allocator only says so in words."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)
