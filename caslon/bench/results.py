"""Result files: what a load gave, and all that is known of the service, in one JSON file with vLLM's keys.

Written whole or not at all, with sorted keys. Files of `vllm bench serve` are read too: what they do not say stays unknown, and
the comparison then says so.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caslon.bench.figures import law
from caslon.bench.profiles import CONTRACT, Profile
from caslon.errors import UserError
from caslon.folders import write_atomic

SUFFIX = ".result.json"
TRACES_SUFFIX = ".traces.jsonl"


@dataclass(frozen=True)
class Result:
    """One load's figures and metadata. `path` is the file it came from; published rows have none."""

    path: Path | None
    data: Mapping[str, Any]

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What is known of the run and the service."""
        metadata: Mapping[str, Any] = self.data["run_metadata"]
        return metadata

    @property
    def has_figures(self) -> bool:
        """Whether the load gave figures at all."""
        return self.data.get("output_throughput") is not None and self.data.get("mean_ttft_ms") is not None

    @property
    def profile(self) -> Profile:
        """The load, by its shape: the contract's where it is one of those, whatever the file is called."""
        shape = self.metadata
        rate = float(shape["request_rate"])
        known = [
            profile
            for profile in CONTRACT
            if _shape(profile)
            == tuple(shape[key] for key in ("input_len", "output_len", "max_concurrency", "num_prompts"))
            and profile.request_rate == rate
        ]
        if known:
            return known[0]
        name = shape.get("profile") or f"{shape['input_len']}x{shape['output_len']}-c{shape['max_concurrency']}"
        arrivals = "closed" if rate == float("inf") else "poisson"
        return Profile(
            name, shape["input_len"], shape["output_len"], shape["max_concurrency"], shape["num_prompts"], arrivals, rate  # type: ignore[arg-type]
        )  # fmt: skip

    @property
    def law(self) -> tuple[float, float] | None:
        """The two values of the law (corrected, uncorrected); None for a load to which it does not apply."""
        profile = self.profile
        if profile.arrivals != "closed" or not self.has_figures or self.data.get("mean_tpot_ms") is None:
            return None
        return law(self.data, profile.output_tokens, profile.concurrency, profile.prompts)

    @property
    def devices(self) -> int | None:
        """Devices that work on one answer or its copies: GPUs, or 1 for a CPU."""
        gpus = self.metadata.get("gpus")
        return None if gpus is None else max(1, gpus)

    @property
    def traces_path(self) -> Path | None:
        """The file of this run's request traces."""
        return None if self.path is None else self.path.with_name(self.path.name.removesuffix(SUFFIX) + TRACES_SUFFIX)


def _shape(profile: Profile) -> tuple[int, int, int, int]:
    return profile.input_tokens, profile.output_tokens, profile.concurrency, profile.prompts


def write_result(path: Path, figures: Mapping[str, Any], metadata: Mapping[str, Any]) -> Result:
    """Write a result file and return it as it will be read again."""
    data = {**figures, "run_metadata": dict(metadata)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")
    return Result(path, data)


def read_result(path: Path) -> Result:
    """Read a result file of ours or of `vllm bench serve`; `UserError` for anything else."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read a result: {error}", where=str(path)) from None
    if not isinstance(data, dict):
        raise UserError("a result file holds one JSON object", where=str(path))
    if "run_metadata" in data:
        return Result(path, data)
    if {"model_id", "output_throughput", "num_prompts"} <= set(data):
        return Result(path, {**data, "run_metadata": _metadata_of_vllm(data)})
    raise UserError(
        "neither a result of 'caslon bench' nor one of 'vllm bench serve'",
        where=str(path),
        fix="move it out of the folder",
    )


def _metadata_of_vllm(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file of `vllm bench serve` says; `--metadata KEY=VALUE` puts further keys beside its own."""
    own = ("hardware", "engine_version", "image", "dtype", "quantization", "launch", "result_tag", "cluster_label")
    counts = ("tp", "pp", "dp", "ep", "gpus")
    completed = data["completed"] or 1
    return {
        "source": "vllm bench serve",
        "model": data["model_id"],
        "served_model_name": data["model_id"],
        "engine": data.get("backend") or data.get("endpoint_type") or "vllm",
        "benchmark_type": "serve",
        "dataset_name": data.get("dataset_name", "random"),
        "input_len": round(data["total_input_tokens"] / completed),
        "output_len": round(data["total_output_tokens"] / completed),
        "num_prompts": data["num_prompts"],
        "max_concurrency": data.get("max_concurrency") or data["num_prompts"],
        "request_rate": data.get("request_rate", "inf"),
        "saved_at_utc": data.get("date"),
        "status": "completed",
        **{key: data.get(key) for key in own},
        **{key: int(data[key]) if str(data.get(key, "")).isdigit() else None for key in counts},
    }


def read_folder(folder: Path) -> list[Result]:
    """Return every result under a folder, in the order of paths; `UserError` when there is none."""
    if not folder.is_dir():
        raise UserError(f"no folder {folder}", fix="give the folder that 'caslon bench matrix' wrote to")
    paths = [path for path in sorted(folder.rglob("*.json")) if path.name.endswith(SUFFIX) or not _is_report(path)]
    if not paths:
        raise UserError("no result files here", where=str(folder), fix="run 'caslon bench matrix' first")
    return [read_result(path) for path in paths]


def _is_report(path: Path) -> bool:
    return path.name in ("report.json", "manifest.json")
