"""What is known of a service: what it tells itself, and what its operator wrote down where it tells nothing.

A file of the operator (TOML) holds the command that started the service; parallelism, dtype and quantisation are read from that
command instead of being typed. Where the service tells something too and the two differ, the run is refused.
"""

import math
import shlex
import tomllib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import httpx
from pydantic import Field

from caslon.bench.load import Service
from caslon.errors import CaslonError, UserError
from caslon.settings import Settings, checked

FLAGS = {  # of vLLM's command line: the field each one sets
    "--tensor-parallel-size": "tp",
    "-tp": "tp",
    "--pipeline-parallel-size": "pp",
    "-pp": "pp",
    "--data-parallel-size": "dp",
    "-dp": "dp",
    "--dtype": "dtype",
    "--quantization": "quantization",
    "-q": "quantization",
}
COUNTS = ("tp", "pp", "dp")
TOLD = ("engine", "engine_version", "dtype", "quantization", "tp", "pp", "dp", "ep", "device")
ONE_DEVICE = {"tp": 1, "pp": 1, "dp": 1, "ep": False}  # caslon's engine runs on one


class Deployment(Settings):
    """How a service was started, by its operator."""

    engine: str | None = Field(None, description="the program that serves, such as vllm")
    engine_version: str | None = Field(None, description="its version, where the service does not tell it")
    image: str | None = Field(None, description="container image")
    launch: str | None = Field(None, description="the command line that started the service")
    cluster_label: str = Field("", description="which part of the cluster")
    status: Literal["completed", "fallback", "blocked"] = Field(
        "completed", description="fallback: not the shape that was meant to run"
    )
    caveat: str = Field("", description="what a reader must know beside the figures")


def read_deployment(path: Path | None) -> Deployment:
    """Return the operator's file; an empty one for none."""
    if path is None:
        return Deployment()
    if not path.is_file():
        raise UserError(f"no file {path}", where="--deployment")
    try:
        return checked(Deployment, **tomllib.loads(path.read_text(encoding="utf-8")))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"not TOML: {error}", where=str(path)) from None


def launched(command: str) -> dict[str, Any]:
    """Return what a vLLM command line sets: tp, pp, dp, ep, dtype, quantization; what it does not name has vLLM's default."""
    words = [part for word in shlex.split(command) for part in word.split("=", 1)]
    found: dict[str, Any] = {
        "tp": 1,
        "pp": 1,
        "dp": 1,
        "ep": "--enable-expert-parallel" in words,
        "quantization": "none",
    }
    for flag, value in pairwise(words):
        name = FLAGS.get(flag)
        if name is not None:
            found[name] = int(value) if name in COUNTS else value
    return found


async def told_by(service: Service) -> dict[str, Any]:
    """Return what a service tells of itself: model, vocabulary, engine and, where it does, how it computes."""
    try:
        async with service.connected(1) as http:
            cards = (await http.get("/v1/models")).raise_for_status().json()["data"]
            version = await http.get("/version")
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise CaslonError(
            f"the service does not list its models: {error}",
            where=service.url,
            fix="is it running, and is the key right?",
        ) from error
    names = [card["id"] for card in cards]
    wanted = service.model or (names[0] if len(names) == 1 else "")
    card = next((card for card in cards if card["id"] == wanted), None)
    if card is None:
        raise UserError(f"the service has no model '{wanted}'", where=service.url, fix=f"--model {' | '.join(names)}")
    facts = version.json() if version.status_code == httpx.codes.OK else {}
    told = {key: facts[key] for key in TOLD if key in facts}
    if card.get("owned_by") == "caslon":
        told |= ONE_DEVICE
    return {
        "served_model_name": wanted,
        "model": card.get("root") or wanted,
        "engine": card.get("owned_by"),
        "engine_version": facts.get("version"),
        "vocab_size": card.get("vocab_size"),
        **told,
    }


def known(told: Mapping[str, Any], deployment: Deployment, hardware: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return all that is known of a service as metadata; `UserError` where two sources differ or the GPUs do not add up."""
    written = deployment.model_dump()
    if deployment.launch:
        written |= launched(deployment.launch)
    metadata = {key: value for key, value in told.items() if key != "vocab_size"}
    for key, value in written.items():
        if value is None:
            metadata.setdefault(key, None)
        elif metadata.get(key) in (None, value):
            metadata[key] = value
        else:
            raise UserError(
                f"{key}: the service says {metadata[key]!r}, its description {value!r}",
                fix="describe the service that runs, or start the one that is described",
            )
    return metadata | {"hardware": hardware, "gpus": _gpus(metadata, hardware)}


def _gpus(metadata: Mapping[str, Any], hardware: Mapping[str, Any] | None) -> int | None:
    """Return the GPUs at work: tp x pp x dp, none on a CPU; `UserError` when the hardware has fewer."""
    sizes: list[int] = [metadata[key] for key in COUNTS if metadata.get(key) is not None]
    if hardware is None or len(sizes) < len(COUNTS):
        return None
    there = hardware["nodes"] * hardware["gpus_per_node"]
    if metadata.get("device", "cpu" if there == 0 else "cuda") in ("cpu", "none"):
        return 0
    wanted = math.prod(sizes)
    if wanted > there:
        raise UserError(
            f"the service was started for {wanted} GPUs, the hardware '{hardware['name']}' has {there}",
            fix="name the hardware it really runs on",
        )
    return wanted
