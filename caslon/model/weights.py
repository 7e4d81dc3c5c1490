"""A decoder's weights to safetensors files and back, under the names and in the layouts Hugging Face uses.

Llama's and Qwen3's names are the decoder's own; Mixtral calls the mixture and its experts' matrices otherwise. GPT-2 on disk has
one fused projection for queries, keys and values, matrices stored input-first ("Conv1D"), and always biases. No pickle is read or
written. Above 5 GB the weights are cut into shards with an index, as transformers does.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from caslon.errors import StorageError, UserError
from caslon.folders import write_atomic
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000

# Decoder name within a layer -> GPT-2's name within a block, and whether the matrix lies input-first on disk.
_GPT2_LAYER = {
    "input_layernorm": ("ln_1", False),
    "self_attn.o_proj": ("attn.c_proj", True),
    "post_attention_layernorm": ("ln_2", False),
    "mlp.up_proj": ("mlp.c_fc", True),
    "mlp.down_proj": ("mlp.c_proj", True),
}
_GPT2_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_GPT2_TOP = {
    "model.embed_tokens.weight": "transformer.wte.weight",
    "model.embed_positions.weight": "transformer.wpe.weight",
    "model.norm.weight": "transformer.ln_f.weight",
    "model.norm.bias": "transformer.ln_f.bias",
}
# Part of a decoder name -> what Mixtral writes there.
_MIXTRAL_PARTS = {
    ".mlp.": ".block_sparse_moe.",
    ".gate_proj.": ".w1.",
    ".down_proj.": ".w2.",
    ".up_proj.": ".w3.",
}
_GPT2_BUFFERS = re.compile(r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)")  # causal masks in old files


def disk_tensors(decoder: Decoder) -> dict[str, Tensor]:
    """Return the decoder's weights under their on-disk names; tied weights stand once."""
    state = {name: parameter.detach() for name, parameter in decoder.named_parameters()}
    if decoder.config.family == "gpt2":
        return _gpt2_from_state(state, decoder.config)
    return {_disk_name(name): tensor for name, tensor in state.items()} if decoder.config.has_experts else state


