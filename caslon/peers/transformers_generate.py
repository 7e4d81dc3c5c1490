"""`transformers.generate` as a program of a comparison: static batches padded on the left, its usual way.

A batch lasts as long as its longest answer; the others' surplus is computed and thrown away, as there.
"""

from collections.abc import Sequence
from typing import Any

import torch
import transformers

from caslon.peers.peer import Ids, Setting


class TransformersGenerate:
    """A model loaded by `AutoModelForCausalLM`."""

    def __init__(self, setting: Setting) -> None:
        torch.set_num_threads(setting.threads)
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            setting.folder, dtype=getattr(torch, setting.dtype), local_files_only=True
        )
        self._model = model.to(setting.device).eval()
        self.version = transformers.__version__
        self.dtype = setting.dtype

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: Sequence[int], batch: int) -> Ids:
        """Answer each prompt greedily with exactly its number of tokens."""
        answers: Ids = []
        for first in range(0, len(prompts), batch):
            part = slice(first, first + batch)
            rows = self._batch(prompts[part], max(new_tokens[part]))
            answers += [row[:count] for row, count in zip(rows, new_tokens[part], strict=True)]
        return answers

    def _batch(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Ids:
        width = max(map(len, prompts))
        padded = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        written: torch.Tensor = self._model.generate(
            torch.tensor(padded, device=self._model.device),
            attention_mask=torch.tensor(mask, device=self._model.device),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            repetition_penalty=1.0,
        )
        return written[:, width:].tolist()
