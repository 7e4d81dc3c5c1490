"""The model as the server offers it: admits answers, hands them to the engine, counts them, and knows the model's facts.

The API and the web page both ask here, so that limits and metrics hold for both. Everything is safe to call from many threads.
"""

import contextlib
import copy
import dataclasses
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from caslon.engine.adapters import AdapterCounts
from caslon.engine.answer import Handle, OnPiece
from caslon.engine.engine import Engine
from caslon.engine.request import Completion, Piece, SamplingParams
from caslon.errors import CaslonError
from caslon.server.admission import Admission
from caslon.server.batcher import EmbeddingBatcher
from caslon.server.calls import Call
from caslon.server.errors import SERVER_ERROR, Refused, invalid
from caslon.server.metrics import AnswerClock, Figure, ServerMetrics
from caslon.server.queue import FairQueue
from caslon.server.settings import ServerSettings
from caslon.server.upstream.engine import RemoteEngine
from caslon.server.upstream.pieces import Asked, RemotePiece
from caslon.tokenizer.tokenizer import Tokenizer

Message = Mapping[str, Any]
WAITING_PER_RUNNING = 4
STUCK_SECONDS = 60.0
TIMEOUT = "timeout"  # a finish reason of the server's own


class Answer:
    """One answer on its way: it waits, runs, and ends. The engine's thread hands its pieces on.

    An answer that the server breaks off has `broken`, which `result` raises; one whose time is over ends with what it has.
    """

    def __init__(self, clock: AnswerClock, params: SamplingParams, on_piece: OnPiece, service: "Service") -> None:
        self.params = params
        self.counted_prompt_tokens = 0
        self.is_running = False
        self.ended = False
        self.finish_reason: str | None = None
        self.broken: Refused | None = None
        self.start: Callable[[], Handle]
        self.call: Call | None = service.call
        self.model_name = service.model_name
        self.clock = clock
        self._on_piece = on_piece
        self._service = service
        self._handle: Handle | None = None
        self._attached = threading.Event()
        self._wanted_end: str | None = None
        self._lock = threading.Lock()

    @property
    def tokens(self) -> int:
        """Tokens written so far."""
        return self.clock.tokens

    @property
    def completion(self) -> Completion | None:
        """The whole answer when it has ended; None if the engine never had it."""
        return self._handle.result() if self.ended and self._handle is not None else None

    def attach(self, handle: Handle) -> None:
        """Take the engine's handle, which is only there when the first pieces may already have come."""
        with self._lock:
            self._handle = handle
            self._attached.set()
            unwanted = self._wanted_end is not None
        if unwanted:
            handle.cancel()

    def receive(self, piece: Piece) -> None:
        """Take a piece from the engine's thread; the last one has a finish reason."""
        if isinstance(piece, RemotePiece):
            self._learn(piece)
        self.clock.piece(piece)
        if piece.finish_reason is not None:
            if piece.finish_reason == "abort" and self._wanted_end is not None:
                piece = dataclasses.replace(piece, finish_reason=self._wanted_end)
            self.finish_reason = piece.finish_reason
            self.ended = True
            self.clock.end(self.finish_reason or "abort", self.counted_prompt_tokens)
            self._service.ended(self)
        self._on_piece(piece)

    def _learn(self, piece: RemotePiece) -> None:
        """Take what only the other server knew: the length of the prompt, or why there is no whole answer."""
        self.broken = self.broken or piece.refused
        if piece.prompt_tokens is not None:
            self.clock.prompt_tokens = piece.prompt_tokens
            self.counted_prompt_tokens = piece.prompt_tokens if self.counted_prompt_tokens else 0

    def result(self) -> Completion:
        """Return the whole answer. After its last piece has come this does not wait. `Refused` if the server broke it off."""
        if self.broken is not None:
            raise self.broken
        if self.is_running:  # a short answer may end before its handle is back
            self._attached.wait()
        if self._handle is None:
            raise Refused(503, "the answer was never started", code="aborted", kind=SERVER_ERROR)
        completion = self._handle.result()
        self.clock.phases(completion.times)
        return dataclasses.replace(completion, finish_reason=self.finish_reason or completion.finish_reason)

    def cancel(self) -> None:
        """Stop the answer within one step of the engine; harmless after its end."""
        self._end_as("abort")

    def time_out(self) -> None:
        """End the answer with what it has: its time is over."""
        self._end_as(TIMEOUT)

    def break_off(self, reason: Refused) -> None:
        """End the answer with an error."""
        self.broken = self.broken or reason
        self._end_as("abort")

    def never_started(self) -> None:
        """End an answer that the engine never had."""
        self.receive(Piece("", (), finish_reason="abort"))

    def _end_as(self, reason: str) -> None:
        with self._lock:
            if self.ended or self._wanted_end is not None:
                return
            self._wanted_end = reason
            handle = self._handle
        if handle is not None:
            handle.cancel()
        elif self._service.queue.remove(self):
            self.never_started()


