"""The model as the server offers it: admits answers, hands them to the engine, counts them, and knows the model's facts.

The API and the web page both ask here, so that limits and metrics hold for both. Everything is safe to call from many threads.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from caslon.engine.engine import Engine, Handle
from caslon.engine.request import Completion, Piece, SamplingParams
from caslon.server.errors import Refused, invalid
from caslon.server.limits import Admission
from caslon.server.metrics import AnswerClock, ServerMetrics
from caslon.server.settings import ServerSettings
from caslon.tokenizer.tokenizer import Tokenizer

Message = Mapping[str, Any]


class Answer:
    """One answer on its way: iterate for its pieces, then ask for the result. Leaves the queue when it ends."""

    def __init__(self, handle: Handle, clock: AnswerClock, leave: "Callable[[Answer], None]") -> None:
        self._handle = handle
        self._clock = clock
        self._leave = leave

    def __iter__(self) -> Iterator[Piece]:
        completion = None
        try:
            for piece in self._handle:
                self._clock.piece(piece)
                yield piece
            completion = self._handle.result()
        finally:
            self._handle.cancel()  # harmless after the end; needed when the reader goes away
            self._clock.end(completion)
            self._leave(self)

    def result(self) -> Completion:
        """Return the whole answer; its pieces have to be read before."""
        return self._handle.result()

    def cancel(self) -> None:
        """Stop the answer within one step of the engine; harmless after its end."""
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
        # Each waits for one answer of the engine; they do no work of their own.
        self.threads = ThreadPoolExecutor(self.admission.most, thread_name_prefix="answer")
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
        return self.tokenizer.encode(text) or [self.tokenizer.end_of_text_id]

    def submit(self, prompts: Sequence[Sequence[int]], params: Sequence[SamplingParams]) -> list[Answer]:
        """Admit and start one answer for each prompt, all or none."""
        self.admission.enter(len(prompts))
        handles: list[Handle] = []
        try:
            for prompt, chosen in zip(prompts, params, strict=True):
                handles.append(self.engine.submit(prompt, chosen))
        except BaseException:
            for handle in handles:
                handle.cancel()
            for _ in prompts:
                self.admission.leave()
            raise
        answers = [Answer(handle, AnswerClock(self.metrics), self._leave) for handle in handles]
        with self._lock:
            self._open.update(answers)
        return answers

    def interrupt(self) -> None:
        """Cancel every open answer: the time to end by themselves is over."""
        with self._lock:
            answers = list(self._open)
        for answer in answers:
            answer.cancel()

    def close(self) -> None:
        """Cancel what is open and end the threads."""
        self.interrupt()
        self.threads.shutdown(wait=True)

    def _leave(self, answer: Answer) -> None:
        with self._lock:
            self._open.discard(answer)
        self.admission.leave()

    def _figures(self) -> Mapping[str, float]:
        stats = self.engine.stats()
        return {}
