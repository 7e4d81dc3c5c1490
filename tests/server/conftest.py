"""A simulated engine with the real one's interface, so that the protocol is tested apart from the model."""

import itertools
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import pytest
from openai import OpenAI

from caslon.engine.request import Completion, ContextLengthExceeded, Piece, SamplingParams, Times, TokenLogprob
from caslon.server.run import running_server
from caslon.server.settings import ServerSettings
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.tokenizer.train import train_tokenizer

CONTEXT = 200
ANSWER = "The quick brown fox — ünïcode 🦊 jumps over the lazy dog. "


class SimulatedHandle:
    def __init__(self, engine: "SimulatedEngine", prompt: Sequence[int], params: SamplingParams) -> None:
        self.engine = engine
        self.prompt = list(prompt)
        self.params = params
        self.cancelled = threading.Event()
        self.pieces: queue.Queue[Piece | None | Exception] = queue.Queue()
        self.completion: Completion | None = None
        threading.Thread(target=self._write, daemon=True).start()

    def _write(self) -> None:
        ids: list[int] = []
        logprobs: list[TokenLogprob] = []
        text = ""
        reason = "length"
        try:
            for token in itertools.islice(self.engine.answer_ids(self.prompt, self.params), self.params.max_tokens):
                self.engine.gate.wait()
                time.sleep(self.engine.seconds_per_token)
                if self.cancelled.is_set():
                    reason = "abort"
                    break
                if self.engine.fail_after is not None and len(ids) >= self.engine.fail_after:
                    raise RuntimeError("a secret of the inside: /etc/shadow")
                ids.append(token)
                logprobs.append(TokenLogprob(token, -0.5, ((token, -0.5), (65, -1.5))))
                whole = self.engine.tokenizer.decode(ids)
                new = "" if whole.endswith("�") else whole[len(text) :]
                cut = [text.find(stop) for stop in self.params.stop if stop in (text := text + new)]
                if cut:
                    reason, text = "stop", text[: min(cut)]
                    break
                wanted = (logprobs[-1],) if self.params.logprobs is not None else ()
                self.pieces.put(Piece(new, (token,), wanted))
            self.engine.finished.append(reason)
            before = None
            if self.params.prompt_logprobs is not None:
                rest = [TokenLogprob(token, -2.0, ((token, -2.0),)) for token in self.prompt[1:]]
                before = (None, *rest)
            self.completion = Completion(
                ids=tuple(ids),
                text=text,
                finish_reason=reason,
                stop_reason=None,
                logprobs=tuple(logprobs) if self.params.logprobs is not None else (),
                prompt_tokens=len(self.prompt),
                cached_tokens=3,
                prompt_logprobs=before,
                seed=self.params.seed or 0,
                times=Times(0.0, 0.1, 0.2),
            )
            self.pieces.put(Piece("", (), (), reason))
            self.pieces.put(None)
        except RuntimeError as error:
            self.pieces.put(error)

    def __iter__(self) -> Iterator[Piece]:
        while (item := self.pieces.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    def result(self) -> Completion:
        assert self.completion is not None
        return self.completion

    def cancel(self) -> None:
        self.cancelled.set()


class SimulatedEngine:
    """Writes the same words for every prompt; `gate` holds it still."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.settings = SimpleNamespace(max_running=2)
        self.model_context = CONTEXT
        self.generation_config: dict[str, object] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.seconds_per_token = 0.0
        self.fail_after: int | None = None
        self.seen: list[tuple[list[int], SamplingParams]] = []
        self.finished: list[str] = []

    def answer_ids(self, prompt: Sequence[int], params: SamplingParams) -> Iterator[int]:
        words = f"[{params.seed}] {ANSWER}" if params.seed is not None else ANSWER
        return itertools.cycle(self.tokenizer.encode(words))

    def submit(self, prompt_ids: Sequence[int], params: SamplingParams) -> SimulatedHandle:
        if len(prompt_ids) + params.max_tokens > CONTEXT:
            raise ContextLengthExceeded(len(prompt_ids), params.max_tokens, CONTEXT)
        self.seen.append((list(prompt_ids), params))
        return SimulatedHandle(self, prompt_ids, params)

    def stats(self) -> SimpleNamespace:
        return SimpleNamespace()


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["the quick brown fox jumps over the lazy dog " * 20], vocab_size=320)


@pytest.fixture
def engine(tokenizer: Tokenizer) -> SimulatedEngine:
    return SimulatedEngine(tokenizer)


@pytest.fixture
def settings() -> ServerSettings:
    return ServerSettings(page=False, max_queue=4)


@pytest.fixture
def url(engine: SimulatedEngine, settings: ServerSettings) -> Iterator[str]:
    with running_server(engine, "fox", settings) as address:
        yield address
    engine.gate.set()


@pytest.fixture
def client(url: str) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=20)
