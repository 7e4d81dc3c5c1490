"""A model folder to the decoder that answers: where it computes, in which number format, and how its weights are kept."""

import contextlib
import ctypes
import logging
from dataclasses import dataclass
from typing import cast

import torch

from caslon.compress.linear import quantise_layers, resident_bytes
from caslon.compress.stored import stored_format, take_stored_layers
from caslon.engine.planner import (
    DEVICE_MEMORY_SHARE,
    FREE_MEMORY_SHARE,
    KvFormat,
    NumberKind,
    check_memory,
    free_memory_bytes,
    step_bytes,
)
from caslon.engine.runner import why_not_compiled
from caslon.engine.settings import EngineSettings
from caslon.errors import UserError
from caslon.model.decoder import Decoder
from caslon.model.folder import ModelFolder

FIRST_BF16_CAPABILITY = (8, 0)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Placement:
    """Where a model computes and in which format."""

    device: torch.device
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} on {self.device}"


def placement(settings: EngineSettings, stored_dtype: str) -> Placement:
    """Return what was asked for, or what suits the machine; `UserError` where it cannot be had."""
    device = _device(settings.device)
    if settings.dtype == "float16" and device.type == "cpu":
        raise UserError(
            "float16 needs a GPU: a CPU does not compute in it",
            where="dtype",
            fix="use bfloat16, or float32 for accuracy",
        )
    if settings.dtype != "auto":
        return Placement(device, DTYPES[settings.dtype])
    dtype = DTYPES.get(stored_dtype, torch.float32)
    return Placement(device, dtype if _computes(device, dtype) else torch.float32)


def load_decoder(model: ModelFolder, settings: EngineSettings) -> Decoder:
    """Return the folder's decoder, placed and with its weights in the format that was asked for.

    `UserError`, before a weight is read, where it needs more memory than is free.
    """
    settings, is_stored = _as_stored(model, settings)
    where = placement(settings, model.config.dtype)
    kind = cast(NumberKind, str(where.dtype).removeprefix("torch."))
    kv = kind if settings.kv_dtype == "auto" else settings.kv_dtype
    check_memory(model.config, settings, kind=kv, dtype=kind, free_bytes=_free_bytes(where.device))
    weights = settings.weights
    decoder = model.load(
        dtype=where.dtype,
        device=str(where.device),
        take_layers=take_stored_layers if is_stored else None,
        replace_layers=None if is_stored or weights == "auto" else lambda decoder: quantise_layers(decoder, weights),
        keep_mapped=why_not_compiled(model.config, where.device, where.dtype, settings) is None,
    )
    kept = "as stored" if weights == "auto" else weights
    _log.info("computes in %s; weights %s, %s bytes", where, kept, f"{resident_bytes(decoder):,}")
    return decoder


def give_back_freed_memory() -> None:
    """Let glibc return what laying out weights anew or making small ones left behind (measured: as much as the weights)."""
    with contextlib.suppress(OSError, AttributeError):  # another C library does without
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _as_stored(model: ModelFolder, settings: EngineSettings) -> tuple[EngineSettings, bool]:
    """Return the settings with the weights' format that the folder has, and whether it is a quantised one."""
    if not model.quantization_config:
        return settings, False
    if settings.weights != "auto":
        raise UserError(
            f"weights = {settings.weights}, but the folder is quantised already",
            where="weights",
            fix="leave it at auto",
        )
    stored = stored_format(model.quantization_config, model.config.family)
    return settings.model_copy(update={"weights": stored}), True


def kv_format(decoder: Decoder) -> NumberKind:
    """Return the number format in which a decoder computes."""
    return cast(NumberKind, str(decoder.model.embed_tokens.weight.dtype).removeprefix("torch."))


def cache_format(decoder: Decoder, settings: EngineSettings) -> KvFormat:
    """Return the format in which the cache keeps keys and values."""
    return kv_format(decoder) if settings.kv_dtype == "auto" else settings.kv_dtype


def spare_bytes(decoder: Decoder, settings: EngineSettings) -> float:
    """Return the memory that the cache may take where its size is left open: a share of a CPU's, a GPU's but for the rest."""
    device = decoder.device
    if device.type == "cpu":
        return FREE_MEMORY_SHARE * free_memory_bytes()
    free, total = torch.cuda.mem_get_info(device)
    step = step_bytes(decoder.config, kv_format(decoder), settings.max_step_tokens, settings.max_running)
    return DEVICE_MEMORY_SHARE * total - (total - free) - step


def _free_bytes(device: torch.device) -> int:
    return free_memory_bytes() if device.type == "cpu" else int(torch.cuda.mem_get_info(device)[0])


def _device(asked: str) -> torch.device:
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(asked)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"there is no {asked}: {torch.cuda.device_count()} CUDA devices are here",
            where="device",
            fix="use cpu or auto",
        )
    return device


def _computes(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether a device multiplies in a format by itself, without emulation."""
    if dtype == torch.float32:
        return True
    if device.type == "cuda":
        return dtype == torch.float16 or torch.cuda.get_device_capability(device) >= FIRST_BF16_CAPABILITY
    has_bf16: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # AVX512-BF16, AMX or an equal of ARM
    return dtype == torch.bfloat16 and has_bf16
