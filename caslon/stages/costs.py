"""A training plan to the rows of `caslon plan` about what it costs: memory by what holds it, time, money, advice.

The device is the one here, at the speed that was measured on it, or one of the table in `train/devices.py`.
"""

from caslon.errors import UserError
from caslon.model.config import DecoderConfig
from caslon.model.size import flop_per_token, kv_cache_bytes_per_token, training_memory
from caslon.observe.events import EventLog
from caslon.stages.stage import THIS, PlanRow
from caslon.train.devices import Device, device_named, free_memory_bytes
from caslon.train.forecast import Forecast, Rate, advice, assumed_rate, make_forecast
from caslon.train.plan import TrainPlan
from caslon.train.settings import DeviceSettings

ASSUMED_SHARE = 0.35  # of a GPU's peak, optimiser included: usual for models of this size
# Of the matrix-product peak, optimiser included: measured at depth 4 with Muon on two cores (0.48 in fp32, 0.33 in bf16).
CPU_SHARE = {"fp32": 0.45, "bf16": 0.33, "fp16": 0.33}
PROGRAM_BYTES = 600_000_000  # of Python and torch with their libraries, measured on Linux
LONGEST_MEASUREMENT_SECONDS = 4.0


def forecast_on(
    device: str,
    price_per_hour: float | None,
    chosen: DeviceSettings,
    config: DecoderConfig,
    what: TrainPlan,
    *,
    document_masking: bool,
    data_tokens: int | None,
    may_measure: bool = True,
) -> Forecast:
    """Return the forecast of a run on this device or on a named one; the price of an hour may stand in the settings too.

    Where three steps take seconds and fit into memory, they are timed here, unless that is not allowed.
    """
    if device == THIS:
        rate, room, precision, reason, on_cpu = _here(chosen, config, what, document_masking, may_measure)
    else:
        rate, room, precision, reason, on_cpu = *_there(chosen, device_named(device)), False
    return make_forecast(
        config,
        what,
        precision=precision,
        precision_reason=reason,
        document_masking=document_masking,
        available_bytes=room,
        rate=rate,
        on_cpu=on_cpu,
        data_tokens=data_tokens,
        price_per_hour=chosen.price_per_hour if price_per_hour is None else price_per_hour,
    )


def _there(chosen: DeviceSettings, device: Device) -> tuple[Rate, int, str, str]:
    if chosen.device == "cpu":
        raise UserError(f"the recipe asks for device = 'cpu', the plan for {device.name}", fix="leave one of them out")
    precision = "bf16" if chosen.precision == "auto" else chosen.precision
    reason = f"{device.name} computes bf16" if chosen.precision == "auto" else "setting"
    return assumed_rate(device, precision, ASSUMED_SHARE), device.usable_bytes, precision, reason


def _here(
    chosen: DeviceSettings, config: DecoderConfig, what: TrainPlan, document_masking: bool, may_measure: bool
) -> tuple[Rate, int, str, str, bool]:
    from caslon.train.memory import is_out_of_memory
    from caslon.train.peak import free_bytes, peak_of
    from caslon.train.precision import choose_compute
    from caslon.train.timed_steps import RUNS, seconds_of_step

    compute = choose_compute(chosen)
    peak = peak_of(compute)
    share = CPU_SHARE[compute.precision] if compute.device.type == "cpu" else ASSUMED_SHARE
    rate = Rate(peak.flops_per_second * share, f"estimate: {share:.0%} of {peak.describe()}")
    room = free_memory_bytes() if compute.device.type == "cpu" else free_bytes(compute)
    work = flop_per_token(config, what.context)
    seconds = RUNS * what.micro_batch * what.context * work / rate.flops_per_second
    memory = training_memory(config, micro_batch=what.micro_batch, context=what.context, optimizer=what.optimizer)
    # Compiling takes longer than a plan may take, and what is compiled has another speed.
    if (
        may_measure
        and seconds < LONGEST_MEASUREMENT_SECONDS
        and memory.total < room
        and not compute.compiles(what.steps)
    ):
        try:
            step = seconds_of_step(config, what, compute, document_masking)
            rate = Rate(what.tokens_per_step * work / step, f"three timed steps: {step * 1e3:.3g} ms each")
        except (MemoryError, RuntimeError) as error:  # less room than it seemed: the training itself will find a way
            if not is_out_of_memory(error):
                raise
    return rate, room, compute.precision, compute.reason, compute.device.type == "cpu"


def cost_rows(config: DecoderConfig, what: TrainPlan, forecast: Forecast) -> list[PlanRow]:
    """Return the rows: precision, work, memory, checkpoint, time and, with a price, money."""
    memory = forecast.memory
    parts = ("weights", "gradients", "optimizer", "activations", "logits")
    rows = [
        PlanRow("precision", forecast.precision, "", forecast.precision_reason),
        PlanRow("work for a token", flop_per_token(config, what.context), "FLOP", "computed"),
        PlanRow("training", forecast.flop, "FLOP", "computed"),
        *(PlanRow(f"memory: {part}", getattr(memory, part), "bytes", "computed") for part in parts),
        PlanRow("memory", memory.total, "bytes", "estimate, without the program itself"),
        PlanRow("peak memory", memory.total + PROGRAM_BYTES, "bytes", "estimate, with Python and torch"),
        PlanRow("memory there", forecast.available_bytes, "bytes", "what training may fill"),
        PlanRow("fits", "yes" if forecast.fits else f"no; {forecast.remedy or 'use a smaller model'}", "", "computed"),
        PlanRow("KV cache of a token", kv_cache_bytes_per_token(config), "bytes", "computed, in bf16"),
        PlanRow("checkpoint", forecast.checkpoint_bytes, "bytes", "computed"),
        PlanRow("time of the steps", round(forecast.training_seconds, 1), "s", forecast.rate.origin),
        PlanRow("time of evaluations", round(forecast.evaluation_seconds, 1), "s", "a third of the work of steps"),
        PlanRow("training time", round(forecast.seconds, 1), "s", "both together"),
    ]
    if forecast.cost is not None:
        rows.append(PlanRow("cost", round(forecast.cost, 2), "", f"{forecast.price_per_hour:g} an hour"))
    return rows


def advice_rows(forecast: Forecast) -> list[PlanRow]:
    """Return one row for each piece of advice."""
    return [PlanRow(f"advice {n}", text, "", "advice") for n, text in enumerate(advice(forecast), start=1)]


def tell(events: EventLog, forecast: Forecast) -> None:
    """Print the forecast in a line before training starts, and each piece of advice in one."""
    events.note(forecast.summary())
    for text in advice(forecast):
        events.note(f"advice: {text}")
