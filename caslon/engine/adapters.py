"""PEFT adapter folders to low-rank additions that requests ask for by name, several in one step.

An adapter adds `(x A^T) B^T * scaling` to the results of some linear layers (LoRA, arXiv:2106.09685). The decoder's own
weights stay as they are: rows of a step that belong to requests with an adapter get its addition, the others nothing, so
requests with different adapters and with none are computed together. What leaves the table stays in memory until the last
request that uses it has ended.

Shapes: `N` rows of the step, `n` rows of one adapter, `I` inputs and `O` outputs of a layer, `r` rank.
"""

import json
import math
import re
import threading
import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from caslon.engine.paged import padded_rows
from caslon.engine.request import RequestError
from caslon.engine.request import Sequence as Running
from caslon.engine.scheduler import StepPlan
from caslon.errors import CaslonError, UserError
from caslon.folders import digest_of, sha256_of_file
from caslon.model.decoder import Decoder

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
SIDECAR_FILE = "caslon.json"  # with `base_digest`, the digest of the model folder the adapter was trained on
MAX_RANK = 64
PREFIX = "base_model.model."
_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_GPT2_TARGETS = {
    "attn.c_attn": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),  # one matrix on disk, three here
    "attn.c_proj": ("self_attn.o_proj",),
    "mlp.c_fc": ("mlp.up_proj",),
    "mlp.c_proj": ("mlp.down_proj",),
}
# What would change the result and is not done here -> the value at which it changes nothing.
_NEUTRAL = {"use_dora": False, "bias": "none", "modules_to_save": None, "lora_bias": False, "use_qalora": False}


class UnknownAdapter(RequestError):
    """A request names an adapter that is not there."""

    code = "model_not_found"


@dataclass(frozen=True)
class LowRank:
    """The addition to one linear layer."""

    down: Tensor  # A, [r, I]
    up: Tensor  # B, [O, r]
    scaling: float


@dataclass(frozen=True, eq=False)
class Adapter:
    """A loaded adapter: its additions by the path of the decoder's layer. `digest` is that of its files."""

    name: str
    digest: str
    parts: Mapping[str, LowRank]

    @property
    def bytes(self) -> int:
        """The memory its matrices take."""
        return sum(part.down.nbytes + part.up.nbytes for part in self.parts.values())


@dataclass(frozen=True)
class AdapterCounts:
    """How many stay in memory, how often one was read from its folder, and the names that running and waiting requests use."""

    most: int = 0
    loads: int = 0
    running: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()


@dataclass(frozen=True)
class AdaptedRows:
    """The rows of a step that one adapter adds to. All that a runner needs to know of it."""

    rows: Tensor  # [n] where they lie in the step
    parts: Mapping[str, LowRank]


class Adapters:
    """Adapters by name. At most `most` are kept in memory, the least recently asked for leaves first.

    May be used from any thread. `base_digest` gives the digest of the model folder, where there is one.
    """

    def __init__(self, decoder: Decoder, most: int, base_digest: Callable[[], str] | None = None) -> None:
        self._decoder = decoder
        self._most = most
        self._base_digest = base_digest
        self._folders: dict[str, Path] = {}
        self._kept: OrderedDict[str, Adapter] = OrderedDict()
        self._alive: weakref.WeakValueDictionary[str, Adapter] = weakref.WeakValueDictionary()
        self._loads = 0
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        """The names requests may ask for."""
        return list(self._folders)

    @property
    def bytes(self) -> int:
        """The memory that all adapters take which are loaded now."""
        return sum(adapter.bytes for adapter in list(self._alive.values()))

    def counts(self, running: Iterable[Running], waiting: Iterable[Running]) -> AdapterCounts:
        """Return what is read and what these sequences use."""
        names = ({one.adapter.name for one in some if one.adapter is not None} for some in (running, waiting))
        return AdapterCounts(self._most, self._loads, *(tuple(sorted(found)) for found in names))

    def add(self, name: str, folder: Path) -> Adapter:
        """Load a PEFT folder under a name; `UserError` says what does not fit this model."""
        with self._lock:
            if name in self._folders:
                raise UserError(f"there is an adapter '{name}' already", fix="remove it first, or choose another name")
            adapter = self._loaded(name, Path(folder))
            self._folders[name] = Path(folder)
            return adapter

    def get(self, name: str) -> Adapter:
        """Return an adapter, read again from its folder where it had to leave; `UnknownAdapter` without that name."""
        with self._lock:
            if name not in self._folders:
                known = ", ".join(self._folders) or "none"
                raise UnknownAdapter(f"there is no adapter '{name}'", where="model", fix=f"known adapters: {known}")
            adapter = self._alive.get(name)
            return self._keep(adapter) if adapter is not None else self._loaded(name, self._folders[name])

    def remove(self, name: str, timeout_seconds: float | None = None) -> None:
        """Forget an adapter: new requests for it are refused at once, and running ones are waited for.

        `CaslonError` where they have not ended in time; the adapter then leaves memory when they do.
        """
        with self._lock:
            if self._folders.pop(name, None) is None:
                raise UnknownAdapter(f"there is no adapter '{name}'", where="model")
            self._kept.pop(name, None)
            adapter = self._alive.pop(name, None)
        gone = threading.Event()
        if adapter is not None:
            weakref.finalize(adapter, gone.set)
            del adapter
            if not gone.wait(timeout_seconds):
                raise CaslonError(f"requests still use the adapter '{name}'", fix="wait for them, or cancel them")

    def _loaded(self, name: str, folder: Path) -> Adapter:
        adapter = read_adapter(folder, self._decoder, name, self._base_digest)
        self._loads += 1
        return self._keep(adapter)

    def _keep(self, adapter: Adapter) -> Adapter:
        self._alive[adapter.name] = adapter
        self._kept[adapter.name] = adapter
        self._kept.move_to_end(adapter.name)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return adapter


