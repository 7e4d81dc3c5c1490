"""The engine: prompts in, tokens out, for many callers at once and one step at a time.

`submit` may be called from any thread; a background thread, started with the first submission, steps the model.
`generate` and `score` step it themselves when no such thread runs, so a script leaves no thread behind. Only one
thread steps at any moment. The loop's shape follows nano-vllm; continuous batching is Orca's (OSDI 2022).
"""

import logging
import secrets
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Many
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

import torch

from caslon.engine.adapters import AdapterCounts, Adapters
from caslon.engine.answer import Answer, Handle, OnPiece, scored_tokens
from caslon.engine.blocks import BlockPool
from caslon.engine.branches import best, branches
from caslon.engine.defaults import sampling_defaults, stop_ids
from caslon.engine.form import AnswerForm
from caslon.engine.grammar import Grammars
from caslon.engine.loading import cache_format, give_back_freed_memory, kv_format, load_decoder, spare_bytes
from caslon.engine.planner import block_count
from caslon.engine.pooling import Pooled, PoolingKind
from caslon.engine.request import (
    CacheTooSmall,
    Completion,
    Constraint,
    ContextLengthExceeded,
    EngineClosed,
    InvalidParameter,
    Piece,
    SamplingParams,
    Sequence,
)
from caslon.engine.runner import runner_for
from caslon.engine.scheduler import Scheduler
from caslon.engine.search import new_answer
from caslon.engine.sections import NO_SECTIONS, Sections
from caslon.engine.settings import EngineSettings
from caslon.engine.speculate import SpeculationCounts, Speculator, drafter_for
from caslon.engine.stepper import Stepper
from caslon.errors import CaslonError, UserError
from caslon.model.decoder import Decoder
from caslon.tokenizer.tokenizer import Tokenizer

NO_SAMPLING = SamplingParams(max_tokens=1)  # of requests for which no token is chosen

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineStats:
    """A moment's counts. Tokens are summed over the engine's life; `finished` counts answers by finish reason.

    `waste_tokens` is the room in the last blocks of the running sequences that no token fills yet.
    """

    running: int
    waiting: int
    blocks_total: int
    blocks_used: int
    blocks_known: int
    waste_tokens: int
    kv_bytes: int
    steps: int
    preemptions: int
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    finished: Mapping[str, int]
    speculation: SpeculationCounts = field(default_factory=SpeculationCounts)
    adapters: AdapterCounts = field(default_factory=AdapterCounts)


@dataclass
class _Mailbox:
    """The thread border: what callers ask for, and whether the stepping thread has a reason to wake."""

    wake: threading.Condition = field(default_factory=threading.Condition)
    submitted: deque[Answer] = field(default_factory=deque)
    cancelled: deque[Answer] = field(default_factory=deque)
    busy: bool = False
    closed: bool = False
    thread: threading.Thread | None = None

    def wait(self) -> bool:
        """Wait for a reason to step; False when there will be none any more."""
        with self.wake:
            self.wake.wait_for(lambda: self.closed or self.busy or self.submitted or self.cancelled)
            return not self.closed

    def set_busy(self, busy: bool) -> None:
        with self.wake:
            self.busy = busy
            self.wake.notify_all()

    def close(self) -> None:
        """Stop the stepping thread and wait until it has left."""
        with self.wake:
            self.closed = True
            self.wake.notify_all()
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join()


