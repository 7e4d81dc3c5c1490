"""A program that generates, as a comparison sees it. Each one is a small class and a line in `PEERS`."""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from caslon.errors import UserError
from caslon.settings import nearest

Ids = list[list[int]]


@dataclass(frozen=True)
class Setting:
    """What all programs are given: the model folder, threads, where and in what number format to compute."""

    folder: Path
    threads: int
    device: str  # cpu or cuda
    dtype: str  # float32, bfloat16 or float16
    options: Mapping[str, str]  # of this program alone


class Peer(Protocol):
    """A loaded model. `version` and `dtype` are what the table says of it."""

    version: str
    dtype: str

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: Sequence[int], batch: int) -> Ids:
        """Answer each prompt greedily with exactly its number of tokens, at most `batch` at once; return the new ids."""


PEERS: Mapping[str, str] = MappingProxyType(  # name: the class that loads it
    {
        "caslon": "caslon.peers.caslon_engine:CaslonEngine",
        "transformers": "caslon.peers.transformers_generate:TransformersGenerate",
        "llama.cpp": "caslon.peers.llama_cpp_batches:LlamaCppBatches",
        "vllm": "caslon.peers.vllm_offline:VllmOffline",
    }
)
LIBRARIES: Mapping[str, str] = MappingProxyType(
    {"caslon": "caslon", "transformers": "transformers", "llama.cpp": "llama_cpp", "vllm": "vllm"}
)


@dataclass(frozen=True)
class Spec:
    """A program and its own options, as `caslon:weights=int8,kernels=torch`; `python` is the interpreter it runs in."""

    text: str
    name: str
    options: Mapping[str, str]


def parsed_spec(text: str) -> Spec:
    """Return what a text names; `UserError` for a program that is not known or an option without a value."""
    name, _, rest = text.partition(":")
    if name not in PEERS:
        guess = nearest(name, PEERS)
        raise UserError(
            f"no program '{name}' to compare with",
            fix=f"did you mean {guess}?" if guess else f"known: {', '.join(PEERS)}",
        )
    pairs = [pair.partition("=") for pair in rest.split(",")] if rest else []
    if any(not value for _, _, value in pairs):
        raise UserError(f"'{text}': an option is written NAME=VALUE", fix="for example caslon:weights=int8")
    options = {key: value for key, _, value in pairs}
    shown = ",".join(f"{key}={value}" for key, value in options.items() if key != "python")
    return Spec(f"{name}:{shown}" if shown else name, name, options)


def is_installed(name: str) -> bool:
    """Return whether the library of a program is here."""
    return importlib.util.find_spec(LIBRARIES[name]) is not None


def loaded(name: str, setting: Setting) -> Peer:
    """Load a model in a program of that name."""
    module, _, kind = PEERS[name].partition(":")
    peer: Peer = getattr(importlib.import_module(module), kind)(setting)
    return peer
