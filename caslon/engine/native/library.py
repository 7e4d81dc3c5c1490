"""The compiled kernels as Python sees them: the library beside this file, and its structures of numbers and pointers.

It is plain C++ without Python's or torch's headers, built when caslon is installed where there is a compiler.
"""

import ctypes
from ctypes import c_float, c_int32, c_int64, c_void_p
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

FLOAT32, BFLOAT16 = 0, 1
SAME, INT8, INT4 = 0, 1, 2
ACTIVATIONS = {"silu": 0, "gelu_new": 1, "gelu_pytorch_tanh": 1, "gelu": 2, "relu": 3}
PANEL = 32  # outputs that lie side by side in a packed weight matrix


class Matrix(ctypes.Structure):
    """A packed weight matrix; see products.h."""

    _fields_ = [
        ("outputs", c_int32),
        ("inputs", c_int32),
        ("format", c_int32),
        ("group", c_int32),
        ("panels", c_void_p),
        ("scales", c_void_p),
        ("levels", c_void_p),
        ("bias", c_void_p),
    ]


class Layer(ctypes.Structure):
    """The weights of a layer; see step.cpp."""

    _fields_ = [
        *(
            (name, c_void_p)
            for name in ("input_norm", "input_norm_bias", "post_norm", "post_norm_bias", "query_norm", "key_norm")
        ),
        *((name, Matrix) for name in ("qkv", "output", "up", "down")),
        *((name, c_void_p) for name in ("router", "expert_up", "expert_down")),
    ]


class Model(ctypes.Structure):
    """A decoder; see step.cpp."""

    _fields_ = [
        *(
            (name, c_int32)
            for name in (
                "kind", "layers", "width", "heads", "key_heads", "head_size", "inner", "vocabulary", "experts",
                "experts_per_token", "is_gated", "activation", "is_rms", "context",
            )
        ),
        ("norm_eps", c_float),
        *((name, c_void_p) for name in ("embedding", "positions", "cosines", "sines", "norm", "norm_bias", "layer")),
        ("head", Matrix),
    ]  # fmt: skip


class Addition(ctypes.Structure):
    """What an adapter adds to one linear layer; see step.cpp."""

    _fields_ = [("target", c_int32), ("rank", c_int32), ("scaling", c_float), ("a", c_void_p), ("b", c_void_p)]


class AdaptedRows(ctypes.Structure):
    """The rows of a step that one adapter adds to; see step.cpp."""

    _fields_ = [("rows", c_void_p), ("count", c_int32), ("firsts", c_void_p), ("additions", c_void_p)]


class Step(ctypes.Structure):
    """The tokens of a step and where its results go; see step.cpp."""

    _fields_ = [
        *((name, c_int32) for name in ("tokens", "spans", "table_width", "outputs", "scored", "block_tokens", "threads")),
        *(
            (name, c_void_p)
            for name in (
                "ids", "places", "span_rows", "span_tokens", "span_starts", "tables", "output_rows", "hidden", "logits", "cache",
            )
        ),
        ("cache_blocks", c_int64),
        ("scratch", c_void_p),
        ("adapters", c_void_p),
        ("adapter_count", c_int32),
    ]  # fmt: skip


LAYOUT = 1  # of what the structures and functions mean; step.cpp has the same number


class KernelsMissing(Exception):
    """The kernels cannot be used; the text says why."""


def library() -> ctypes.CDLL:
    """Return the kernels; `KernelsMissing` where they were not built or this processor lacks the instructions."""
    found = _loaded()
    if isinstance(found, str):
        raise KernelsMissing(found)
    return found


@cache
def _loaded() -> ctypes.CDLL | str:
    folder = Path(__file__).parent
    file = next((path for suffix in EXTENSION_SUFFIXES if (path := folder / f"kernels{suffix}").is_file()), None)
    if file is None:
        return "they were not built when caslon was installed (no C++ compiler, or another system than Linux on x86-64)"
    found = ctypes.CDLL(str(file))
    sizes = (c_int64 * 5)()
    found.caslon_layout(sizes)
    if list(sizes) != [LAYOUT, *(ctypes.sizeof(kind) for kind in (Matrix, Layer, Model, Step))]:
        return "they were built from another version of the sources; install caslon again"
    if not found.caslon_is_supported():
        return "this processor has no AVX-512 with bfloat16"
    found.caslon_scratch_bytes.restype = c_int64
    found.caslon_scratch_bytes.argtypes = (c_void_p, c_void_p)
    found.caslon_pack.argtypes = (c_int32, c_void_p, c_int32, c_int32, c_int32, c_int32, c_void_p)
    found.caslon_team.restype = c_void_p
    found.caslon_team.argtypes = (c_int32,)
    found.caslon_dismiss.argtypes = (c_void_p,)
    found.caslon_step.argtypes = (c_void_p, c_void_p, c_void_p)
    return found
