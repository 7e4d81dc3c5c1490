"""The only training loop: batches in, checkpoints and events out; stop it anywhere and it goes on to the same last bit.

A step is a function of the weights, the optimiser's state and its number: its batch comes from (seed, step), and so does the
random state of its dropout. What else the loop carries from step to step stands in `trainer.json`. The loss is a sum divided
once by the targets of the whole step, so micro-batches change nothing but memory.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from caslon.errors import CaslonError, Diverged, OutOfMemory, Stopped, StorageError, UserError
from caslon.model.decoder import Decoder
from caslon.observe.events import EventLog, Line, Metrics, Resumed, Sample, Timing
from caslon.train.batches import Batch, Batches
from caslon.train.checkpoint import Checkpoint, Checkpoints, refuse_changes
from caslon.train.compilation import CompiledLayers
from caslon.train.distributed import ALONE, Processes
from caslon.train.extras import NO_EXTRAS, Extras, Outcome
from caslon.train.health import Health
from caslon.train.loss_scale import LossScale
from caslon.train.memory import is_out_of_memory, shrink_evaluation, shrink_step
from caslon.train.objectives import Objective, add_metrics
from caslon.train.optimizer import Optimizer
from caslon.train.plan import TrainPlan
from caslon.train.precision import Compute, is_nondeterministic
from caslon.train.progress import Progress
from caslon.train.progress_line import evaluation_line, step_line
from caslon.train.random_states import random_states, restore_random_states, seed_all
from caslon.train.saving import SaveModel, Saver
from caslon.train.speed import Speed
from caslon.train.stopping import StopWish
from caslon.train.validation import measures_of, validation_sums

SKIPS_BEFORE_REWIND = 5
REWINDS_BEFORE_STOP = 2
IDLE_SECONDS = 1e-3  # a device that answers so soon after the next batch was made had nothing left to do

T = TypeVar("T")


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
        processes: Processes = ALONE,
    ) -> None:
        self.plan, self.objective, self.batches = plan, objective, batches
        self.checkpoints, self.events, self.compute, self.extras = checkpoints, events, compute, extras
        self.processes = processes
        self.saver = Saver(checkpoints, save_model, processes, in_background=compute.device.type == "cuda")
        self.decoder = processes.spread(decoder, compute)
        self.optimizer = Optimizer(
            self.decoder,
            plan.optimizer,
            weight_decay=plan.weight_decay,
            table_rate_ratio=plan.table_rate_ratio,
            head_rate_ratio=plan.head_rate_ratio,
            momentum=plan.momentum,
            beta1=plan.beta1,
            product_dtype=compute.product_dtype,
            state_format=plan.optimizer_state,
            processes=processes,
        )
        rows = processes.micro_batch(plan)
        self.progress = Progress(micro_batch=rows, eval_rows=rows, checkpoint_every=plan.checkpoint_every)
        self.decoder.checkpoint_every = plan.checkpoint_every
        self.health = Health(
            chance_loss=extras.chance_loss,
            rows_per_step=plan.batch,
            rows_per_epoch=batches.rows_per_epoch,
            rewind=extras.rewind_command,
        )
        self.loss_scale = LossScale() if compute.scales_loss else None
        self.layers = CompiledLayers(self.decoder, wanted=compute.compiles(plan.steps))
        self.stop = StopWish(plan.max_minutes)
        self.last_metrics: dict[str, float] = {}
        self.speed = Speed(plan.tokens_per_step, extras.flops_per_token, extras.peak, compute.device, processes.world)
        self._has_compiled = False
        self._prepared: tuple[int, Batch] | None = None

    def run(self) -> Outcome:
        """Train to the last step, from the newest intact checkpoint if there is one; `Stopped` on a signal or a time limit."""
        try:
            return self._run()
        except RuntimeError as error:
            if is_nondeterministic(error):
                raise CaslonError(
                    str(error).splitlines()[0],
                    fix="set deterministic = false, or train on the CPU, which always repeats",
                ) from error
            raise

    def _run(self) -> Outcome:
        found = self.saver.newest_intact()
        if found:
            self._resume(found)
        self.decoder.train()
        with self.stop.listening():
            while not self._is_over():
                if self._step():
                    self._evaluate_if_due()
                    self._save_if_due()
                if self.processes.agree(self.stop.reason is not None):
                    self._stop(self.stop.reason or "another process")
        return self._outcome()

    def _is_over(self) -> bool:
        patience = self.plan.patience
        return self.progress.step >= self.plan.steps or bool(
            patience and self.progress.evaluations_without_gain >= patience
        )

    # One step

    def _step(self) -> bool:
        """Take one step; return whether the run is one step further, and not back at a checkpoint."""
        began = time.perf_counter()
        progress = self.progress
        rate = self.plan.schedule.rate(progress.step) * progress.scale()
        batch = self._batch(progress.step)
        waited = time.perf_counter() - began
        loss, norm, measures, count, waited_more = self._loss_and_norm(batch)
        is_finite = math.isfinite(loss) and math.isfinite(norm)
        if is_finite:
            self._update(rate)
            progress.skipped_in_row = 0
            progress.recent_loss += loss
            progress.recent_count += count
        self.decoder.zero_grad(set_to_none=True)
        progress.step += 1
        progress.tokens += self.plan.tokens_per_step
        if not is_finite:
            return self._skip(batch, loss, norm)
        self._log(loss / count, rate, norm, measures, time.perf_counter() - began, waited + waited_more)
        return True

    def _batch(self, step: int) -> Batch:
        number, batch = self._prepared or (None, None)
        return batch if batch is not None and number == step else self.batches.batch(step, self.plan.batch)

    def _prepare(self, step: int) -> None:
        if step < self.plan.steps and (self._prepared is None or self._prepared[0] != step):
            self._prepared = step, self.batches.batch(step, self.plan.batch)

    def _loss_and_norm(self, batch: Batch) -> tuple[float, float, Mapping[str, float], int, float]:
        """Return summed loss, gradient norm, measures, count of targets and seconds the device waited; leave the gradient.

        A gradient that overflows only because of the loss's factor is made again with a smaller one, from the same numbers.
        """
        while True:
            seed_all(self.processes.seed(self.plan.seed), self.progress.step)
            loss_there, sums, count = self._gradients(batch)
            norm_there = self._clipped_norm()
            began = time.perf_counter()
            self._prepare(self.progress.step + 1)  # while a GPU still computes: the next line waits for it
            made = time.perf_counter()
            loss, norm = float(loss_there), float(norm_there)
            waited = made - began if time.perf_counter() - made < IDLE_SECONDS else 0.0
            if self._is_settled(loss, norm):
                return loss, norm, self.objective.measures(loss, count, sums), count, waited
            self.decoder.zero_grad(set_to_none=True)

    def _is_settled(self, loss: float, norm: float) -> bool:
        """Return whether a gradient is to be taken, or skipped, as it is, and not made again with a smaller factor."""
        if self.loss_scale is None or not math.isfinite(loss):
            return True
        if math.isfinite(norm):
            self.loss_scale.held()
            return True
        return not self.loss_scale.overflowed()

    def _clipped_norm(self) -> Tensor:
        """Take the loss's factor out of the gradient and clip it; return its norm before clipping."""
        if self.loss_scale is not None:
            found = [parameter.grad for parameter in self.decoder.parameters() if parameter.grad is not None]
            torch._foreach_mul_(found, 1.0 / self.loss_scale.value)
        return self.processes.clip(self.decoder.parameters(), self.plan.clip)

    def _gradients(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor], int]:
        """Return the summed loss and metrics of a whole batch and its count, and leave the gradient of loss by count."""
        count = self.objective.count(batch)
        share, _ = self.processes.share(batch)
        loss, sums = self._in_memory_of_all(
            lambda: self._accumulated(share, count),
            lambda: shrink_step(self.progress, self.plan.batch // self.processes.world, self.extras.memory_advice),
        )
        self.processes.add_gradients(self.decoder.parameters())
        sums = self.processes.total({**sums, "loss": loss})
        return sums.pop("loss"), sums, count

    def _in_memory_of_all(self, work: Callable[[], T], shrink: Callable[[], str]) -> T:
        """Return the result of work that fits into the memory of every process; until it does, all shrink and repeat it."""
        while True:
            found = self._unless_out_of_memory(work)
            if not self.processes.agree(found is None):
                assert found is not None
                return found
            self.decoder.zero_grad(set_to_none=True)
            self.events.warn(shrink())
            self.decoder.checkpoint_every = self.progress.checkpoint_every
            self._give_memory_back()

    def _unless_out_of_memory(self, work: Callable[[], T]) -> T | None:
        while True:
            try:
                return work()
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                self.decoder.zero_grad(set_to_none=True)
                if self.layers.failed(error):
                    self.events.warn(self.layers.give_up(error))
                    continue
                if not is_out_of_memory(error):
                    raise
                if not self.processes.can_repeat:
                    smaller = max(1, self.progress.micro_batch // 2)
                    how = f"resume RUN --set pretrain.micro_batch={smaller} --allow-change"
                    raise OutOfMemory(
                        "out of memory within a step", fix=f"set micro_batch = {smaller}: {how}"
                    ) from error
                return None

    def _accumulated(self, batch: Batch, count: int) -> tuple[Tensor, dict[str, Tensor]]:
        scale = (self.loss_scale.value if self.loss_scale else 1.0) / count
        total, sums = torch.zeros((), dtype=torch.float64, device=self.compute.device), dict[str, Tensor]()
        for micro in batch.split(self.progress.micro_batch):
            with self.compute.autocast():
                part = self.objective.loss(self.decoder, micro.to(self.compute.device))
            (part.sum * scale).backward()  # type: ignore[no-untyped-call]
            total += part.sum.detach()
            add_metrics(sums, part.metrics)
        return total, sums

    def _update(self, rate: float) -> None:
        try:
            self.optimizer.step(rate)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(
                "the optimiser's state does not fit into memory", fix=self.extras.memory_advice
            ) from error

    def _give_memory_back(self) -> None:
        if self.compute.device.type == "cuda":
            torch.cuda.empty_cache()

    # Steps that are not finite

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
        self.saver.wait()
        found = self.saver.newest_intact()
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
        if self._is_evaluation_due():
            with self.layers.paused():
                self._evaluate()

    def _evaluate(self) -> None:
        began = time.perf_counter()
        progress, values = self.progress, {"eval/iter": float(self.progress.step)}
        if progress.recent_count:
            values["eval/train_loss"] = progress.recent_loss / progress.recent_count
        if self.extras.training:
            values |= self._measured(self.extras.training, "train")
        if self.extras.validation:
            values |= self._measured(self.extras.validation, "val")
        whole = self._whole_decoder()
        if measure := self.extras.measure:
            values |= self.processes.first(lambda: dict(measure(whole, progress.step)))
        self._judge(values)
        progress.recent_loss, progress.recent_count = 0.0, 0
        self.last_metrics = values
        self.events.emit(Metrics(progress.step, values))
        self.events.emit(Line("training", progress.step, self.plan.steps, evaluation_line(values, self.plan.steps)))
        self.processes.first(lambda: self._sample(whole))
        self.decoder.train()
        self.events.emit(Timing(progress.step, {"eval/seconds": time.perf_counter() - began}))

    def _measured(self, batches: Sequence[Batch], split: str) -> dict[str, float]:
        sums = self._in_memory_of_all(
            lambda: validation_sums(
                self.decoder, self.objective, batches, self.compute, self.processes, rows=self.progress.eval_rows
            ),
            lambda: shrink_evaluation(self.progress, self.extras.memory_advice),
        )
        return measures_of(self.objective, self.processes.total(sums), split)

    def _judge(self, values: Mapping[str, float]) -> None:
        """Note whether this evaluation is the best so far, and what it says of the run's health."""
        metric = self.plan.best_metric
        if self.extras.validation or self.extras.measure:
            if metric not in values:
                raise UserError(
                    f"best_metric = '{metric}' is no measure of this run",
                    fix=f"take one of: {', '.join(sorted(values))}",
                )
            self.progress.note_evaluation(metric, values[metric])
        if "eval/train_loss" in values and "eval/val_loss" in values:
            share = self.progress.step / self.plan.steps
            for note in self.health.after_evaluation(share, values["eval/train_loss"], values["eval/val_loss"]):
                self.events.warn(note)

    def _whole_decoder(self) -> Decoder:
        """Return what is measured and sampled from, whole in the first process."""
        if not (self.extras.measure or self.extras.sample):
            return self.decoder
        whole = self.processes.whole(self.decoder)
        return whole.to(self.compute.device) if self.processes.is_first else whole

    @torch.no_grad()
    def _sample(self, decoder: Decoder) -> None:
        if self.extras.sample is None:
            return
        decoder.eval()
        try:
            samples = self.extras.sample(decoder, self.progress.step)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            samples = ()
            self.events.warn(f"no samples at step {self.progress.step}: out of memory")
        for prompt, text in samples:
            self.events.emit(Sample(self.progress.step, prompt, text))

    # Checkpoints

    def _save_if_due(self) -> None:
        step, every = self.progress.step, self.plan.save_every
        if self._is_evaluation_due() or (every and step % every == 0):
            self._save(regular=True)

    def _save(self, *, regular: bool) -> None:
        began = time.perf_counter()
        progress = self.progress
        is_best = progress.best_step in (None, progress.step)
        tensors = {**self.optimizer.state(), **random_states()}
        saved = self.saver.save(progress.step, self.decoder, tensors, self._state(regular), best=is_best)
        if self._is_over() and not (saved and self.saver.wait()):
            raise StorageError(
                "the last checkpoint could not be written", where=str(self.checkpoints.folder), fix="free disk space"
            )
        self.events.emit(Timing(progress.step, {"save/seconds": time.perf_counter() - began}))

    def _state(self, regular: bool) -> dict[str, Any]:
        epoch, row = divmod(self.progress.step * self.plan.batch, self.batches.rows_per_epoch)
        return {
            **self.progress.to_json(),
            "format": 2,
            "regular": regular,  # false: written because the run was stopped
            "metrics": self.last_metrics,
            "health": self.health.state(),
            "loss_scale": [self.loss_scale.value, self.loss_scale.steps] if self.loss_scale else None,
            "cursor": {
                "epoch": epoch,
                "row": row,
                "shuffle_seed": self.plan.seed,
                "rule": "the rows of a step, and the random numbers in it, follow from (seed, step)",
            },
            "identity": self._identity(),
            "processes": self.processes.world,
            "recipe": dict(self.extras.recipe),
        }

    def _identity(self) -> dict[str, Any]:
        return {**self.plan.identity(), "objective": self.objective.name, **self.extras.lineage}

    def _resume(self, checkpoint: Checkpoint) -> None:
        """Take over everything a checkpoint holds, so that the next step is the one an uninterrupted run would take."""
        state = checkpoint.state()
        identity, allow = self._identity(), self.extras.allow_change
        changes = refuse_changes(state["identity"], identity, checkpoint.path, allow_change=allow)
        tensors = checkpoint.tensors(*self.processes.part)
        self.processes.load(self.decoder, lambda: self.extras.read_weights(checkpoint.path))
        self.optimizer.load(tensors)
        restore_random_states(tensors)
        self.progress = Progress.from_json(state)
        if state["processes"] != self.processes.world:
            self.progress.micro_batch = self.progress.eval_rows = self.processes.micro_batch(self.plan)
        self._take_changes(changes)
        self.decoder.checkpoint_every = self.progress.checkpoint_every
        self.last_metrics = state["metrics"]
        self.health.load(state["health"])
        if self.loss_scale is not None and state["loss_scale"] is not None:
            self.loss_scale = LossScale(*state["loss_scale"])
        self.saver.go_on_from(checkpoint, self.progress.best_step)
        self.events.emit(Resumed(self.progress.step))
        if changes:
            self._save(regular=bool(state["regular"]))  # so that a run killed after this goes on with them

    def _take_changes(self, changes: Sequence[str]) -> None:
        if changes:
            self.events.warn(f"changed from step {self.progress.step} on: {'; '.join(changes)}")
        for change in changes:
            name = change.partition(":")[0]
            if name in ("micro_batch", "checkpoint_every"):  # what a lack of memory had made of the old value is void
                setattr(self.progress, name, getattr(self.plan, name))

    def _outcome(self) -> Outcome:
        self.saver.wait()
        best = self.saver.best()
        assert best is not None, "the last step saves a checkpoint, and the first one saved is the best so far"
        progress = self.progress
        if progress.step < self.plan.steps:
            self.events.note(
                f"stopped early at step {progress.step} of {self.plan.steps}: no better {self.plan.best_metric} in "
                f"{progress.evaluations_without_gain} evaluations; the best was at step {best.step}"
            )
        return Outcome(progress.step, progress.tokens, best.path, best.step, best.state()["metrics"], progress.skipped)

    def _stop(self, reason: str) -> None:
        if self._is_over():
            return
        self.saver.wait()
        newest = self.saver.newest()
        if newest is None or newest.step < self.progress.step:
            self._save(regular=False)
            self.saver.wait()
        raise Stopped(
            f"stopped by {reason} after step {self.progress.step} of {self.plan.steps}; the state is saved",
            fix="run the same command again to go on from here",
        )

    # Telling

    def _log(
        self, loss: float, rate: float, norm: float, measures: Mapping[str, float], seconds: float, waited: float
    ) -> None:
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
        for note in self.health.after_step(step, loss, norm):
            self.events.warn(note)
        if self.layers.on and not self._has_compiled:  # the first step is mostly the compiler's
            self._has_compiled = True
            self.events.emit(Timing(step, {"compile/seconds": seconds}))
            return
        for note in self.health.after_waiting(waited, seconds):
            self.events.warn(note)
        self.events.emit(Timing(step, self.speed.note(seconds, waited)))
        if step % self.plan.log_every == 0 or step == self.plan.steps:
            text = step_line(step, self.plan.steps, loss, rate, norm, self.speed)
            self.events.emit(Line("training", step, self.plan.steps, text))