class Engine:
    """A decoder that answers. Greedy float32 answers do not depend on what else is being answered."""

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        settings: EngineSettings | None = None,
        generation_config: Mapping[str, Any] | None = None,
        base_digest: Callable[[], str] | None = None,
    ) -> None:
        settings = settings or EngineSettings()
        config = decoder.config
        if tokenizer.vocab_size > config.vocab_size:
            raise UserError(
                f"the tokenizer has {tokenizer.vocab_size} tokens, the model only {config.vocab_size}",
                fix="use the tokenizer the model was trained with",
            )
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self.decoder = decoder.eval()
        self.tokenizer = tokenizer
        self.settings = settings
        self.model_context = _context(config.max_position_embeddings, settings.max_model_tokens)
        self._sampling_defaults = sampling_defaults(generation_config or {}, tokenizer.vocab_size)
        self._eos_ids = frozenset(stop_ids(generation_config or {})) | frozenset(tokenizer.stop_ids)
        count = block_count(
            config, settings, context=self.model_context, kind=cache_format(decoder, settings), dtype=kv_format(decoder),
            spare_bytes=spare_bytes(decoder, settings),
        )  # fmt: skip
        self._pool = BlockPool(
            count,
            settings.block_tokens,
            prefix_cache=settings.prefix_cache and settings.cache_is_exact,
            most_tokens=settings.most_held_tokens,
        )
        self._runner = runner_for(self.decoder, settings, count, tokenizer.vocab_size)
        self._scheduler = Scheduler(
            self._pool, max_running=settings.max_running, max_step_tokens=settings.max_step_tokens
        )
        self.adapters = Adapters(decoder, settings.max_adapters, base_digest)
        self._grammars = Grammars(tokenizer, self._eos_ids)
        self._stepper = Stepper(self._runner, self._scheduler, Speculator(drafter_for(settings, count, tokenizer)))
        self._stepping = threading.Lock()
        self._mailbox = _Mailbox()
        self._finalizer = weakref.finalize(self, self._mailbox.close)  # runs at interpreter exit too

    @staticmethod
    def load(folder: Path, settings: EngineSettings | None = None, *, verify: bool = True) -> "Engine":
        """Return an engine for a model folder. With `verify`, golden prompts in the folder are replayed first."""
        from caslon.engine.golden import verify_golden_prompts
        from caslon.model.folder import ModelFolder

        model = ModelFolder.open(Path(folder))
        settings = settings or EngineSettings()
        decoder = load_decoder(model, settings)
        engine = Engine(decoder, model.tokenizer(), settings, model.generation_config, model.digest)
        give_back_freed_memory()
        if verify:
            verify_golden_prompts(engine, Path(folder))
        return engine

    @property
    def end_ids(self) -> frozenset[int]:
        """The ids that end an answer unless `ignore_eos` is asked for."""
        return self._eos_ids

    def constraint(self, form: AnswerForm) -> Constraint:
        """Return what holds one answer to a form; `InvalidSchema`, before any token, for a form that cannot be had."""
        return self._grammars.constraint(form)

    @property
    def largest_request_tokens(self) -> int:
        """Return how many tokens a prompt and its answer may have together: the context, or what the cache holds."""
        return min(self.model_context, self._pool.count * self._pool.block_tokens)

    @property
    def description(self) -> dict[str, str]:
        """Return how the model is computed: dtype, quantisation, device, and by which kernels."""
        dtype = str(self.decoder.model.embed_tokens.weight.dtype).removeprefix("torch.")
        quantization = "none" if self.settings.weights == "auto" else self.settings.weights
        device = self.decoder.device.type
        return {"dtype": dtype, "quantization": quantization, "device": device, "kernels": self._runner.kernels}

    def params(self, **fields: Any) -> SamplingParams:
        """Return sampling parameters: the given fields over the defaults of the folder's generation_config.json."""
        return SamplingParams(**{**self._sampling_defaults, **fields})

    def prompt_ids(self, text: str, *, add_special_tokens: bool | None = None) -> list[int]:
        """Return the ids of a text prompt, after a start token where the tokenizer's own rule, or the caller, wants one."""
        wanted = self.tokenizer.config.get("add_bos_token") if add_special_tokens is None else add_special_tokens
        return ([self.tokenizer.start_of_text_id] if wanted else []) + self.tokenizer.encode(text)

    def generate(
        self,
        prompts: Many[str | Many[int]],
        params: SamplingParams | Many[SamplingParams] | None = None,
        *,
        adapters: Many[str | None] | None = None,
    ) -> list[Completion]:
        """Return a completion for each prompt, in order, or `n` for each. Raises `CaslonError` if one of them failed.

        `adapters` names the adapter of each prompt, None for the model alone.
        """
        if params is None or isinstance(params, SamplingParams):
            params = [params or self.params()] * len(prompts)
        tries: list[list[Answer]] = []
        for prompt, chosen, adapter in zip(prompts, params, adapters or [None] * len(prompts), strict=True):
            special = chosen.add_special_tokens
            ids = self.prompt_ids(prompt, add_special_tokens=special) if isinstance(prompt, str) else prompt
            tries.append([self._new_answer(ids, one, None, adapter=adapter) for one in branches(chosen)])
        written = iter(self._complete([answer for group in tries for answer in group]))
        return [
            completion
            for chosen, group in zip(params, tries, strict=True)
            for completion in best(list(islice(written, len(group))), chosen)
        ]

    def score(self, prompts: Many[Many[int]]) -> list[list[float]]:
        """Return the natural-log probability of each token given all before it: one number less than tokens."""
        params = SamplingParams(prompt_logprobs=0)
        completions = self._complete([self._new_answer(ids, params, None, wants_tokens=False) for ids in prompts])
        return [[entry.logprob for entry in scored_tokens(completion)] for completion in completions]

    def embed(
        self,
        prompts: Many[str | Many[int]],
        pooling: PoolingKind = "mean",
        *,
        adapters: Many[str | None] | None = None,
    ) -> torch.Tensor:
        """Return a vector of length one for each text, [texts, width] in float32, pooled from the final hidden states."""
        ids = [self.prompt_ids(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
        answers = [
            self._new_answer(tokens, NO_SAMPLING, None, wants_tokens=False, adapter=adapter)
            for tokens, adapter in zip(ids, adapters or [None] * len(ids), strict=True)
        ]
        pooled = [Pooled(pooling) for _ in answers]
        for answer, vector in zip(answers, pooled, strict=True):
            answer.sequence.pooled = vector
        self._complete(answers)
        return torch.stack([vector.vector() for vector in pooled]) if pooled else torch.empty(0)

    def submit(
        self,
        prompt_ids: Many[int],
        params: SamplingParams | None = None,
        on_piece: OnPiece | None = None,
        *,
        constraint: Constraint | None = None,
        sections: Sections = NO_SECTIONS,
        adapter: str | None = None,
        cache_salt: str = "",
        priority: int = 0,
        timeout_seconds: float | None = None,
        request_id: str = "",
    ) -> Handle:
        """Start a request from any thread and return its handle.

        With `on_piece`, pieces go to that function, in the stepping thread, instead of the handle's iterator.
        `constraint` says which tokens may come; it belongs to this answer alone. `sections` are told apart in the pieces.
        Only requests with the same `adapter` and `cache_salt` reuse each other's prompts. Lower `priority` goes first. After
        `timeout_seconds` the answer ends as it is then, with finish reason "timeout". `request_id` names it in the log.
        A request that cannot be served raises here: `ContextLengthExceeded`, `CacheTooSmall`, `InvalidParameter`,
        `UnknownAdapter`.
        """
        params = params or self.params()
        if len(branches(params)) > 1:
            raise InvalidParameter("n", params.best_of or params.n, "1 here: submit each of `branches(params)`")
        pieces: SimpleQueue[Piece] = SimpleQueue()
        answer = self._new_answer(prompt_ids, params, on_piece or pieces.put, sections=sections, adapter=adapter)
        if constraint is not None and params.width > 1:
            raise InvalidParameter("num_beams", params.num_beams, "1, without penalty_alpha, where a form is asked for")
        sequence = answer.sequence
        sequence.constraint, sequence.cache_salt, sequence.request_id = constraint, cache_salt, request_id
        sequence.priority = priority
        if timeout_seconds is not None:
            sequence.deadline = sequence.submitted + timeout_seconds
        self._enqueue([answer])
        self._start_thread()
        return Handle(answer, None if on_piece else pieces, lambda: self._cancel(answer))

    @property
    def on_step(self) -> Callable[[int], None] | None:
        """What is told how many tokens each step computed."""
        return self._stepper.on_step

    @on_step.setter
    def on_step(self, listener: Callable[[int], None] | None) -> None:
        self._stepper.on_step = listener

    def check(self, prompt_ids: Many[int], params: SamplingParams) -> None:
        """Raise what `submit` would raise for a request that cannot be served."""
        self._check(tuple(prompt_ids), params, params.max_tokens)

    def stats(self) -> EngineStats:
        """Return the counts of this moment."""
        counts = self._stepper.counts
        return EngineStats(
            running=len(self._scheduler.running),
            waiting=len(self._scheduler.waiting) + len(self._mailbox.submitted),
            blocks_total=self._pool.count,
            blocks_used=self._pool.used,
            blocks_known=self._pool.known,
            waste_tokens=self._scheduler.waste_tokens,
            kv_bytes=self._runner.cache_bytes,
            steps=counts["steps"],
            preemptions=self._scheduler.preemptions,
            prompt_tokens=counts["prompt_tokens"],
            cached_tokens=counts["cached_tokens"],
            generated_tokens=counts["generated_tokens"],
            finished=dict(self._stepper.finished),
            speculation=deepcopy(self._stepper.speculator.counts),
            adapters=self.adapters.counts(list(self._scheduler.running), self._scheduler.waiting),
        )

    def close(self) -> None:
        """End all requests as aborted and stop the thread. Closing twice is harmless."""
        self._mailbox.close()
        with self._stepping:
            self._take_mail()
            self._stepper.end_all("abort")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # What follows up to `_step` runs in callers' threads.

    def _new_answer(
        self,
        prompt_ids: Many[int],
        params: SamplingParams,
        on_piece: OnPiece | None,
        *,
        wants_tokens: bool = True,
        sections: Sections = NO_SECTIONS,
        adapter: str | None = None,
    ) -> Answer:
        prompt = tuple(prompt_ids)
        self._check(prompt, params, params.total_tokens if wants_tokens else 0)
        stops = frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else self._eos_ids)
        seed = secrets.randbits(63) if params.seed is None else params.seed
        sequence = Sequence(prompt, params, stops, seed, wants_tokens)
        sequence.adapter = None if adapter is None else self.adapters.get(adapter)
        return new_answer(sequence, self.tokenizer, on_piece, sections)

    def _check(self, prompt: tuple[int, ...], params: SamplingParams, max_tokens: int) -> None:
        vocab_size = self.tokenizer.vocab_size
        if not prompt:
            raise InvalidParameter("prompt", list(prompt), "at least one token")
        for token in (min(prompt), max(prompt)):
            if not 0 <= token < vocab_size:
                raise InvalidParameter("prompt", token, f"token ids from 0 to {vocab_size - 1}")
        params.check_vocabulary(vocab_size)
        if len(prompt) + max_tokens > self.model_context:
            raise ContextLengthExceeded(len(prompt), max_tokens, self.model_context)
        if params.width > 1 and not self.settings.cache_is_exact:
            raise InvalidParameter(
                "num_beams", params.width, "1, without penalty_alpha, where kv_dtype or retention is set"
            )
        if params.width > self.settings.max_running:
            raise InvalidParameter("num_beams", params.width, f"at most max_running ({self.settings.max_running})")
        if params.width * self._pool.needed(len(prompt) + max_tokens) > self._pool.count:
            raise CacheTooSmall(len(prompt), max_tokens, self._pool.count * self._pool.block_tokens)

    def _enqueue(self, answers: list[Answer]) -> None:
        with self._mailbox.wake:
            if self._mailbox.closed:
                raise EngineClosed("the engine is closed", fix="make a new one")
            self._mailbox.submitted.extend(answers)
            self._mailbox.wake.notify_all()

    def _cancel(self, answer: Answer) -> None:
        with self._mailbox.wake:
            self._mailbox.cancelled.append(answer)
            self._mailbox.wake.notify_all()

    def _start_thread(self) -> None:
        with self._mailbox.wake:
            if self._mailbox.thread is None and not self._mailbox.closed:
                thread = threading.Thread(
                    target=_step_forever, args=(weakref.ref(self), self._mailbox), name="caslon-engine", daemon=True
                )
                self._mailbox.thread = thread
                thread.start()

    def _complete(self, answers: list[Answer]) -> list[Completion]:
        self._enqueue(answers)
        try:
            for answer in answers:
                while not answer.done.is_set():
                    if self._mailbox.thread is None:
                        self._step()
                    else:
                        answer.done.wait()
        finally:
            self._abandon(answers)
        completions = [answer.completion for answer in answers if answer.completion is not None]
        failed = next((completion for completion in completions if completion.error is not None), None)
        if failed is not None:
            raise CaslonError(f"a request failed: {failed.error}")
        return completions

    def _abandon(self, answers: list[Answer]) -> None:
        """Free what an interrupted call left behind."""
        left = [answer for answer in answers if not answer.done.is_set()]
        for answer in left:
            self._cancel(answer)
        if left and self._mailbox.thread is None:
            with self._stepping:
                self._take_mail()

    # What follows runs under `_stepping`, in whichever thread steps.

    def _step(self) -> None:
        with self._stepping, torch.inference_mode():
            self._take_mail()
            self._stepper.step()
            self._mailbox.set_busy(self._scheduler.has_work)

    def _take_mail(self) -> None:
        with self._mailbox.wake:
            submitted, self._mailbox.submitted = list(self._mailbox.submitted), deque()
            cancelled, self._mailbox.cancelled = list(self._mailbox.cancelled), deque()
        for answer in submitted:
            self._stepper.add(answer)
        for answer in cancelled:
            self._stepper.end(answer, "abort")


def _step_forever(reference: "weakref.ref[Engine]", mailbox: _Mailbox) -> None:
    """Step while there is work. Holds no engine while it waits, so that a forgotten engine can be collected."""
    while mailbox.wait():
        engine = reference()
        if engine is None:
            return
        engine._step()
        del engine


def _context(model_positions: int, asked: int | None) -> int:
    if asked is not None and asked > model_positions:
        raise UserError(
            f"max_model_tokens = {asked}, but the model was made for {model_positions} positions",
            where="max_model_tokens",
            fix=f"use at most {model_positions}",
        )
    return asked or model_positions
