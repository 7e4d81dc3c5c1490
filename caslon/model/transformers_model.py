"""A model built on transformers' classes with what the training loop asks of one, and as a model folder.

Decoders are the package's own; this is for the layouts around them (BERT, T5). transformers is imported when one is built.
"""

import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from caslon import __version__
from caslon.errors import UserError
from caslon.folders import write_atomic
from caslon.model.encoder_config import EncoderConfig, EncoderDecoderConfig
from caslon.model.folder import CONFIG_FILE, GENERATION_FILE, SIDECAR_FILE
from caslon.model.weights import read_weights, write_weights
from caslon.tokenizer.tokenizer import Tokenizer

EXTRA = 'pip install "caslon[encoders]"'


class TransformersModel(nn.Module, ABC):
    """An encoder or encoder-decoder. Subclasses build `inner` and say how it is called."""

    inner: Any

    def __init__(self, config: EncoderConfig | EncoderDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self._checkpoint_every = 0

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.parameters()).device

    @property
    def checkpoint_every(self) -> int:
        """Whether layers compute their activations twice to save memory: 0 or 1."""
        return self._checkpoint_every

    @checkpoint_every.setter
    def checkpoint_every(self, every: int) -> None:
        if bool(every) == bool(self._checkpoint_every):
            return
        self._checkpoint_every = int(bool(every))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of the method's newer name, which older versions lack
            if every:
                self.inner.gradient_checkpointing_enable({"use_reentrant": False})
            else:
                self.inner.gradient_checkpointing_disable()

    @abstractmethod
    def initialise(self, seed: int) -> None:
        """Draw the weights from a seed alone."""

    def save(self, path: Path, tokenizer: Tokenizer, *, sidecar: Mapping[str, Any]) -> None:
        """Write a complete model folder that transformers' Auto classes load; tied weights are stored once."""
        path.mkdir(parents=True, exist_ok=True)
        tokenizer.save(path)
        write_weights(path, {name: tensor.detach().float() for name, tensor in self.inner.named_parameters()})
        generation = self.generation_config(tokenizer)
        if generation:
            _write_json(path / GENERATION_FILE, generation)
        _write_json(path / SIDECAR_FILE, {"caslon_version": __version__, **sidecar})
        self.inner.config.architectures = [type(self.inner).__name__]
        self.inner.config.vocab_size = self.config.vocab_size
        self.inner.config.update({**self.token_ids(tokenizer), "dtype": "float32"})
        config = {**self.inner.config.to_dict(), "torch_dtype": "float32"}
        _write_json(path / CONFIG_FILE, {name: value for name, value in config.items() if name != "_name_or_path"})

    def token_ids(self, tokenizer: Tokenizer) -> dict[str, int]:
        """Return the special ids for config.json."""
        return {
            "bos_token_id": tokenizer.start_of_text_id,
            "eos_token_id": tokenizer.end_of_text_id,
            "pad_token_id": tokenizer.pad_id,
        }

    def generation_config(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """Return the content of generation_config.json; empty where nothing is generated."""
        return {}

    def weights_of(self, path: Path) -> dict[str, Tensor]:
        """Return the weights of a folder that `save` wrote, by the names of this module's parameters."""
        names = dict(self.inner.named_parameters())
        found = read_weights(path)
        if found.keys() != names.keys():
            odd = sorted(found.keys() ^ names.keys())
            raise UserError(f"these weights are of another shape: {odd[0]} and {len(odd) - 1} more", where=str(path))
        return {f"inner.{name}": tensor.float().clone() for name, tensor in found.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Take over weights; each tied tensor may stand under its first name alone."""
        tied = set(self.state_dict()) - {name for name, _ in self.named_parameters()}
        result = super().load_state_dict(state_dict, strict=False, assign=assign)
        missing = set(result.missing_keys) - tied
        if strict and (missing or result.unexpected_keys):
            raise RuntimeError(f"missing {sorted(missing)}, unexpected {result.unexpected_keys}")
        return result


def transformers_module() -> Any:
    """Return the library; `UserError` naming the extra that brings it."""
    try:
        import transformers
    except ImportError as error:
        raise UserError(
            "encoders are built on the library 'transformers', which is not installed", fix=EXTRA
        ) from error
    return transformers


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_atomic(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
