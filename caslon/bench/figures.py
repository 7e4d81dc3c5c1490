"""What came of a load to figures, under the names of vLLM's own benchmark, and the law that true figures obey.

TPOT is (end - first token) / (tokens - 1). Keys as in https://docs.vllm.ai/en/latest/contributing/benchmarks.html
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from caslon.bench.load import LoadRun

LAW_BOUNDS = (0.97, 1.08)
LAW_SINGLE = 0.005  # one request at a time leaves no room for anything between two answers


def figures_of(run: LoadRun, *, with_gaps: bool = False) -> dict[str, Any]:
    """Return the figures of a load: totals, rates, mean, median and p99 of each time, and arrays with a value per request.

    Only whole answers count in totals, rates and times. `with_gaps` adds the times between pieces (`itls`).
    """
    whole = [one for one in run.exchanges if not one.error]
    input_tokens, output_tokens = sum(one.prompt_tokens for one in whole), sum(one.output_tokens or 0 for one in whole)
    seconds = run.seconds or float("inf")  # on a virtual clock a load that is refused at once takes no time
    figures: dict[str, Any] = {
        "duration": run.seconds,
        "completed": len(whole),
        "failed": len(run.exchanges) - len(whole),
        "total_input_tokens": input_tokens,
        "total_output_tokens": output_tokens,
        "request_throughput": len(whole) / seconds,
        "output_throughput": output_tokens / seconds,
        "total_token_throughput": (input_tokens + output_tokens) / seconds,
        "input_lens": [one.prompt_tokens for one in run.exchanges],
        "output_lens": [one.output_tokens or 0 for one in run.exchanges],
        "ttfts": [one.ttft for one in run.exchanges],
        "e2els": [one.seconds for one in run.exchanges],
        "start_times": [one.started - run.began for one in run.exchanges],
        "errors": [one.error for one in run.exchanges],
    }
    if with_gaps:
        figures["itls"] = [one.gaps for one in run.exchanges]
    times: dict[str, Sequence[float | None]] = {
        "ttft": [one.ttft for one in whole],
        "tpot": [one.tpot for one in whole],
        "itl": [gap for one in whole for gap in one.gaps],
        "e2el": [one.seconds for one in whole],
    }
    for name, values in times.items():
        figures |= _summary(name, [value for value in values if value is not None])
    return figures


def _summary(name: str, seconds: Sequence[float]) -> dict[str, float | None]:
    if not seconds:
        return {f"{statistic}_{name}_ms": None for statistic in ("mean", "median", "p99")}
    return {
        f"mean_{name}_ms": 1000 * statistics.fmean(seconds),
        f"median_{name}_ms": 1000 * statistics.median(seconds),
        f"p99_{name}_ms": 1000 * percentile(seconds, 99),
    }


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that `percent` of the values do not exceed, between two neighbours by their distance (as numpy does)."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def law(figures: Mapping[str, Any], output_tokens: int, concurrency: int, prompts: int) -> tuple[float, float]:
    """Return the share of a closed loop's time that its answers fill, by its own figures: corrected for the last wave, and not.

    An answer takes L = TTFT + (O - 1) TPOT, and `concurrency` of them run at once; the last wave may not be full. The first
    value of true figures is about 1: a rate, a TTFT and a TPOT that were not measured together do not fit.
    """
    seconds = (figures["mean_ttft_ms"] + (output_tokens - 1) * figures["mean_tpot_ms"]) / 1000
    uncorrected = figures["output_throughput"] * seconds / (output_tokens * concurrency)
    waves = math.ceil(prompts / concurrency)
    return uncorrected * waves * concurrency / prompts, uncorrected


def law_holds(value: float, concurrency: int) -> bool:
    """Return whether the corrected value of the law is that of true figures."""
    if concurrency == 1:
        return abs(value - 1) <= LAW_SINGLE
    return LAW_BOUNDS[0] <= value <= LAW_BOUNDS[1]
