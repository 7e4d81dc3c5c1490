"""What a service asks of an engine, done by other servers: `submit` sends the request on, and pieces come back.

A prompt is not tokenized here but counted: by the tokenizer where the settings name one, else by its bytes, of which no
token has less than one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from caslon.engine.answer import OnPiece
from caslon.engine.request import ContextLengthExceeded, SamplingParams
from caslon.engine.settings import EngineSettings
from caslon.server.chat_wire import ChatMessage, ChatRequest
from caslon.server.errors import invalid
from caslon.server.sampling import SAME_NAME
from caslon.server.upstream.exchange import Exchange, RemoteHandle, estimated_tokens
from caslon.server.upstream.kinds import not_honoured
from caslon.server.upstream.loop import UpstreamLoop
from caslon.server.upstream.pieces import Api, Asked, PromptSize
from caslon.server.upstream.settings import UpstreamSettings
from caslon.server.wire import CompletionRequest, SamplingFields
from caslon.tokenizer.tokenizer import Tokenizer

# The service itself takes care of them, or passes them on in its own way; `user` and `metadata` go to nobody.
OWN_FIELDS = frozenset(
    {
        "model",
        "user",
        "metadata",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "messages",
        "prompt",
    }
)
# Taken only while they ask for nothing.
NOT_OFFERED = frozenset(
    {"functions", "function_call", "audio", "prediction", "service_tier", "store", "verbosity", "web_search_options"}
)
MESSAGE_FIELDS = frozenset({"role", "content", "tool_calls", "tool_call_id", "reasoning_content"})
MESSAGE_TOKENS = 16  # what a template puts around a message, at most
UNKNOWN_CONTEXT_TOKENS = 1 << 20


class RemoteEngine:
    """The upstreams that are asked for one model, the first one first."""

    def __init__(self, model: str, upstreams: Sequence[UpstreamSettings], loop: UpstreamLoop) -> None:
        first = upstreams[0]
        self.model = model
        self.upstream = first
        self._upstreams = upstreams
        self._loop = loop
        self._tokenizer = Tokenizer.load(first.tokenizer) if first.tokenizer is not None else None
        self.settings = EngineSettings(max_running=first.max_running, max_step_tokens=2 * first.max_running)
        self.model_context = first.context_tokens or UNKNOWN_CONTEXT_TOKENS
        self.description = {
            "engine": f"upstream ({first.kind})",
            "dtype": "unknown",
            "device": "unknown",
            "kernels": "unknown",
        }

    @property
    def has_tokenizer(self) -> bool:
        """Whether the tokens of the model are known here."""
        return self._tokenizer is not None

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer; `Refused` (400) where it is not known here."""
        if self._tokenizer is None:
            raise invalid(f"the tokens of '{self.model}' are known to the server behind it only", "model",
                          "unsupported_by_upstream")  # fmt: skip
        return self._tokenizer

    def chat(self, fields: ChatRequest) -> Asked:
        """Return a chat request as it is sent on; `Refused` for what no upstream can do."""
        messages = [_message(message, place) for place, message in enumerate(fields.messages)]
        wanted = fields.max_tokens if fields.max_completion_tokens is None else fields.max_completion_tokens
        params = _params(fields, self.upstream.max_tokens if wanted is None else wanted)
        return self._asked(
            "chat", {**_given(fields), "messages": messages}, params, fields.n or 1, self._chat_size(messages)
        )

    def completion(self, fields: CompletionRequest, prompt: str | list[int], max_tokens: int) -> Asked:
        """Return one prompt of a completion request as it is sent on; `Refused` for what no upstream can do."""
        size = PromptSize(len(prompt), len(prompt), True) if isinstance(prompt, list) else self._text_size(prompt)
        params = _params(fields, max_tokens)
        return self._asked("completion", {**_given(fields), "prompt": prompt}, params, fields.n or 1, size)

    def _asked(self, api: Api, fields: dict[str, Any], params: SamplingParams, choices: int, size: PromptSize) -> Asked:
        asked = Asked(api, fields, params, choices, size)
        asked.exchange = Exchange(asked, self.model, [self._loop.upstreams[one.name] for one in self._upstreams],
                                  self._loop, self._count)  # fmt: skip
        reasons = [not_honoured(asked, one) for one in self._upstreams]
        if reasons[0] is not None:
            raise reasons[0]
        return asked

    def check(self, asked: Asked, params: SamplingParams) -> None:
        """Raise `ContextLengthExceeded` for a prompt that is known not to fit."""
        if asked.is_counted and asked.likely_tokens + params.max_tokens > self.model_context:
            raise ContextLengthExceeded(asked.likely_tokens, params.max_tokens, self.model_context)

    def submit(self, asked: Asked, params: SamplingParams, on_piece: OnPiece, *, choice: int) -> RemoteHandle:
        """Start an answer; the first one of a request sends it."""
        return asked.exchange.join(choice, on_piece)

    def prompt_ids(self, text: str) -> list[int]:
        """Return the ids of a text; `Refused` (400) where the tokenizer is not known here."""
        return self.tokenizer.encode(text)

    def close(self) -> None:
        """Do nothing: the talks end with their loop."""

    def _count(self, text: str) -> int | None:
        return None if self._tokenizer is None else len(self._tokenizer.encode(text))

    def _text_size(self, text: str) -> PromptSize:
        counted = self._count(text)
        if counted is not None:
            return PromptSize(counted, counted, True)
        return PromptSize(estimated_tokens(text), len(text.encode()), False)

    def _chat_size(self, messages: Sequence[Mapping[str, Any]]) -> PromptSize:
        """Return the size of a conversation: the template's own where it is known, never less than its texts."""
        text = "".join(str(message.get("content", "")) for message in messages)
        size = self._text_size(text)
        around = MESSAGE_TOKENS * len(messages)
        return PromptSize(size.likely_tokens, size.most_tokens + around, size.is_counted)


def _message(message: ChatMessage, place: int) -> dict[str, Any]:
    message.plain(place)  # checks its parts and the arguments of its calls
    found = message.model_dump(exclude_none=True, include=set(MESSAGE_FIELDS))
    for call in found.get("tool_calls", ()):
        call.pop("index", None)
    if message.content is not None or not message.tool_calls:
        found["content"] = message.text()
    return found


def _given(fields: SamplingFields) -> dict[str, Any]:
    return fields.model_dump(exclude_none=True, by_alias=True, exclude=set(OWN_FIELDS | NOT_OFFERED))


def _params(fields: SamplingFields, max_tokens: int) -> SamplingParams:
    """Return the sampling fields as checked parameters, for the limits and the log; the upstream gets the fields."""
    chosen = {name: value for name in SAME_NAME if (value := getattr(fields, name)) is not None}
    return SamplingParams(**chosen, max_tokens=max_tokens, seed=fields.seed)
