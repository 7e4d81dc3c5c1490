"""The model as the server offers it: admits answers, hands them to the engine, counts them, and knows the model's facts.

The API and the web page both ask here, so that limits and metrics hold for both. Everything is safe to call from many threads.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from caslon.engine.answer import Handle, OnPiece
from caslon.engine.engine import Engine
from caslon.engine.request import Completion, Piece, SamplingParams
from caslon.errors import CaslonError
from caslon.server.errors import Refused, invalid
from caslon.server.limits import Admission
from caslon.server.metrics import AnswerClock, ServerMetrics
from caslon.server.settings import ServerSettings
from caslon.tokenizer.tokenizer import Tokenizer

Message = Mapping[str, Any]


class Answer:
    """One answer on its way. The engine's thread hands its pieces on; with the last one it is counted and leaves the queue."""

    def __init__(self, clock: AnswerClock, on_piece: OnPiece, on_end: Callable[["Answer"], None]) -> None:
        self._clock = clock
        self._on_piece = on_piece
        self._on_end = on_end
        self._handle: Handle | None = None
        self._ended = False

    def attach(self, handle: Handle) -> None:
        """Take the engine's handle, which is only there when the first pieces may already have come."""
        self._handle = handle

    def receive(self, piece: Piece) -> None:
        """Take a piece from the engine's thread; the last one has a finish reason."""
        self._clock.piece(piece)
        if piece.finish_reason is not None:
            self._ended = True
            self._clock.end(piece.finish_reason)
            self._on_end(self)
        self._on_piece(piece)

    def result(self) -> Completion:
        """Return the whole answer. After its last piece has come this does not wait."""
        assert self._handle is not None, "the answer was never started"
        completion = self._handle.result()
        self._clock.phases(completion.times)
        return completion

    def cancel(self) -> None:
        """Stop the answer within one step of the engine; harmless after its end."""
        if self._handle is not None and not self._ended:
            self._handle.cancel()


class Service:
    """One served model."""

    def __init__(
        self, engine: Engine, model_name: str, settings: ServerSettings, *, fingerprint: str | None = None
    ) -> None:
        self.engine = engine
        self.fingerprint = fingerprint
        self.started = int(time.time())
        self.model_name = model_name
        self.admission = Admission(engine.settings.max_running, settings.max_queue)
        self.metrics = ServerMetrics(model_name, self._figures)
        self._open: set[Answer] = set()
        self._lock = threading.Lock()

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self.engine.tokenizer

    @property
    def context(self) -> int:
        """The most tokens a prompt and its answer may have together."""
        return self.engine.model_context

    @property
    def can_chat(self) -> bool:
        """Whether the model folder has a chat template."""
        return self.tokenizer.chat_template is not None

    def check_ids(self, ids: Sequence[int], param: str) -> None:
        """Raise `Refused` (400) for an id that the vocabulary does not have."""
        size = self.tokenizer.vocab_size
        for token in ids:
            if not 0 <= token < size:
                raise invalid(f"{token} is not a token id (0 to {size - 1})", param)

    def check_model(self, model: str | None) -> None:
        """Raise `Refused` (404) when another model than the served one is asked for."""
        if model is not None and model != self.model_name:
            message = f"the model '{model}' does not exist here; available: {self.model_name}"
            raise Refused(404, message, code="model_not_found", param="model")

    def chat_ids(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> list[int]:
        """Return the ids of a conversation; `Refused` when the model has no chat template."""
        if not self.can_chat:
            message = f"the model '{self.model_name}' has no chat template; use /v1/completions"
            raise invalid(message, "messages", "no_chat_template")
        return self.tokenizer.encode_chat(messages, add_generation_prompt=add_generation_prompt).ids

    def text_ids(self, text: str) -> list[int]:
        """Return the ids of a prompt. No text at all is the start of a document: the end mark of the one before."""
        return self.engine.prompt_ids(text) or [self.tokenizer.end_of_text_id]

    def submit(
        self, prompts: Sequence[Sequence[int]], params: Sequence[SamplingParams], on_piece: Callable[[int, Piece], None]
    ) -> list[Answer]:
        """Admit and start one answer for each prompt, all or none. `on_piece` gets its place and its pieces.

        It is called in the engine's thread, which must not be kept waiting.
        """
        self.admission.enter(len(prompts))
        answers = [
            Answer(AnswerClock(self.metrics, len(prompt)), partial(on_piece, index), self._ended)
            for index, prompt in enumerate(prompts)
        ]
        with self._lock:
            self._open.update(answers)
        started = 0
        try:
            for prompt, chosen, answer in zip(prompts, params, answers, strict=True):
                answer.attach(self.engine.submit(prompt, chosen, answer.receive))
                started += 1
        except CaslonError:
            for answer in answers[:started]:
                answer.cancel()
            for answer in answers[started:]:
                self._ended(answer)
            raise
        return answers

    def interrupt(self) -> None:
        """Cancel every open answer: the time to end by themselves is over."""
        with self._lock:
            answers = list(self._open)
        for answer in answers:
            answer.cancel()

    def _ended(self, answer: Answer) -> None:
        with self._lock:
            self._open.discard(answer)
        self.admission.leave()

    def _figures(self) -> Mapping[str, float]:
        stats = self.engine.stats()
        return {
            "vllm:num_requests_running": stats.running,
            "vllm:num_requests_waiting": stats.waiting,
            "vllm:kv_cache_usage_perc": stats.blocks_used / stats.blocks_total,
            "vllm:prefix_cache_queries": stats.prompt_tokens,
            "vllm:prefix_cache_hits": stats.cached_tokens,
            "vllm:num_preemptions": stats.preemptions,
        }
