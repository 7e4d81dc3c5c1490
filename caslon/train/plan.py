"""The plan of a training run: every number the loop needs, each from the recipe or derived, with where it came from.

Imports no torch. In pretraining one dial derives them: depth sets the shape, the shape sets batch, rate and steps.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

from caslon.errors import UserError
from caslon.train.schedule import Schedule
from caslon.train.settings import OptimizationSettings, UpkeepSettings

TOKENS_PER_PARAMETER = 20  # arXiv:2203.15556, table 3
# Muon's rate suits matrices; a vocabulary's rows get few gradients each and want more. Measured at width 128 after 290,000
# tokens: 2.340 bits per byte at 1, 2.267 at 4; with both rates raised together 2.359.
TABLE_RATE_RATIO = {"adamw": 1.0, "muon": 4.0}
EVALUATIONS = 5
EVALUATION_SHARE = 0.1  # of the work of the training steps, at most
FORWARD_SHARE = 1 / 3  # of a training step
FEWEST_EVALUATION_BATCHES, MOST_EVALUATION_BATCHES = 8, 100
T = TypeVar("T")


@dataclass(frozen=True)
class TrainPlan:
    """Everything the loop needs to know, with no key left open."""

    steps: int
    batch: int
    micro_batch: int
    context: int
    schedule: Schedule
    optimizer: Literal["adamw", "muon"]
    table_rate_ratio: float
    head_rate_ratio: float
    momentum: float
    beta1: float
    weight_decay: float
    clip: float
    seed: int
    eval_every: int
    eval_batches: int
    save_every: int | None
    keep: int
    on_nan: Literal["skip", "stop"] = "skip"
    optimizer_state: Literal["fp32", "int8"] = "fp32"
    checkpoint_every: int = 0  # layers between two whose activations are computed again in the backward pass; 0 = none
    keep_every: int | None = None
    best_metric: str = "eval/val_loss"
    patience: int | None = None
    max_minutes: float | None = None
    log_every: int = 10

    def __post_init__(self) -> None:
        if self.batch % self.micro_batch:
            raise UserError(f"micro_batch {self.micro_batch} does not divide batch {self.batch}")

    @property
    def tokens_per_step(self) -> int:
        """Tokens the model sees in one step."""
        return self.batch * self.context

    def identity(self) -> dict[str, Any]:
        """Return what must not change between the parts of one run."""
        fixed = asdict(self)
        return {name: value for name, value in fixed.items() if name not in ("log_every", "max_minutes")}


class Origins(dict[str, str]):
    """Where each value of a plan came from, by its name."""

    def choose(self, name: str, setting: T | None, derived: T, why: str) -> T:
        """Return the setting, or the derived value when there is none, and note which it was."""
        self[name] = "setting" if setting is not None else why
        return setting if setting is not None else derived


@dataclass(frozen=True)
class Defaults:
    """What a stage takes for keys that are left out. `steps` is asked last, when tokens per step are known."""

    context: int
    batch: int
    learning_rate: float
    steps: Callable[[int], int]  # tokens per step -> steps
    steps_why: str
    why: str
    warmup_share: float


def make_plan(
    optimization: OptimizationSettings, upkeep: UpkeepSettings, defaults: Defaults, *, seed: int
) -> tuple[TrainPlan, Origins]:
    """Return a plan with no key left open, and where its values came from."""
    origins = Origins()
    context = origins.choose("context", optimization.context, defaults.context, defaults.why)
    batch = origins.choose("batch", optimization.batch, defaults.batch, defaults.why)
    micro_batch = origins.choose("micro_batch", optimization.micro_batch, batch, "the whole batch at once")
    steps = origins.choose("steps", optimization.steps, defaults.steps(batch * context), defaults.steps_why)
    peak = origins.choose("learning_rate", optimization.learning_rate, defaults.learning_rate, defaults.why)
    by_optimizer = TABLE_RATE_RATIO[optimization.optimizer]
    ratio = origins.choose(
        "table_rate_ratio", optimization.table_rate_ratio, by_optimizer, f"usual with {optimization.optimizer}"
    )
    head_ratio = origins.choose("head_rate_ratio", optimization.head_rate_ratio, ratio, "as table_rate_ratio")
    warmup = round(defaults.warmup_share * steps)
    warmup = origins.choose("warmup_steps", optimization.warmup_steps, warmup, f"{defaults.warmup_share:.0%} of steps")
    every = max(1, steps // EVALUATIONS)
    eval_every = origins.choose("eval_every", upkeep.eval_every, every, f"{EVALUATIONS} times in the run")
    affordable = round(EVALUATION_SHARE * eval_every / FORWARD_SHARE)
    eval_batches = min(MOST_EVALUATION_BATCHES, max(FEWEST_EVALUATION_BATCHES, affordable))
    why = (
        f"evaluation costs {EVALUATION_SHARE:.0%} of training, {FEWEST_EVALUATION_BATCHES} to {MOST_EVALUATION_BATCHES}"
    )
    if upkeep.val_tokens:
        eval_batches, why = -(-upkeep.val_tokens // (batch * context)), "val_tokens"
    eval_batches = origins.choose("eval_batches", upkeep.eval_batches, eval_batches, why)
    schedule = Schedule(
        name=optimization.schedule,
        peak=peak,
        steps=steps,
        warmup_steps=warmup,
        floor=peak * optimization.min_rate_ratio,
        decay_steps=round(steps * optimization.decay_share),
    )
    plan = TrainPlan(
        steps=steps,
        batch=batch,
        micro_batch=micro_batch,
        context=context,
        schedule=schedule,
        optimizer=optimization.optimizer,
        table_rate_ratio=ratio,
        head_rate_ratio=head_ratio,
        momentum=optimization.momentum,
        beta1=optimization.beta1,
        weight_decay=optimization.weight_decay,
        clip=optimization.clip,
        seed=seed,
        eval_every=eval_every,
        eval_batches=eval_batches,
        save_every=upkeep.save_every,
        keep=upkeep.keep,
        on_nan=optimization.on_nan,
        optimizer_state=optimization.optimizer_state,
        checkpoint_every=upkeep.checkpoint_every,
        keep_every=upkeep.keep_every,
        best_metric=upkeep.best_metric,
        patience=upkeep.patience,
        max_minutes=upkeep.max_minutes,
        log_every=upkeep.log_every,
    )
    return plan, origins
