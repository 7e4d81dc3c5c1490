"""llama.cpp as a program of a comparison: its own batches of many sequences, through the low-level calls of llama-cpp-python.

Prompts are read and answers written as llama.cpp's server does: one batch holds the next token of every running sequence and as
much of waiting prompts as fits. Greedy tokens come from its own sampler. Options: `type` f32, bf16, q8_0 or q4_0.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import llama_cpp
from llama_cpp import llama_cpp as low

from caslon.model.config import DecoderConfig
from caslon.peers.gguf_file import write_gguf
from caslon.peers.peer import Ids, Setting

TYPES = {"float32": "f32", "bfloat16": "bf16"}
BATCH_TOKENS = 2048  # llama.cpp's own defaults
MICRO_BATCH_TOKENS = 512
MOST_SEQUENCES = 32


@dataclass
class _Running:
    prompt: Sequence[int]
    wanted: int
    place: int  # in the list of answers
    slot: int
    read: int = 0
    ids: list[int] = field(default_factory=list)


class LlamaCppBatches:
    """A model in GGUF, written from the folder into a temporary file, and a context for many sequences."""

    def __init__(self, setting: Setting) -> None:
        kind = setting.options.get("type", TYPES.get(setting.dtype, "f32"))
        self._scratch = tempfile.TemporaryDirectory()
        file = Path(self._scratch.name) / "model.gguf"
        config = DecoderConfig.from_json(json.loads((setting.folder / "config.json").read_text(encoding="utf-8")))
        write_gguf(setting.folder, config, file, kind)
        low.llama_backend_init()
        self._model = low.llama_model_load_from_file(str(file).encode(), low.llama_model_default_params())
        params = low.llama_context_default_params()
        params.n_ctx = int(setting.options.get("context", 32 * 256))
        params.n_batch, params.n_ubatch, params.n_seq_max = BATCH_TOKENS, MICRO_BATCH_TOKENS, MOST_SEQUENCES
        params.n_threads = params.n_threads_batch = setting.threads
        params.kv_unified = True
        self._context = low.llama_init_from_model(self._model, params)
        self._batch = low.llama_batch_init(BATCH_TOKENS, 0, 1)
        self._greedy = low.llama_sampler_init_greedy()
        self.version = llama_cpp.__version__
        self.dtype = kind

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: Sequence[int], batch: int) -> Ids:
        """Answer each prompt greedily with exactly its number of tokens."""
        memory = low.llama_get_memory(self._context)
        low.llama_memory_clear(memory, False)
        waiting = [(place, prompt, new) for place, (prompt, new) in enumerate(zip(prompts, new_tokens, strict=True))]
        free, running = list(range(batch)), list[_Running]()
        answers: Ids = [[] for _ in prompts]
        while waiting or running:
            while waiting and free:
                place, prompt, new = waiting.pop(0)
                running.append(_Running(prompt, new, place, free.pop()))
            for one in self._step(running):
                low.llama_memory_seq_rm(memory, one.slot, -1, -1)
                answers[one.place] = one.ids
                free.append(one.slot)
                running.remove(one)
        return answers

    def _step(self, running: list[_Running]) -> list[_Running]:
        """Compute one batch; return the sequences that ended with it."""
        batch, self._batch.n_tokens = self._batch, 0
        asking: list[tuple[int, _Running]] = []
        for one in sorted(running, key=lambda one: one.read < len(one.prompt)):
            tokens = [one.ids[-1]] if one.ids else one.prompt[one.read : one.read + BATCH_TOKENS - batch.n_tokens]
            if not tokens:
                continue
            start = one.read
            for offset, token in enumerate(tokens):
                self._add(token, start + offset, one.slot)
            one.read += len(tokens)
            if one.read >= len(one.prompt):
                batch.logits[batch.n_tokens - 1] = 1
                asking.append((batch.n_tokens - 1, one))
        if low.llama_decode(self._context, batch):
            raise RuntimeError("llama_decode failed")
        for place, one in asking:
            one.ids.append(low.llama_sampler_sample(self._greedy, self._context, place))
        return [one for _, one in asking if len(one.ids) == one.wanted]

    def _add(self, token: int, position: int, slot: int) -> None:
        batch, place = self._batch, self._batch.n_tokens
        batch.token[place], batch.pos[place], batch.logits[place] = token, position, 0
        batch.n_seq_id[place] = 1
        batch.seq_id[place][0] = slot
        batch.n_tokens += 1
