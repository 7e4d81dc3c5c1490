"""The published results of 12 set-ups of large models on H200s, three loads each, as data to check reports by.

Source: https://blog.desigeek.com/post/2026/04/benchmarking-oss-llms/. They say nothing of single requests, and nobody can look
at the service any more: they are shown and ranked apart from results of one's own.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any

from caslon.bench.hardware import described_hardware
from caslon.bench.profiles import CONTRACT
from caslon.bench.results import Result
from caslon.errors import UserError
from caslon.settings import nearest

LANE_FIELDS = (
    "model",
    "engine",
    "engine_version",
    "image",
    "tp",
    "pp",
    "dp",
    "ep",
    "gpus",
    "eager",
    "status",
    "caveat",
)


@cache
def published() -> dict[str, Any]:
    """Return the file of published results as it is."""
    data: dict[str, Any] = json.loads(files("caslon.bench").joinpath("published.json").read_text(encoding="utf-8"))
    return data


def published_results() -> list[Result]:
    """Return a result for each published row, and one without figures for a set-up that never completed."""
    found = published()
    hardware = described_hardware(found["hardware"])
    results = []
    for lane in found["lanes"]:
        metadata = {name: lane[name] for name in LANE_FIELDS} | {
            "source": "published",
            "served_model_name": lane["model"],
            "hardware": hardware,
            "result_tag": found["source"],
        }
        if not lane["results"]:
            results.append(Result(None, {"run_metadata": metadata}))
        for profile in CONTRACT:
            if profile.name in lane["results"]:
                shape = {
                    "profile": profile.name,
                    "input_len": profile.input_tokens,
                    "output_len": profile.output_tokens,
                    "num_prompts": profile.prompts,
                    "max_concurrency": profile.concurrency,
                    "request_rate": "inf",
                }
                data = {**lane["results"][profile.name], "run_metadata": metadata | shape}
                results.append(Result(None, data))
    return results


def row_names() -> list[str]:
    """Return the name of each published row, as `--simulate` takes it: model, number of GPUs, profile."""
    return [row_name(result) for result in published_results() if result.has_figures]


def row_name(result: Result) -> str:
    """Return a published row's name, such as `MiniMax-M2.1/8x/serve-1024x256-c16`."""
    return f"{result.metadata['model']}/{result.metadata['gpus']}x/{result.profile.name}"


def published_row(name: str) -> Result:
    """Return the row of that name; `UserError` when there is none."""
    rows = {row_name(result): result for result in published_results() if result.has_figures}
    if name in rows:
        return rows[name]
    guess = nearest(name, rows)
    raise UserError(
        f"there is no published row '{name}'",
        fix=f"did you mean {guess}?" if guess else f"the rows are: {', '.join(rows)}",
    )
