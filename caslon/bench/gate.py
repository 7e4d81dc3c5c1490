"""Which results may stand in one table: every reason against a set-up, by name.

A set-up is compared only when its three loads of the contract are complete, nothing failed, every answer has its exact length,
all that a reader needs is known, the figures obey the law, and the traces of its requests agree with them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from caslon.bench.figures import law_holds
from caslon.bench.profiles import CONTRACT
from caslon.bench.results import Result
from caslon.bench.server_metrics import growth
from caslon.bench.traces import read_traces

REQUIRED = (
    "model", "served_model_name", "engine", "engine_version", "dtype", "quantization", "tp", "pp", "dp", "ep", "gpus",
    "hardware", "dataset_name", "endpoint", "client_version", "saved_at_utc", "status",
)  # fmt: skip
SIMULATION = "simulation"  # what a simulated engine calls itself
COUNTERS = {  # of the service, and what each must have grown by
    "vllm:request_success_total": "completed",
    "vllm:prompt_tokens_total": "total_input_tokens",
    "vllm:generation_tokens_total": "total_output_tokens",
}


def reasons_against(results: Sequence[Result]) -> list[str]:
    """Return every reason why a set-up's results may not be compared; none when they may. Scaled loads do not matter here."""
    found = []
    for profile in CONTRACT:
        of_profile = [result for result in results if result.has_figures and result.profile == profile]
        if not of_profile:
            found.append(f"{profile.name}: not measured")
        elif len(of_profile) > 1:
            found.append(f"{profile.name}: {len(of_profile)} results of one set-up; tag them apart")
        else:
            found += [f"{profile.name}: {reason}" for reason in _against(of_profile[0])]
    return found


def suspicion(result: Result) -> str | None:
    """Return why a result's own figures do not fit together; None when they do or the law does not apply."""
    values = result.law
    if values is None or law_holds(values[0], result.profile.concurrency):
        return None
    return f"suspect: rate, TTFT and TPOT do not fit together (law {values[0]:.3f}, uncorrected {values[1]:.3f})"


def _against(result: Result) -> Iterator[str]:
    if reason := suspicion(result):
        yield reason
    if result.metadata.get("source") == "published":
        return
    if result.metadata.get("engine") == SIMULATION:
        yield "answers of a simulated engine"
    data = result.data
    missing = [key for key in REQUIRED if result.metadata.get(key) is None]
    if missing:
        yield f"not known: {', '.join(missing)}"
    if data["failed"] if "failed" in data else data["completed"] != result.profile.prompts:
        yield f"{result.profile.prompts - data['completed']} of {result.profile.prompts} requests failed"
    yield from _lengths(result)
    yield from _traces(result)
    yield from _service(result)


def _lengths(result: Result) -> Iterator[str]:
    profile, data = result.profile, result.data
    for key, total, length in (
        ("input_lens", "total_input_tokens", profile.input_tokens),
        ("output_lens", "total_output_tokens", profile.output_tokens),
    ):
        lengths = data.get(key)
        if data[total] != data["completed"] * length or (lengths and any(one != length for one in lengths)):
            yield f"{key.removesuffix('_lens')} lengths are not exactly {length} tokens"


def _traces(result: Result) -> Iterator[str]:
    path = result.traces_path
    if path is None or not path.is_file():
        yield "no traces of its requests"
        return
    traces = list(read_traces(path))
    if result.metadata.get("hardware") is not None and any(not _tags_agree(trace, result) for trace in traces):
        yield "its traces are those of another run"
    whole = [trace for trace in traces if not trace["error"]]
    for name, traced in (
        ("completed", len(whole)),
        ("total_input_tokens", sum(trace["input_tokens"] for trace in whole)),
        ("total_output_tokens", sum(trace["output_tokens"] or 0 for trace in whole)),
    ):
        if traced != result.data[name]:
            yield f"{name} is {result.data[name]}, its traces say {traced}"


def _tags_agree(trace: dict[str, Any], result: Result) -> bool:
    metadata = result.metadata
    return (trace["served_model_name"], trace["profile"], trace["hardware"]) == (
        metadata["served_model_name"],
        metadata["profile"],
        metadata["hardware"]["name"],
    )


def _service(result: Result) -> Iterator[str]:
    """Hold the figures against the service's own counters, where it has them."""
    before = result.metadata.get("server_metrics_before") or {}
    after = result.metadata.get("server_metrics_after") or {}
    for counter, name in COUNTERS.items():
        grown = growth(before, after, counter)
        if grown is not None and grown != result.data[name]:
            yield f"{name} is {result.data[name]}, the service counted {grown:g}"
