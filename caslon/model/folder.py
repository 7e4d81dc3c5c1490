"""The model folder: the one form in which every model exists, read by transformers, vLLM and PEFT as it is.

`config.json`, `model.safetensors` (or shards), the tokenizer's files, `generation_config.json`, and `caslon.json`, a sidecar that
says where the model came from. Opening a folder imports no torch and refuses what would fail later: pickled weights, a tokenizer
of another size, a chat model that cannot stop at the end of its turn.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caslon import __version__
from caslon.errors import UserError
from caslon.folders import digest_of, sha256_of_file, write_atomic
from caslon.model.config import DecoderConfig
from caslon.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

    from caslon.model.decoder import Decoder

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
SIDECAR_FILE = "caslon.json"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_IDENTITY_PATTERNS = (CONFIG_FILE, GENERATION_FILE, "*.safetensors", "tokenizer.json", "chat_template.jinja")


@dataclass(frozen=True)
class ModelFolder:
    """A model folder that was opened and found whole."""

    path: Path
    config: DecoderConfig
    generation_config: dict[str, Any] = field(hash=False)
    _tokenizer: Tokenizer = field(repr=False, compare=False)
    quantization_config: dict[str, Any] = field(default_factory=dict, hash=False)

    @staticmethod
    def open(path: Path) -> "ModelFolder":
        """Return a checked folder; `UserError` says what is wrong with it and what to do. Reads no weights."""
        path = Path(path)
        if not path.is_dir():
            raise UserError("there is no model folder here", where=str(path), fix="check the path")
        config, quantization = _read_config(path)
        refuse_pickles(path)
        tokenizer = Tokenizer.load(path)
        generation = _read_json(path / GENERATION_FILE) if (path / GENERATION_FILE).is_file() else {}
        generation.setdefault("eos_token_id", _as_json(config.eos_token_id))
        _check_vocabulary(path, config, tokenizer)
        _check_ids(path, config, generation)
        _check_end_of_turn(path, tokenizer, generation)
        return ModelFolder(path, config, generation, tokenizer, quantization)

    def load(
        self,
        *,
        dtype: "torch.dtype | None" = None,
        device: str = "cpu",
        replace_layers: "Callable[[Decoder], None] | None" = None,
        take_layers: "Callable[[Decoder, Mapping[str, torch.Tensor]], dict[str, torch.Tensor]] | None" = None,
        keep_mapped: bool = False,
    ) -> "Decoder":
        """Return the decoder in evaluation mode, in `dtype` (float32 when not given), on `device`.

        `replace_layers` is given the decoder while its weights still lie in the mapped file, and may put other layers in the
        place of some: what it replaces is never in memory as it was stored. `take_layers` puts the layers of a quantised folder
        into the decoder and returns the tensors that are left; without it such a folder is refused. With `keep_mapped` weights
        that need no conversion stay in the mapped file, for a reader who makes a copy of their own.
        """
        import torch

        from caslon.model.decoder import Decoder
        from caslon.model.weights import load_disk_tensors, read_weights

        with torch.device("meta"):
            decoder = Decoder(self.config)
        try:
            tensors = read_weights(self.path)
            if take_layers is not None:
                tensors = take_layers(decoder, tensors)
            elif self.quantization_config:
                raise UserError(
                    "these weights are quantised: they can answer, nothing else",
                    fix="use the model they were made from",
                )
            load_disk_tensors(decoder, tensors, as_views=keep_mapped)
        except UserError as error:
            raise UserError(error.what, where=str(self.path), fix=error.fix) from error
        if replace_layers is not None:
            replace_layers(decoder)
        for parameter in decoder.parameters():
            # Copied out of the mapped file: its alignment is accidental, and products may depend on it in the last digit.
            parameter.data = parameter.data.to(device, dtype or torch.float32, copy=not keep_mapped)
        for module in decoder.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(device))
        return decoder.eval()

    def tokenizer(self) -> Tokenizer:
        """Return the folder's tokenizer."""
        return self._tokenizer

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids at which generation ends."""
        return _id_list(self.generation_config.get("eos_token_id"))

    def sidecar(self) -> dict[str, Any]:
        """Return what `caslon.json` says about the model's origin; empty for a folder made elsewhere."""
        file = self.path / SIDECAR_FILE
        return _read_json(file) if file.is_file() else {}

    def digest(self) -> str:
        """Return the SHA-256 of what the model computes: configuration, weights, tokenizer. The sidecar does not count."""
        files = sorted({file for pattern in _IDENTITY_PATTERNS for file in self.path.glob(pattern)})
        return digest_of({file.name: sha256_of_file(file) for file in files})


