"""A simulated engine with the real one's interface, so that the protocol is tested apart from the model."""

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

from caslon.engine.adapters import AdapterCounts
from caslon.engine.answer import OnPiece
from caslon.engine.request import Completion, ContextLengthExceeded, Piece, SamplingParams, Times, TokenLogprob
from caslon.engine.speculate import SpeculationCounts
from caslon.engine.stream import TextStream
from caslon.tokenizer.tokenizer import Tokenizer

CONTEXT = 200
ANSWER = "The quick brown fox — ünïcode 🦊 jumps over the lazy dog. "


class SimulatedHandle:
    """Writes its answer in a thread of its own and hands each piece to the listener."""

    def __init__(
        self, engine: "SimulatedEngine", prompt: Sequence[int], params: SamplingParams, on_piece: OnPiece | None
    ) -> None:
        self.engine = engine
        self.prompt = list(prompt)
        self.params = params
        self.queue: SimpleQueue[Piece] = SimpleQueue()
        self.on_piece = on_piece or self.queue.put
        self.cancelled = threading.Event()
        self.done = threading.Event()
        self.ids: list[int] = []
        self.text = ""
        self.reason = "length"
        threading.Thread(target=self._write, daemon=True).start()

    def _write(self) -> None:
        stream = TextStream(self.engine.tokenizer, self.params)
        sent = 0
        shown = ""
        for token in itertools.islice(self.engine.answer_ids(self.params), self.params.max_tokens):
            self.engine.gate.wait()
            time.sleep(self.engine.seconds_per_token)
            if self.cancelled.is_set() or self.engine.fail_after == len(self.ids):
                self.reason = "abort" if self.cancelled.is_set() else "error"
                break
            self.ids.append(token)
            shown = stream.push(token, may_stop=True)
            if stream.stopped_by is not None:
                self.reason = "stop"
                break
            if shown and len(self.ids) < self.params.max_tokens:
                self.on_piece(Piece(shown, tuple(self.ids[sent:]), self._logprobs(sent)))
                sent = len(self.ids)
                shown = ""
        if self.reason == "length":
            shown += stream.finish()
        self.text = stream.text
        self.engine.finished.append(self.reason)
        self.on_piece(Piece(shown, tuple(self.ids[sent:]), self._logprobs(sent), self.reason))
        self.done.set()  # after the last piece, as in the engine

    def __iter__(self) -> Iterator[Piece]:
        while True:
            piece = self.queue.get()
            yield piece
            if piece.finish_reason is not None:
                return

    def _logprobs(self, start: int) -> tuple[TokenLogprob, ...]:
        if self.params.logprobs is None:
            return ()
        top = ((65, -1.5),)[: self.params.logprobs]
        return tuple(TokenLogprob(token, -0.5, ((token, -0.5), *top)) for token in self.ids[start:])

    def result(self) -> Completion:
        assert self.done.wait(20)
        rest = tuple(TokenLogprob(token, -2.0, ((token, -2.0),)) for token in self.prompt[1:])
        return Completion(
            ids=tuple(self.ids),
            text=self.text,
            finish_reason=self.reason,
            stop_reason=None,
            logprobs=self._logprobs(0),
            prompt_tokens=len(self.prompt),
            cached_tokens=3,
            prompt_logprobs=None if self.params.prompt_logprobs is None else (None, *rest),
            seed=self.params.seed or 0,
            times=Times(0.0, 0.1, 0.2),
            error="a secret of the inside: /etc/shadow" if self.reason == "error" else None,
        )

    def cancel(self) -> None:
        self.cancelled.set()


class SimulatedEngine:
    """Writes the same words for every prompt; `gate` holds it still."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.settings = SimpleNamespace(max_running=2, block_tokens=16, prefix_cache=True)
        self.model_context = CONTEXT
        self.description = {"dtype": "none", "quantization": "none", "device": "none"}
        self.gate = threading.Event()
        self.gate.set()
        self.seconds_per_token = 0.0
        self.fail_after: int | None = None
        self.seen: list[tuple[list[int], SamplingParams]] = []
        self.finished: list[str] = []
        self.adapters, self.speculation = AdapterCounts(), SpeculationCounts()

    def answer_ids(self, params: SamplingParams) -> Iterator[int]:
        words = f"[{params.seed}] {ANSWER}" if params.seed is not None else ANSWER
        return itertools.cycle(self.tokenizer.encode(words))

    def params(self, **fields: Any) -> SamplingParams:
        return SamplingParams(**{"temperature": 0.7, **fields})

    def prompt_ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)

    def check(self, prompt_ids: Sequence[int], params: SamplingParams) -> None:
        if len(prompt_ids) + params.max_tokens > CONTEXT:
            raise ContextLengthExceeded(len(prompt_ids), params.max_tokens, CONTEXT)

    def submit(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        on_piece: OnPiece | None = None,
        **held: Any,
    ) -> SimulatedHandle:
        self.check(prompt_ids, params)
        self.seen.append((list(prompt_ids), params))
        return SimulatedHandle(self, prompt_ids, params, on_piece)

    def stats(self) -> SimpleNamespace:
        counts = {"blocks_used": 1, "blocks_total": 4, "prompt_tokens": 9, "cached_tokens": 3, "preemptions": 0}
        more = {"adapters": self.adapters, "speculation": self.speculation}
        return SimpleNamespace(running=1, waiting=0, block_tokens=16, steps=time.monotonic_ns(), **counts, **more)