def load_disk_tensors(decoder: Decoder, tensors: Mapping[str, Tensor], *, as_views: bool = False) -> None:
    """Put on-disk tensors into a decoder, in their place; `UserError` names what is missing, left over or misshapen.

    With `as_views` matrices that lie input-first on disk are not copied into the decoder's order, only seen in it.
    """
    config = decoder.config
    if config.family == "gpt2":
        state = _gpt2_to_state(tensors, config)
        state = (
            state
            if as_views
            else {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
        )
    else:
        state = (
            {_decoder_name(name): tensor for name, tensor in tensors.items()} if config.has_experts else dict(tensors)
        )
    if config.tie_word_embeddings:
        state.pop("lm_head.weight", None)  # some writers store the tied head a second time
    state = {name: tensor for name, tensor in state.items() if not name.endswith("rotary_emb.inv_freq")}
    _check_shapes(decoder, state)
    decoder.load_state_dict(
        state, assign=True, strict=False
    )  # checked above; layers that were taken before are not in it


def _disk_name(name: str) -> str:
    for ours, theirs in _MIXTRAL_PARTS.items():
        name = name.replace(ours, theirs)
    return name


def decoder_name(name: str, config: DecoderConfig) -> str:
    """Return what the decoder calls a tensor on disk, where the layout of both is the same: not in GPT-2."""
    return _decoder_name(name) if config.has_experts else name


def _decoder_name(name: str) -> str:
    for ours, theirs in _MIXTRAL_PARTS.items():
        name = name.replace(theirs, ours)
    return name


def _check_shapes(decoder: Decoder, state: Mapping[str, Tensor]) -> None:
    expected = {name: tuple(parameter.shape) for name, parameter in decoder.named_parameters()}
    missing = sorted(set(expected) - set(state))
    unknown = sorted(set(state) - set(expected))
    if missing or unknown:
        parts = [
            f"{words}: {', '.join(names[:4])}" for words, names in (("missing", missing), ("unknown", unknown)) if names
        ]
        raise UserError(
            f"the weights do not fit config.json: {len(missing)} missing, {len(unknown)} unknown ({'; '.join(parts)})",
            fix="use the config.json that was saved with these weights",
        )
    for name, shape in expected.items():
        if tuple(state[name].shape) != shape:
            raise UserError(
                f"{name} has shape {list(state[name].shape)}, config.json asks for {list(shape)}",
                fix="use the config.json that was saved with these weights",
            )


def _gpt2_from_state(state: Mapping[str, Tensor], config: DecoderConfig) -> dict[str, Tensor]:
    tensors = {theirs: state[ours] for ours, theirs in _GPT2_TOP.items() if ours in state}
    if "lm_head.weight" in state:
        tensors["lm_head.weight"] = state["lm_head.weight"]
    for layer in range(config.num_hidden_layers):
        ours, theirs = f"model.layers.{layer}.", f"transformer.h.{layer}."
        for kind in ("weight", "bias"):
            parts = [state.get(f"{ours}{name}.{kind}") for name in _GPT2_QKV]
            present = [part for part in parts if part is not None]
            if present:
                fused = torch.cat(present)
                tensors[f"{theirs}attn.c_attn.{kind}"] = fused.t().contiguous() if kind == "weight" else fused
            for name, (other, input_first) in _GPT2_LAYER.items():
                tensor = state.get(f"{ours}{name}.{kind}")
                if tensor is not None:
                    turned = tensor.t().contiguous() if input_first and kind == "weight" else tensor
                    tensors[f"{theirs}{other}.{kind}"] = turned
    if not config.bias:
        tensors |= _zero_biases(config, tensors["transformer.wte.weight"])
    return tensors


def _zero_biases(config: DecoderConfig, like: Tensor) -> dict[str, Tensor]:
    """Return the biases that a model trained without them stores for readers that know GPT-2 only with them."""
    width = config.hidden_size
    sizes = {"transformer.ln_f.bias": width}
    for layer in range(config.num_hidden_layers):
        names = {"ln_1": width, "ln_2": width, "attn.c_attn": 3 * width, "attn.c_proj": width}
        sizes |= {f"transformer.h.{layer}.{name}.bias": size for name, size in names.items()}
    return {name: torch.zeros(size, dtype=like.dtype, device=like.device) for name, size in sizes.items()}


def _gpt2_to_state(tensors: Mapping[str, Tensor], config: DecoderConfig) -> dict[str, Tensor]:
    """Return decoder names, with views of the tensors; names this family does not have are passed on, to be refused by name."""
    tops = {theirs: ours for ours, theirs in _GPT2_TOP.items()}
    blocks = {theirs: (ours, input_first) for ours, (theirs, input_first) in _GPT2_LAYER.items()}
    state: dict[str, Tensor] = {}
    for stored_name, tensor in tensors.items():
        if _GPT2_BUFFERS.fullmatch(stored_name):
            continue
        # The first GPT-2 files lack the prefix.
        name = stored_name if stored_name.startswith(("transformer.", "lm_head.")) else f"transformer.{stored_name}"
        block = re.fullmatch(r"transformer\.h\.(\d+)\.(.+)\.(weight|bias)", name)
        if block is None:
            state[tops.get(name, name)] = tensor
            continue
        layer, inner, kind = f"model.layers.{block[1]}.", block[2], block[3]
        if inner == "attn.c_attn":
            fused = tensor.t() if kind == "weight" else tensor
            for part, piece in zip(_GPT2_QKV, fused.chunk(3), strict=True):
                state[f"{layer}{part}.{kind}"] = piece
        elif inner in blocks:
            ours, input_first = blocks[inner]
            state[f"{layer}{ours}.{kind}"] = tensor.t() if input_first and kind == "weight" else tensor
        else:
            state[stored_name] = tensor
    return state if config.bias else _without_zero_biases(state)


def _without_zero_biases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    kept = {}
    for name, tensor in state.items():
        if not name.endswith(".bias") or ".mlp." in name:
            kept[name] = tensor
        elif tensor.count_nonzero():
            raise UserError(
                f"config.json says bias = false, but the stored {name} is not zero",
                fix="remove the key from config.json",
            )
    return kept


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return every tensor stored in a model folder, as it is stored; `StorageError` for a damaged or missing file."""
    tensors: dict[str, Tensor] = {}
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="pt") as stored:
                tensors |= {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a dict
        except (SafetensorError, OSError) as error:
            raise StorageError(
                f"cannot read the weights: {error}", where=str(file), fix="copy or download the folder again"
            ) from error
    return tensors


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold a folder's weights; `StorageError` when one is missing."""
    index = folder / INDEX_FILE
    if not index.is_file():
        names = [WEIGHTS_FILE]
    else:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    for name in names:
        if Path(name).name != name:
            raise StorageError("the index names a file outside the folder", where=f"{index}: {name}")
        if not (folder / name).is_file():
            raise StorageError("a weight file is missing", where=str(folder / name), fix="copy the folder again")
    return [folder / name for name in names]


@dataclass(frozen=True)
class _Shard:
    name: str
    tensors: Mapping[str, Tensor]


def write_weights(folder: Path, tensors: Mapping[str, Tensor], *, shard_bytes: int | None = None) -> None:
    """Write tensors as one file, or as shards with an index when they are larger than `shard_bytes` (`SHARD_BYTES`)."""
    shards = list(_shards(tensors, shard_bytes or SHARD_BYTES))
    for shard in shards:
        _write_file(folder / shard.name, shard.tensors)
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(map(_bytes_of, tensors.values()))},
            "weight_map": {name: shard.name for shard in shards for name in shard.tensors},
        }
        write_atomic(folder / INDEX_FILE, json.dumps(index, indent=2, sort_keys=True) + "\n")
    else:
        (folder / INDEX_FILE).unlink(missing_ok=True)
    for file in folder.glob("model*.safetensors"):  # of an older save in the same folder
        if file.name not in {shard.name for shard in shards}:
            file.unlink()


def _shards(tensors: Mapping[str, Tensor], limit: int) -> Iterator[_Shard]:
    groups: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        if groups[-1] and filled + _bytes_of(tensor) > limit:
            groups.append({})
            filled = 0
        groups[-1][name] = tensor
        filled += _bytes_of(tensor)
    if len(groups) == 1:
        yield _Shard(WEIGHTS_FILE, groups[0])
        return
    for number, group in enumerate(groups, start=1):
        yield _Shard(f"model-{number:05d}-of-{len(groups):05d}.safetensors", group)


def _bytes_of(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _write_file(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one safetensors file, whole or not at all, with the mode the umask asks for."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode & 0o777
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary, {"format": "pt"})
        temporary.chmod(mode)  # some safetensors versions write 0600, which hides the model from other users
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write: {error}", where=str(path), fix="free some disk space") from error