def save_model_folder(
    path: Path,
    decoder: "Decoder",
    tokenizer: Tokenizer | None,
    *,
    sidecar: Mapping[str, Any],
    dtype: "torch.dtype | None" = None,
    shard_bytes: int | None = None,
) -> None:
    """Write a complete model folder, each file whole or not at all; equal models write equal bytes.

    Special ids come from the tokenizer; without one (a model imported from elsewhere) there are none. `dtype` is that of the
    stored weights (float32 when not given); above `shard_bytes` (5 GB when not given) they are cut into several files.
    """
    import torch

    from caslon.model.weights import disk_tensors, write_weights

    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    stored = dtype or torch.float32
    config = replace(decoder.config, dtype=str(stored).removeprefix("torch."))
    if tokenizer is not None:
        if config.vocab_size != tokenizer.vocab_size and not _is_padded(config, tokenizer):
            raise _vocabulary_error(path, config, tokenizer)
        config = config.with_tokens(
            bos_token_id=tokenizer.start_of_text_id,
            eos_token_id=tokenizer.end_of_text_id,
            pad_token_id=tokenizer.pad_id,
        )
        tokenizer.save(path)
    tensors = {name: tensor.to(stored) for name, tensor in disk_tensors(decoder).items()}
    write_weights(path, tensors, shard_bytes=shard_bytes)
    _write_json(path / GENERATION_FILE, generation_config(tokenizer, config.vocab_size) if tokenizer else {})
    _write_json(path / SIDECAR_FILE, {"caslon_version": __version__, **sidecar})
    _write_json(path / CONFIG_FILE, config.to_json())


def generation_config(tokenizer: Tokenizer, vocab_size: int | None = None) -> dict[str, Any]:
    """Return a `generation_config.json` that says where to stop and nothing about sampling.

    Ids that only pad the vocabulary to `vocab_size` are suppressed: transformers then never samples them (the engine does not
    see them at all).
    """
    ids: dict[str, Any] = {
        "bos_token_id": tokenizer.start_of_text_id,
        "eos_token_id": list(tokenizer.stop_ids),
        "pad_token_id": tokenizer.pad_id,
    }
    padding = list(range(tokenizer.vocab_size, vocab_size or 0))
    return ids | {"suppress_tokens": padding} if padding else ids


def _read_config(path: Path) -> tuple[DecoderConfig, dict[str, Any]]:
    """Return the shape, and how the stored weights are quantised: empty where they are not."""
    file = path / CONFIG_FILE
    if not file.is_file():
        raise UserError("this folder holds no model: config.json is missing", where=str(path), fix="check the path")
    try:
        data = _read_json(file)
        quantization = data.pop("quantization_config", None) or {}
        return DecoderConfig.from_json(data), dict(quantization)
    except UserError as error:
        raise UserError(error.what, where=error.where or str(file), fix=error.fix) from error


def refuse_pickles(path: Path) -> None:
    """Raise `UserError` for a folder without safetensors, with the command that converts a pickle where there is one."""
    if any(path.glob("*.safetensors")):
        return
    pickles = [file for file in sorted(path.iterdir()) if file.suffix in PICKLE_SUFFIXES]
    if pickles:
        raise UserError(
            "these weights are a pickle, which can run any program when it is read; caslon reads none",
            where=str(pickles[0]),
            fix="if you trust the file, convert it with transformers: "
            f"AutoModelForCausalLM.from_pretrained({str(path)!r}).save_pretrained(NEW_FOLDER, safe_serialization=True)",
        )
    raise UserError("this folder holds no weights", where=str(path / "model.safetensors"), fix="copy the whole folder")


def _is_padded(config: DecoderConfig, tokenizer: Tokenizer) -> bool:
    return config.extra.get("pad_vocab_to") == config.vocab_size > tokenizer.vocab_size


def _check_vocabulary(path: Path, config: DecoderConfig, tokenizer: Tokenizer) -> None:
    """Refuse another tokenizer's ids. Folders made elsewhere may have spare rows, which makers add for speed."""
    made_elsewhere = not (path / SIDECAR_FILE).is_file()
    if config.vocab_size == tokenizer.vocab_size or _is_padded(config, tokenizer):
        return
    if not (made_elsewhere and config.vocab_size > tokenizer.vocab_size):
        raise _vocabulary_error(path, config, tokenizer)


def _vocabulary_error(path: Path, config: DecoderConfig, tokenizer: Tokenizer) -> UserError:
    return UserError(
        f"the model has {config.vocab_size} vocabulary entries, its tokenizer {tokenizer.vocab_size}",
        where=str(path),
        fix="use the tokenizer the model was trained with",
    )


def _check_ids(path: Path, config: DecoderConfig, generation: Mapping[str, Any]) -> None:
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        for file, value in ((CONFIG_FILE, getattr(config, key)), (GENERATION_FILE, generation.get(key))):
            for id in _id_list(value):
                if not 0 <= id < config.vocab_size:
                    raise UserError(
                        f"{key} = {id} is outside the vocabulary of {config.vocab_size} entries",
                        where=str(path / file),
                        fix="write the tokenizer's own id (GPT-2's default is 50256)",
                    )


def _check_end_of_turn(path: Path, tokenizer: Tokenizer, generation: Mapping[str, Any]) -> None:
    end = tokenizer.end_of_turn_id
    stops = _id_list(generation.get("eos_token_id"))
    if end is not None and end not in stops:
        raise UserError(
            f"the chat template ends a turn with id {end}, but generation stops only at {list(stops)}: "
            "the model would talk past its turn",
            where=str(path / GENERATION_FILE),
            fix=f'set "eos_token_id": {sorted({*stops, end})}',
        )


def _id_list(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (int(value),)


def _as_json(value: int | tuple[int, ...] | None) -> int | list[int] | None:
    return list(value) if isinstance(value, tuple) else value


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"this is not JSON: {error}", where=str(path), fix="restore the file") from error
    if not isinstance(value, dict):
        raise UserError("this is not a JSON object", where=str(path), fix="restore the file")
    return value


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_atomic(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
