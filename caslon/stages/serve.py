"""`[serve]`: proves that the served model is the trained one, by asking a running server and comparing.

The server runs on a free loopback port, is asked through HTTP, and shuts down. Each greedy answer must equal the engine's, and
the plain decoder's (no cache, no batch) token for token. Writes `transcript.json`, the same bytes for the same model.
The other settings of the table are those of `caslon serve`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from caslon.engine.settings import EngineSettings
from caslon.errors import CaslonError
from caslon.folders import write_atomic
from caslon.server.settings import ServerSettings
from caslon.stages.stage import PlanContext, PlanRow, StageContext

if TYPE_CHECKING:
    from caslon.client import Client
    from caslon.engine.engine import Engine

VERSION = 1
READS: Sequence[str] = ("model",)
WRITES: str | None = "transcript"
NEEDS = {"fastapi": "server", "uvicorn": "server", "prometheus_client": "server"}

MODEL_FOLDER = "model"
TRANSCRIPT_FILE = "transcript.json"
# Whatever the model folder sets: the likeliest token of the bare model, as the plain decoder takes it.
GREEDY: dict[str, Any] = {"temperature": 0, "repetition_penalty": 1.0}


class Settings(ServerSettings, EngineSettings):
    """What is asked, and how the model is served."""

    prompts: tuple[str, ...] = Field(("The ",), min_length=1, description="texts to continue")
    questions: tuple[str, ...] = Field(("What can you do?",), description="first turns of conversations")
    max_tokens: int = Field(48, ge=1, description="longest answer, in tokens")


@dataclass(frozen=True)
class _Answer:
    """What came back through HTTP: the text, its tokens as text, and why it ended."""

    text: str
    tokens: list[str]
    finish_reason: str
    usage: dict[str, Any]


def plan(context: PlanContext) -> list[PlanRow]:
    """Return what will be asked."""
    settings: Settings = context.settings
    return [
        PlanRow("prompts", len(settings.prompts), "completions", "serve.prompts"),
        PlanRow("questions", len(settings.questions), "chat turns", "serve.questions"),
        PlanRow("longest answer", settings.max_tokens, "tokens", "serve.max_tokens"),
    ]


def run(context: StageContext) -> dict[str, Any]:
    """Serve the model, ask it, compare, write the transcript."""
    from caslon.client import Client
    from caslon.engine.engine import Engine
    from caslon.model.folder import ModelFolder
    from caslon.server.run import fingerprint_of, running_server

    settings: Settings = context.settings
    folder = context.inputs["model"].path / MODEL_FOLDER
    name = settings.model_name or context.inputs["model"].manifest.stage
    engine_settings = EngineSettings(**{field: getattr(settings, field) for field in EngineSettings.model_fields})
    # The page has tests of its own and takes seconds to build; the API is what is proven here.
    server_settings = ServerSettings(page=False, max_queue=settings.max_queue)
    with Engine.load(folder, engine_settings) as engine:
        fingerprint = fingerprint_of(ModelFolder.open(folder))
        with (
            running_server(engine, name, server_settings, fingerprint=fingerprint) as url,
            Client(url) as client,
        ):
            interview = _Interview(engine, client, name, settings.max_tokens, context)
            completions = [interview.complete(prompt) for prompt in settings.prompts]
            chats = [interview.chat(question) for question in _questions(context, engine, settings)]
            _check_routes(client, engine, name, answers=interview.asked)
    transcript = {"model": name, "fingerprint": fingerprint, "completions": completions, "chats": chats}
    text = json.dumps(transcript, indent=2, ensure_ascii=False) + "\n"
    write_atomic(context.folder / TRANSCRIPT_FILE, text)
    records = [*completions, *chats]
    return {
        "completions": len(completions),
        "chats": len(chats),
        "answer_tokens": sum(record["completion_tokens"] for record in records),
        "tokens_equal_to_plain_decoder": sum(record["tokens_equal_to_plain_decoder"] for record in records),
    }


def _questions(context: StageContext, engine: "Engine", settings: Settings) -> tuple[str, ...]:
    if engine.tokenizer.chat_template is not None:
        return settings.questions
    if settings.questions:
        context.events.note("the model has no chat template: it is asked for completions only")
    return ()


class _Interview:
    """Asks the server and holds each answer against the engine's and the plain decoder's."""

    def __init__(self, engine: "Engine", client: "Client", model: str, max_tokens: int, context: StageContext) -> None:
        self.engine = engine
        self.client = client
        self.model = model
        self.max_tokens = max_tokens
        self.events = context.events
        self.asked = 0

    def complete(self, prompt: str) -> dict[str, Any]:
        """Ask for a completion, whole and in pieces; return its record."""
        ids = self.engine.prompt_ids(prompt)
        fields = {"max_tokens": self._room(ids), **GREEDY}
        body = self.client.complete(self.model, prompt, logprobs=0, **fields)
        choice = body["choices"][0]
        answer = _Answer(choice["text"], choice["logprobs"]["tokens"], choice["finish_reason"], body["usage"])
        chunks = self.client.stream_completion(self.model, prompt, **fields)
        streamed = "".join(choice["text"] for chunk in chunks for choice in chunk["choices"])
        return {"prompt": prompt, **self._checked(prompt, ids, answer, streamed)}

    def chat(self, question: str) -> dict[str, Any]:
        """Ask a question, whole and in pieces; return its record."""
        messages = [{"role": "user", "content": question}]
        ids = self.engine.tokenizer.encode_chat(messages, add_generation_prompt=True).ids
        fields = {"max_tokens": self._room(ids), **GREEDY}
        body = self.client.chat(self.model, messages, logprobs=True, **fields)
        choice = body["choices"][0]
        tokens = [entry["token"] for entry in choice["logprobs"]["content"]]
        answer = _Answer(choice["message"]["content"], tokens, choice["finish_reason"], body["usage"])
        chunks = self.client.stream_chat(self.model, messages, **fields)
        streamed = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
        return {"question": question, **self._checked(question, ids, answer, streamed)}

    def _room(self, ids: Sequence[int]) -> int:
        return max(1, min(self.max_tokens, self.engine.model_context - len(ids)))

    def _checked(self, asked: str, ids: Sequence[int], answer: _Answer, streamed: str) -> dict[str, Any]:
        """Return an answer's record; `CaslonError` when it is not the trained model's."""
        self.asked += 2
        if streamed != answer.text:
            raise _different(asked, "the pieces of the stream do not add up to the whole answer")
        params = self.engine.params(max_tokens=self._room(ids), logprobs=0, **GREEDY)
        [expected] = self.engine.generate([ids], params)
        if (answer.text, answer.finish_reason) != (expected.text, expected.finish_reason):
            raise _different(asked, f"served {answer.text!r}, the engine writes {expected.text!r}")
        equal = self._equal_to_plain(asked, ids, answer)
        self.events.note(f"asked over HTTP: {asked!r}; answered: {answer.text!r}")
        return {
            "answer": answer.text,
            "finish_reason": answer.finish_reason,
            "prompt_tokens": answer.usage["prompt_tokens"],
            "completion_tokens": answer.usage["completion_tokens"],
            "tokens_equal_to_plain_decoder": equal,
        }

    def _equal_to_plain(self, asked: str, ids: Sequence[int], answer: _Answer) -> int:
        """Return how many tokens were compared with the plain decoder's: up to the end, or to its first near tie."""
        from caslon.engine.golden import golden_prompts
        from caslon.server.logprobs import token_text

        golden = golden_prompts(self.engine.decoder, [ids], len(answer.tokens))
        sure = golden[0]["ids"] if golden else []  # none when the very first token is a near tie
        plain = [token_text(self.engine.tokenizer, token) for token in sure]
        for position, (served, expected) in enumerate(zip(answer.tokens, plain, strict=False)):
            if served != expected:
                raise _different(asked, f"token {position} is {served!r}, the plain decoder writes {expected!r}")
        return min(len(plain), len(answer.tokens))