def adapted_rows(plan: StepPlan, row_multiple: int, device: torch.device) -> list[AdaptedRows]:
    """Return which rows of a step get which adapter's addition; the last row repeats up to a multiple of `row_multiple`."""
    rows: dict[Adapter, list[int]] = defaultdict(list)
    row = 0
    for chunk in plan:
        end = row + chunk.end - chunk.start
        if chunk.sequence.adapter is not None:
            rows[chunk.sequence.adapter] += range(row, end)
        row = end
    padded = {
        adapter: own + own[-1:] * (padded_rows(len(own), row_multiple) - len(own)) for adapter, own in rows.items()
    }
    return [AdaptedRows(torch.tensor(own, device=device), adapter.parts) for adapter, own in padded.items()]


@contextmanager
def additions(decoder: Decoder, groups: Sequence[AdaptedRows]) -> Iterator[None]:
    """Let the decoder's layers add what the adapters of a step ask for, while the block runs."""
    by_layer: dict[str, list[tuple[Tensor, LowRank]]] = defaultdict(list)
    for group in groups:
        for path, part in group.parts.items():
            by_layer[path].append((group.rows, part))
    handles = [
        decoder.get_submodule(path).register_forward_hook(partial(_add, parts)) for path, parts in by_layer.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _add(parts: list[tuple[Tensor, LowRank]], layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    flat, found = inputs[0].flatten(0, -2), output.flatten(0, -2)  # [N, I], [N, O]
    for rows, part in parts:
        own = flat.index_select(0, rows)
        addition = (own @ part.down.T) @ part.up.T * part.scaling  # [n, O]
        # set, not added in place: the repeated last row then gets the same value again
        found = found.index_copy(0, rows, found.index_select(0, rows) + addition)
    return found.view_as(output)


def read_adapter(folder: Path, decoder: Decoder, name: str, base_digest: Callable[[], str] | None = None) -> Adapter:
    """Return the adapter of a PEFT folder, checked against the decoder it is for; `UserError` says what does not fit."""
    config = _read_json(folder / CONFIG_FILE)
    _check_config(config, folder)
    _check_base(folder, base_digest)
    parts: dict[str, LowRank] = {}
    for module, down, up in _matrices(folder):
        targets = _targets(module, folder)
        _check_matrices(module, down, up, folder)
        scaling = _scaling(config, module, down.shape[0])
        for path, piece in zip(targets, up.chunk(len(targets)), strict=True):
            parts[path] = _fitted(decoder, path, down, piece, scaling, folder)
    if not any(part.up.count_nonzero() for part in parts.values()):
        raise _unfit("all its B matrices are zero: it was never trained", folder)
    digest = digest_of([sha256_of_file(folder / file) for file in (CONFIG_FILE, WEIGHTS_FILE)])
    return Adapter(name, digest, parts)


def _check_config(config: Mapping[str, Any], folder: Path) -> None:
    if config.get("peft_type") != "LORA":
        raise _unfit(f"it is of type {config.get('peft_type')!r}, not LORA", folder)
    for key, neutral in _NEUTRAL.items():
        if config.get(key, neutral) not in (neutral, [], None):
            raise _unfit(f"{CONFIG_FILE} sets {key} = {config[key]!r}, which is not supported", folder)


def _check_base(folder: Path, base_digest: Callable[[], str] | None) -> None:
    sidecar = folder / SIDECAR_FILE
    wanted = _read_json(sidecar).get("base_digest") if sidecar.is_file() else None
    if wanted is not None and base_digest is not None and (found := base_digest()) != wanted:
        raise _unfit(f"it was trained on the model with digest {wanted[:12]}, this one has {found[:12]}", folder)


def _matrices(folder: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield each adapted module's path with its A and B."""
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise _unfit(f"its weights cannot be read: {error}", folder) from None
    found: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        match = re.fullmatch(rf"{re.escape(PREFIX)}(.+)\.lora_([AB])\.weight", key)
        if match is None:
            raise _unfit(f"it changes {key.removeprefix(PREFIX)}, which is not a low-rank matrix of a layer", folder)
        found[match[1]][match[2]] = tensor
    for module, pair in found.items():
        if len(pair) != 2:
            raise _unfit(f"{module} lacks one of its two matrices", folder)
        yield module, pair["A"], pair["B"]


def _targets(module: str, folder: Path) -> tuple[str, ...]:
    """Return the decoder's layers that a module on disk stands for."""
    block = re.fullmatch(r"transformer\.h\.(\d+)\.(.+)", module)
    if block is not None and block[2] in _GPT2_TARGETS:
        return tuple(f"model.layers.{block[1]}.{path}" for path in _GPT2_TARGETS[block[2]])
    layer = re.fullmatch(r"model\.layers\.\d+\.(self_attn|mlp)\.(\w+)", module)
    if layer is not None and layer[2] in _TARGETS:
        return (module,)
    raise _unfit(f"it targets {module}; only projections of attention and feed-forward layers can be adapted", folder)


def _check_matrices(module: str, down: Tensor, up: Tensor, folder: Path) -> None:
    if down.ndim != 2 or up.ndim != 2 or down.shape[0] != up.shape[1]:
        raise _unfit(f"the matrices of {module} are {list(down.shape)} and {list(up.shape)}", folder)
    if down.shape[0] > MAX_RANK:
        raise _unfit(f"its rank is {down.shape[0]}; at most {MAX_RANK} is taken", folder)
    for letter, matrix in (("A", down), ("B", up)):
        if not matrix.isfinite().all():
            raise _unfit(f"matrix {letter} of {module} holds numbers that are not finite", folder)


def _scaling(config: Mapping[str, Any], module: str, rank: int) -> float:
    alpha = float(_by_pattern(config.get("alpha_pattern"), module, config.get("lora_alpha", rank)))
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _by_pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """Return the value whose pattern ends the module's path, as PEFT looks them up."""
    for pattern, value in (patterns or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            return value
    return default


def _fitted(decoder: Decoder, path: str, down: Tensor, up: Tensor, scaling: float, folder: Path) -> LowRank:
    """Return an addition in the decoder's number format, on its device; `UserError` where it does not fit the layer."""
    try:
        layer: Any = decoder.get_submodule(path)
    except AttributeError:
        raise _unfit(f"it targets {path}, which this model does not have", folder) from None
    if (up.shape[0], down.shape[1]) != (layer.out_features, layer.in_features):
        raise _unfit(
            f"{path} is {layer.out_features} x {layer.in_features} here, "
            f"the adapter's addition to it {up.shape[0]} x {down.shape[1]}",
            folder,
        )
    dtype = decoder.model.embed_tokens.weight.dtype
    return LowRank(down.to(decoder.device, dtype), up.to(decoder.device, dtype).contiguous(), scaling)


def _unfit(what: str, folder: Path) -> UserError:
    return UserError(
        f"this adapter cannot be used: {what}", where=str(folder), fix="use an adapter that was trained on this model"
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unfit(f"{path.name} cannot be read: {error}", path.parent) from None
    if not isinstance(value, dict):
        raise _unfit(f"{path.name} is not a JSON object", path.parent)
    return value
