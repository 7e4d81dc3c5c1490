"""A shape and a training plan to what the run will need: memory by what holds it, time, money, and whether it fits. No torch.

Time is work over a stated rate: the rate of timed steps, or the device's peak times a usual share of it. What does not fit comes
with the smallest change that does.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from caslon.model.config import DecoderConfig
from caslon.model.size import (
    TrainingMemory,
    checkpoint_bytes,
    flop_per_token,
    parameter_counts,
    training_memory,
)
from caslon.observe.console import duration, size
from caslon.train.devices import Device
from caslon.train.plan import FORWARD_SHARE, TOKENS_PER_PARAMETER, TrainPlan

MANY_EPOCHS = 4  # beyond, repeated data teach little: arXiv:2305.16264
FEW_TOKENS_SHARE = 0.5  # of TOKENS_PER_PARAMETER: below, a smaller model trained longer would be better
MOST_PROCESSES = 1024
LOSS_CHUNK_TOKENS = {
    "cpu": 512,
    "cuda": 8192,
}  # tokens whose logits exist at once: those of `objectives/`, where torch is


@dataclass(frozen=True)
class Rate:
    """How fast training computes, and how that is known."""

    flops_per_second: float
    origin: str


@dataclass(frozen=True)
class Forecast:
    """What a run will need. Bytes are of one process."""

    precision: str
    precision_reason: str
    memory: TrainingMemory
    available_bytes: int
    remedy: str | None  # the smallest change that fits; None when the run fits as it is
    checkpoint_bytes: int
    tokens: int
    parameters: int
    epochs: float | None  # None: nobody knows yet how much text there is
    flop: int  # of all training steps
    training_seconds: float
    evaluation_seconds: float
    rate: Rate
    price_per_hour: float | None

    @property
    def fits(self) -> bool:
        """Whether the run fits into the memory that is there."""
        return self.memory.total <= self.available_bytes

    @property
    def seconds(self) -> float:
        """Training and evaluation together."""
        return self.training_seconds + self.evaluation_seconds

    @property
    def cost(self) -> float | None:
        """What the run costs, in the currency of the price; None without a price."""
        return None if self.price_per_hour is None else self.price_per_hour * self.seconds / 3600

    @property
    def tokens_per_parameter(self) -> float:
        """Tokens seen for each trained parameter."""
        return self.tokens / self.parameters

    def summary(self) -> str:
        """Return the forecast in one line."""
        epochs = f", {self.epochs:.3g} epochs" if self.epochs is not None else ""
        cost = f", {self.cost:.2f} in all" if self.cost is not None else ""
        work = (
            f"{self.parameters:,} parameters, {self.tokens:,} tokens ({self.tokens_per_parameter:.3g} for each{epochs})"
        )
        memory = f"{size(self.memory.total)} of {size(self.available_bytes)}"
        return f"plan: {work} | {memory} | about {duration(self.seconds)}{cost} ({self.rate.origin})"


def make_forecast(
    config: DecoderConfig,
    plan: TrainPlan,
    *,
    precision: str,
    precision_reason: str = "",
    document_masking: bool,
    available_bytes: int,
    rate: Rate,
    on_cpu: bool = False,
    data_tokens: int | None = None,
    price_per_hour: float | None = None,
) -> Forecast:
    """Return the forecast of a run. `available_bytes` is what training may fill on one device."""
    needs = _Needs(config, plan, precision, document_masking, on_cpu)
    memory = needs.memory(plan.micro_batch)
    tokens = plan.steps * plan.tokens_per_step
    flop = flop_per_token(config, plan.context) * tokens
    return Forecast(
        precision=precision,
        precision_reason=precision_reason,
        memory=memory,
        available_bytes=available_bytes,
        remedy=None if memory.total <= available_bytes else next(_remedies(needs, available_bytes), None),
        checkpoint_bytes=checkpoint_bytes(config, optimizer=plan.optimizer),
        tokens=tokens,
        parameters=parameter_counts(config).trained,
        epochs=tokens / data_tokens if data_tokens else None,
        flop=flop,
        training_seconds=flop / rate.flops_per_second,
        evaluation_seconds=flop / rate.flops_per_second * _evaluation_share(plan),
        rate=rate,
        price_per_hour=price_per_hour,
    )


def assumed_rate(device: Device, precision: str, share: float) -> Rate:
    """Return the rate of a device that is not here: its peak times the share of it that training usually reaches."""
    return Rate(
        device.peak(precision) * share,
        f"estimate: {share:.0%} of {device.peak(precision) / 1e12:.3g} TFLOP/s ({device.name} {precision})",
    )


def _evaluation_share(plan: TrainPlan) -> float:
    """Return the work of all evaluations as a share of the work of all training steps."""
    evaluations = -(-plan.steps // plan.eval_every)
    return evaluations * plan.eval_batches * FORWARD_SHARE / plan.steps


@dataclass(frozen=True)
class _Needs:
    """The memory of one run under changes that leave its result alone."""

    config: DecoderConfig
    plan: TrainPlan
    precision: str
    document_masking: bool
    on_cpu: bool

    def memory(self, micro_batch: int, *, checkpoint_every: int = 0, processes: int = 1) -> TrainingMemory:
        whole = training_memory(
            self.config,
            micro_batch=micro_batch,
            context=self.plan.context,
            optimizer=self.plan.optimizer,
            checkpoint_every=checkpoint_every or self.plan.checkpoint_every,
            document_masking=self.document_masking,
            loss_chunk=LOSS_CHUNK_TOKENS["cpu" if self.on_cpu else "cuda"],
            activation_bytes=4 if self.precision == "fp32" else 2,
        )
        if processes == 1:
            return whole
        layer = parameter_counts(self.config).matrices // self.config.num_hidden_layers * 4
        shards = {
            name: -(-getattr(whole, name) // processes) + gathered
            for name, gathered in (("weights", layer), ("gradients", layer), ("optimizer", 0))
        }
        return replace(whole, **shards)


def _remedies(needs: _Needs, room: int) -> Iterator[str]:
    """Yield what would make a run fit, the smallest change first."""
    batch = needs.plan.batch
    rows = [count for count in range(needs.plan.micro_batch, 0, -1) if batch % count == 0]
    for every in (0, 1):
        for count in rows:
            memory = needs.memory(count, checkpoint_every=every)
            if memory.total <= room:
                yield _told(count, memory, checkpointing=bool(every))
                break
    processes = 2
    while processes <= MOST_PROCESSES:
        memory = needs.memory(1, checkpoint_every=1, processes=processes)
        if memory.total <= room:
            yield _told(1, memory, checkpointing=True, processes=processes)
            return
        processes *= 2


def _told(rows: int, memory: TrainingMemory, *, checkpointing: bool, processes: int = 1) -> str:
    parts = [f"micro_batch = {rows}"]
    if checkpointing:
        parts.append("activation_checkpointing = 'every-block'")
    if processes > 1:
        parts.append(f"the state divided over {processes} devices (FSDP)")
    return f"{' with '.join(parts[:2])}{''.join(f' and {part}' for part in parts[2:])}: {memory.total / 1e9:.3g} GB"


def advice(forecast: Forecast) -> list[str]:
    """Return what somebody with experience would say about a pretraining run, in short sentences."""
    found = []
    if not forecast.fits:
        need, have = forecast.memory.total / 1e9, forecast.available_bytes / 1e9
        remedy = f"this fits: {forecast.remedy}" if forecast.remedy else "use a smaller model or a shorter context"
        found.append(f"needs {need:.3g} GB of {have:.3g} GB: {remedy}")
    if forecast.epochs is not None and forecast.epochs > MANY_EPOCHS:
        found.append(
            f"{forecast.epochs:.3g} epochs are more than {MANY_EPOCHS}: expect over-fitting; "
            "take more text, fewer steps or more dropout"
        )
    if forecast.tokens_per_parameter < FEW_TOKENS_SHARE * TOKENS_PER_PARAMETER:
        found.append(
            f"{forecast.tokens_per_parameter:.3g} tokens for each parameter are far below the usual {TOKENS_PER_PARAMETER}: "
            "for the same work a smaller model trained longer would be better"
        )
    return found