def _different(asked: str, what: str) -> CaslonError:
    return CaslonError(
        f"the served model does not answer as the trained one: {what}",
        where=repr(asked),
        fix="this is a fault of caslon; please report it with the model folder",
    )


def _check_routes(client: "Client", engine: "Engine", name: str, answers: int) -> None:
    """Raise `CaslonError` when the server does not report what it did, or takes what does not fit."""
    from caslon.client import ServerRefused

    client.get_json("/health")
    client.get_json("/health/ready")
    if client.models() != [name]:
        raise CaslonError(f"/v1/models names {client.models()}, not {name}")
    counted = _counted(client.get_text("/metrics"), "vllm:request_success_total")
    if counted != answers:
        raise CaslonError(f"/metrics counts {counted} answers, {answers} were given")
    too_long = [engine.tokenizer.end_of_text_id] * engine.model_context
    try:
        client.complete(name, too_long, max_tokens=1)
    except ServerRefused as refused:
        if (refused.status, refused.code) == (400, "context_length_exceeded"):
            return
        raise
    raise CaslonError("a prompt longer than the context was taken")


def _counted(metrics: str, name: str) -> int:
    lines = [line for line in metrics.splitlines() if line.startswith(f"{name}{{")]
    return int(sum(float(line.rpartition(" ")[2]) for line in lines))
