"""Folders of BERT's and T5's layouts to what they are for: vectors of texts, words for masked places, a text from a text.

They need no cache and no scheduler: texts of a call are computed together, padded to the longest. Built on transformers' classes.

Shapes: `B` texts, `T` tokens of the longest, `D` width, `V` vocabulary.
"""

import json
import threading
from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from caslon.engine.loading import placement
from caslon.engine.pooling import PoolingKind, unit
from caslon.engine.request import ContextLengthExceeded, InvalidParameter
from caslon.engine.settings import EngineSettings
from caslon.errors import UserError
from caslon.model.folder import CONFIG_FILE, refuse_pickles
from caslon.model.transformers_model import transformers_module
from caslon.tokenizer.tokenizer import Tokenizer

Task = Literal["embed", "fill", "text_to_text"]
ENCODER_TYPES = ("bert", "distilbert", "roberta", "t5")
BATCH_TEXTS = 32


@dataclass(frozen=True)
class Filled:
    """A word for a masked place, with its natural-log probability."""

    id: int
    token: str
    logprob: float


class EncoderModel(ABC):
    """A model beside the decoders. `tasks` says what it can be asked for; a method of another task is a `UserError`."""

    tasks: tuple[Task, ...]

    def __init__(self, inner: Any, tokenizer: Tokenizer) -> None:
        self._inner = inner.eval()
        self._lock = threading.Lock()  # one call at a time owns the model
        self.tokenizer = tokenizer

    @property
    def model_context(self) -> int:
        """The longest text in tokens."""
        config = self._inner.config
        return int(getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 512)

    def text_ids(self, text: str) -> list[int]:
        """Return the ids of a text between the marks with which the model saw texts in training."""
        roles, end = self.tokenizer.special_role_tokens, self.tokenizer.end_of_text_id
        marks = [self.tokenizer.id_of(roles[role]) if role in roles else end for role in ("cls_token", "sep_token")]
        # `[MASK]` and its like are meant where they stand
        return [marks[0], *self.tokenizer.encode(text, allow_special=True), marks[1]]

    def embed(self, prompts: Sequence[str | Sequence[int]], pooling: PoolingKind = "mean") -> Tensor:
        """Return a vector of length one for each text, [B, D] in float32."""
        if pooling not in ("mean", "last"):
            raise InvalidParameter("pooling", pooling, "mean or last")
        found = []
        for first in range(0, len(prompts), BATCH_TEXTS):
            ids, attended = self._batch(prompts[first : first + BATCH_TEXTS])
            with self._lock, torch.inference_mode():
                states = self._states(ids, attended).float()  # [B, T, D]
            lengths = attended.sum(1)
            if pooling == "last":
                found.append(states[torch.arange(len(ids)), lengths - 1])
            else:
                found.append((states * attended[..., None]).sum(1) / lengths[:, None])
        return unit(torch.cat(found)).cpu() if found else torch.empty(0)

    def fill(self, text: str | Sequence[int], alternatives: int = 5) -> list[list[Filled]]:
        """Return the likeliest tokens of each masked place of a text, best first."""
        raise self._cannot("fill")

    def text_to_text(self, prompts: Sequence[str | Sequence[int]], max_tokens: int = 64) -> list[str]:
        """Return the model's likeliest text (greedy) for each source."""
        raise self._cannot("text_to_text")

    def _states(self, ids: Tensor, attended: Tensor) -> Tensor:
        """Return the encoder's final states [B, T, D]."""
        states: Tensor = self._inner.base_model.get_encoder()(input_ids=ids, attention_mask=attended).last_hidden_state
        return states

    def _batch(self, prompts: Sequence[str | Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return ids and a mask of the real ones, both [B, T]."""
        rows = [self.text_ids(prompt) if isinstance(prompt, str) else list(prompt) for prompt in prompts]
        for row in rows:
            if not row or not all(0 <= id < self.tokenizer.vocab_size for id in row):
                raise InvalidParameter(
                    "prompt", row[:4], f"ids from 0 to {self.tokenizer.vocab_size - 1}, at least one"
                )
            if len(row) > self.model_context:
                raise ContextLengthExceeded(len(row), 0, self.model_context)
        longest = max(map(len, rows))
        ids = torch.tensor([row + [self.tokenizer.pad_id] * (longest - len(row)) for row in rows])
        attended = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        return ids.to(self._inner.device), attended.to(self._inner.device)

    def _cannot(self, task: Task) -> UserError:
        return UserError(f"this model cannot do {task}", where="task", fix=f"it is for {', '.join(self.tasks)}")


class MaskedModel(EncoderModel):
    """BERT's layout: vectors, and words for masked places."""

    tasks = ("embed", "fill")

    def fill(self, text: str | Sequence[int], alternatives: int = 5) -> list[list[Filled]]:
        """Return the likeliest tokens of each masked place of a text, best first."""
        ids, attended = self._batch([text])
        mask = self.tokenizer.special_role_tokens.get("mask_token")
        places = (ids[0] == self.tokenizer.id_of(mask)).nonzero()[:, 0] if mask else ids.new_empty(0)
        if not len(places):
            raise InvalidParameter("prompt", text, f"a text with the mask token {mask}")
        with self._lock, torch.inference_mode():
            found = self._inner(input_ids=ids, attention_mask=attended)
            logits = found.prediction_logits if "prediction_logits" in found else found.logits
        scores = logits[0, places, : self.tokenizer.vocab_size].float().log_softmax(-1)
        best = scores.topk(min(alternatives, self.tokenizer.vocab_size))
        return [
            [
                Filled(id, self.tokenizer.decode([id]), score)
                for id, score in zip(ids_there.tolist(), scores_there.tolist(), strict=True)
            ]
            for ids_there, scores_there in zip(best.indices, best.values, strict=True)
        ]

    def _states(self, ids: Tensor, attended: Tensor) -> Tensor:
        states: Tensor = self._inner.base_model(input_ids=ids, attention_mask=attended).last_hidden_state
        return states


class TextToTextModel(EncoderModel):
    """T5's layout: a text from a text, and vectors of the encoder's states."""

    tasks = ("text_to_text", "embed")

    def text_ids(self, text: str) -> list[int]:
        """Return the ids of a source and the end mark after them."""
        return [*self.tokenizer.encode(text, allow_special=True), self.tokenizer.end_of_text_id]

    def text_to_text(self, prompts: Sequence[str | Sequence[int]], max_tokens: int = 64) -> list[str]:
        """Return the model's likeliest text (greedy) for each source."""
        answers: list[str] = []
        for first in range(0, len(prompts), BATCH_TEXTS):
            ids, attended = self._batch(prompts[first : first + BATCH_TEXTS])
            with self._lock, torch.inference_mode():
                found = self._inner.generate(
                    input_ids=ids, attention_mask=attended, max_new_tokens=max_tokens, do_sample=False, num_beams=1
                )
            start = self._inner.config.decoder_start_token_id
            left_out = {start, self.tokenizer.pad_id, self.tokenizer.end_of_text_id}
            answers += [self.tokenizer.decode([id for id in row if id not in left_out]) for row in found.tolist()]
        return answers


def is_encoder(folder: Path) -> bool:
    """Return whether a model folder is of a layout that is served here and not by the engine. Loads nothing."""
    return _model_type(folder) in ENCODER_TYPES


def open_encoder(folder: Path, settings: EngineSettings | None = None) -> EncoderModel:
    """Return the model of a folder of BERT's or T5's layout; `UserError` for any other. Reads safetensors only."""
    kind = _model_type(folder)
    if kind not in ENCODER_TYPES:
        raise UserError(
            f"a model of type {kind!r} is no encoder", where=str(folder), fix="load a decoder with Engine.load"
        )
    refuse_pickles(folder)
    library = transformers_module()
    loader = library.AutoModelForSeq2SeqLM if kind == "t5" else _masked_class(library, folder)
    where = placement(settings or EngineSettings(), str(_config(folder).get("dtype") or "float32"))
    inner = loader.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=where.dtype
    )
    made = TextToTextModel if kind == "t5" else MaskedModel
    return made(inner.to(where.device), Tokenizer.load(folder))


def _masked_class(library: Any, folder: Path) -> Any:
    """Return the class with the head that the folder was saved with."""
    has_two_heads = "BertForPreTraining" in (_config(folder).get("architectures") or ())
    return library.BertForPreTraining if has_two_heads else library.AutoModelForMaskedLM


def _model_type(folder: Path) -> str:
    return str(_config(folder).get("model_type", ""))


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{CONFIG_FILE} cannot be read: {error}", where=str(folder), fix="check the path") from None
    return config if isinstance(config, dict) else {}