class Progress:
    """Notices an engine that has work and takes no step."""

    def __init__(self) -> None:
        self.is_stuck = False
        self._steps: int | None = None
        self._since = time.monotonic()

    def note(self, steps: int, has_work: bool) -> None:
        """Note how many steps the engine has taken so far."""
        now = time.monotonic()
        if steps != self._steps or not has_work:
            self._steps, self._since = steps, now
        self.is_stuck = now - self._since >= STUCK_SECONDS


class Service:
    """One served model. `on_behalf_of` gives the same service to one caller.

    Services that stand `beside` each other share the door and the figures; each has a queue of its own.
    """

    def __init__(
        self,
        engine: Engine,
        model_name: str,
        settings: ServerSettings,
        *,
        fingerprint: str | None = None,
        beside: "Service | None" = None,
    ) -> None:
        self.engine = engine
        self.settings = settings
        self.fingerprint = fingerprint
        self.started = int(time.time())
        self.model_name = model_name
        self.parent: str | None = None  # of an adapter: the model it changes
        self.call: Call | None = None
        most_running = engine.settings.max_running
        waiting = WAITING_PER_RUNNING * most_running if settings.max_queue is None else settings.max_queue
        self.queue: FairQueue[Answer] = FairQueue(most_running, waiting)
        self.metrics: ServerMetrics = ServerMetrics(
            model_name, self._figures, beside=beside.metrics if beside else None
        )
        if self.remote is None:
            self.metrics.describe_cache(_cache_labels(engine))
        engine.on_step = self.metrics.step_tokens.observe
        self.embeddings = EmbeddingBatcher(lambda texts, pooling: engine.embed(texts, pooling).tolist())
        self.admission: Admission = beside.admission if beside else Admission(settings, model_name)
        self.progress = Progress()
        self.open: set[Answer] = set()
        self._lock = threading.Lock()

    def on_behalf_of(self, call: Call) -> "Service":
        """Return the service as one caller may use it; what it holds is shared."""
        service = copy.copy(self)
        service.call = call
        call.served = service
        return service

    def with_adapter(self, name: str, digest: str) -> "Service":
        """Return the service of an adapter that the engine has: the same queue, and the same steps."""
        service = copy.copy(self)
        service.model_name, service.parent = name, self.model_name
        service.fingerprint = f"{self.fingerprint}-{digest[:8]}" if self.fingerprint else None
        engine = self.engine
        service.embeddings = EmbeddingBatcher(
            lambda texts, pooling: engine.embed(texts, pooling, adapters=[name] * len(texts)).tolist()
        )
        return service

    @contextlib.contextmanager
    def page_call(self, opened: Call) -> Iterator["Service"]:
        """Give the service to a page for one answer; it is limited and written down as a request of who opened the page."""
        call = Call(uuid.uuid4().hex, "page", opened.address, opened.key, status=200)
        self.admission.enter(call)
        try:
            yield self.on_behalf_of(call)
        finally:
            for answer in call.answers:
                answer.cancel()
            self.admission.leave(call)

    @property
    def remote(self) -> RemoteEngine | None:
        """The other servers that answer for the model; None when it runs here."""
        engine: object = self.engine
        return engine if isinstance(engine, RemoteEngine) else None

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

    def may_use(self, model: str) -> bool:
        """Return whether the caller's key allows a model."""
        return self.call is None or self.call.key is None or self.call.key.may_use(model)

    def check_model(self, model: str | None) -> None:
        """Raise `Refused`: 404 when another model than the served one is asked for, 403 when the key does not allow it."""
        if model is not None and model != self.model_name:
            message = f"the model '{model}' does not exist here; available: {self.model_name}"
            raise Refused(404, message, code="model_not_found", param="model")
        if not self.may_use(self.model_name):
            message = f"this key does not allow the model '{self.model_name}'"
            raise Refused(403, message, code="model_not_allowed", param="model", kind="permission_error")

    def chat_ids(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Return the ids of a conversation; `Refused` when the model has no chat template."""
        if not self.can_chat:
            message = f"the model '{self.model_name}' has no chat template; use /v1/completions"
            raise invalid(message, "messages", "no_chat_template")
        return self.tokenizer.encode_chat(
            messages, add_generation_prompt=add_generation_prompt, tools=tools, variables=variables
        ).ids

    def text_ids(self, text: str) -> list[int]:
        """Return the ids of a prompt. No text at all is the start of a document: the end mark of the one before."""
        return self.engine.prompt_ids(text) or [self.tokenizer.end_of_text_id]

    def submit(
        self,
        prompts: Sequence[Sequence[int]],
        params: Sequence[SamplingParams],
        on_piece: Callable[[int, Piece], None],
        options: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[Answer]:
        """Admit one answer for each prompt, all or none, and start them in their turn. `on_piece` gets place and pieces.

        `options` are what else `Engine.submit` takes for each, such as a constraint. `on_piece` is called
        in the engine's thread, which must not be kept waiting.
        """
        for prompt, chosen in zip(prompts, params, strict=True):
            self.engine.check(prompt, chosen)
        fresh = [index == 0 or prompt is not prompts[index - 1] for index, prompt in enumerate(prompts)]
        if self.call is not None:
            wanted = sum(len(prompt) for prompt, first in zip(prompts, fresh, strict=True) if first)
            self.admission.reserve(self.call, wanted + sum(chosen.total_tokens for chosen in params))
            self.call.asked += [
                prompt for prompt, first in zip(prompts, fresh, strict=True) if first and isinstance(prompt, Asked)
            ]
        answers = []
        for index, (prompt, chosen) in enumerate(zip(prompts, params, strict=True)):
            clock = AnswerClock(self.metrics, len(prompt), self._received())
            answer = Answer(clock, chosen, partial(on_piece, index), self)
            answer.counted_prompt_tokens = len(prompt) if fresh[index] else 0
            more: Mapping[str, Any] = options[index] if options else {}
            if self.parent is not None:
                more = {**more, "adapter": self.model_name}
            answer.start = partial(self.engine.submit, prompt, chosen, answer.receive, **more)
            answers.append(answer)
        holder, weight = (self.call.holder, self.call.weight) if self.call else ("", 1)
        with self._lock:
            self.queue.put(holder, weight, answers)
            self.open.update(answers)
            if self.call is not None:
                self.call.answers += answers
        self._start_next()
        return answers

    def read(self, tokens: int) -> None:
        """Charge the caller for texts that are read and get no answer, as for embeddings; `Refused` (429) over a limit."""
        if self.call is not None:
            self.admission.reserve(self.call, tokens)
            self.call.read_tokens += tokens
        self.metrics.prompt_tokens.inc(tokens)

    def drain(self) -> None:
        """Take no new requests any more."""
        self.queue.draining = True

    @property
    def is_stuck(self) -> bool:
        """Whether the engine has had work for a minute and took no step of it."""
        return self.progress.is_stuck

    def interrupt(self) -> None:
        """Break every open answer off: the time to end by themselves is over."""
        for answer in self.open_answers():
            answer.break_off(Refused(503, "the server is shutting down", code="draining", kind=SERVER_ERROR))

    def ended(self, answer: Answer) -> None:
        """Note the end of an answer and start the next one."""
        with self._lock:
            self.open.discard(answer)
        if answer.is_running:
            self.queue.leave()
            self._start_next()
        if answer.call is not None:
            answer.call.note_end()

    def _received(self) -> float:
        return self.call.received if self.call else time.perf_counter()

    def _start_next(self) -> None:
        while (answer := self.queue.take()) is not None:
            answer.is_running = True
            answer.clock.started = time.perf_counter()
            try:
                answer.attach(answer.start())
            except CaslonError as error:
                answer.broken = Refused(503, error.what, code="aborted", kind=SERVER_ERROR)
                answer.is_running = False
                self.queue.leave()
                answer.never_started()

    def open_answers(self) -> list[Answer]:
        """Return the answers that wait or run."""
        with self._lock:
            return list(self.open)

    def _figures(self) -> Mapping[str, Figure]:
        if self.remote is not None:
            return self._queue_figures()
        stats = self.engine.stats()
        return {
            "vllm:num_requests_running": stats.running,
            "vllm:num_requests_waiting": stats.waiting + self.queue.waiting,
            "vllm:kv_cache_usage_perc": stats.blocks_used / stats.blocks_total,
            "vllm:prefix_cache_queries": stats.prompt_tokens,
            "vllm:prefix_cache_hits": stats.cached_tokens,
            "vllm:num_preemptions": stats.preemptions,
            "caslon:engine_steps": stats.steps,
            "caslon:speculative_tokens_drafted": stats.speculation.drafted,
            "caslon:speculative_tokens_accepted": stats.speculation.accepted,
            "caslon:adapter_loads": stats.adapters.loads,
            "vllm:lora_requests_info": _adapter_labels(stats.adapters),
            **self._queue_figures(),
        }

    def _queue_figures(self) -> Mapping[str, float]:
        return {
            "caslon:queue_waiting": self.queue.waiting,
            "caslon:queue_running": self.queue.running,
            "caslon:queue_capacity": self.queue.most,
            "caslon:draining": float(self.queue.draining),
        }


def _adapter_labels(counts: AdapterCounts) -> Mapping[str, str]:
    return {
        "max_lora": str(counts.most),
        "running_lora_adapters": ",".join(counts.running),
        "waiting_lora_adapters": ",".join(counts.waiting),
    }


def _cache_labels(engine: Engine) -> Mapping[str, str]:
    settings = engine.settings
    return {
        "block_size": str(settings.block_tokens),
        "enable_prefix_caching": str(settings.prefix_cache),
        "num_gpu_blocks": str(engine.stats().blocks_total),
    }
