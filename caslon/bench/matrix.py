"""Measures a service with several loads, one after another, and writes a result and its traces for each.

The first load is the check of health too: when its answers are no answers, the others are not run and the file says why.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import caslon
from caslon.bench.asking import ENDPOINT
from caslon.bench.figures import figures_of
from caslon.bench.health import reasons_against
from caslon.bench.load import LoadRun, Service, run_load
from caslon.bench.profiles import Profile
from caslon.bench.results import SUFFIX, Result, write_result
from caslon.bench.traces import write_traces
from caslon.errors import CaslonError, UserError


@dataclass(frozen=True)
class Plan:
    """What stays the same for all loads of a matrix: the service, what is known of it, and where results go."""

    service: Service
    known: Mapping[str, Any]
    folder: Path
    tag: str
    seed: int = 0
    warmup: int = 1
    with_gaps: bool = False

    def path_of(self, profile: Profile) -> Path:
        """Return where the result of a load goes."""
        return self.folder / self.tag / f"{profile.name}{SUFFIX}"

    def check_new(self, profiles: Sequence[Profile]) -> None:
        """Raise `UserError` where a result would be written over."""
        for profile in profiles:
            if self.path_of(profile).exists():
                raise UserError(
                    "there is a result of this load and tag already",
                    where=str(self.path_of(profile)),
                    fix="give this run another name: --tag NAME",
                )


async def measure_matrix(plan: Plan, profiles: Sequence[Profile], told: Callable[[Result], None]) -> list[Result]:
    """Run the loads and return their results; `told` gets each as it is written. `CaslonError` when the first is a no-go."""
    results: list[Result] = []
    for profile in profiles:
        result, reasons = await measure(plan, profile)
        results.append(result)
        told(result)
        if reasons and len(results) == 1:
            raise CaslonError(
                f"no-go: {'; '.join(reasons)}", where=str(result.path), fix="mend the service, then measure again"
            )
    return results


async def measure(plan: Plan, profile: Profile) -> tuple[Result, list[str]]:
    """Run one load, write its result and traces, and return the result with every reason against the service's health."""
    run = await run_load(plan.service, profile, seed=plan.seed, warmup=plan.warmup)
    reasons = reasons_against(run.exchanges, profile.output_tokens)
    metadata = _metadata(plan, run, reasons)
    result = write_result(plan.path_of(profile), figures_of(run, with_gaps=plan.with_gaps), metadata)
    traces = result.traces_path
    assert traces is not None
    write_traces(traces, run, metadata)
    return result, reasons


def _metadata(plan: Plan, run: LoadRun, reasons: Sequence[str]) -> dict[str, Any]:
    profile = run.profile
    metadata = {
        **plan.known,
        "source": "own",
        "profile": profile.name,
        "scaled": profile.scaled,
        "benchmark_type": "serve",
        "dataset_name": "random",
        "endpoint": ENDPOINT,
        "input_len": profile.input_tokens,
        "output_len": profile.output_tokens,
        "num_prompts": profile.prompts,
        "max_concurrency": profile.concurrency,
        "request_rate": "inf" if math.isinf(profile.request_rate) else profile.request_rate,
        "arrivals": profile.arrivals,
        "seed": plan.seed,
        "result_tag": plan.tag,
        "saved_at_utc": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "client": "caslon bench",
        "client_version": caslon.__version__,
        "model_digest": next((one.fingerprint for one in run.exchanges if one.fingerprint), None),
        "server_metrics_before": dict(run.metrics_before),
        "server_metrics_after": dict(run.metrics_after),
    }
    if reasons:
        caveat = "; ".join(reasons)
        metadata |= {
            "status": "blocked",
            "caveat": f"{metadata['caveat']}; {caveat}" if metadata.get("caveat") else caveat,
        }
    return metadata
