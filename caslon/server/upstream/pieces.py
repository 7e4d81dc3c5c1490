"""What an upstream says, in one form for all kinds: deltas while it writes, and pieces and completions for who asked."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, overload

from caslon.engine.request import Completion, Piece, SamplingParams
from caslon.server.errors import Refused

if TYPE_CHECKING:
    from caslon.server.upstream.exchange import Exchange

Api = Literal["chat", "completion"]


@dataclass(frozen=True)
class CallDelta:
    """A part of the `index`-th tool call of an answer; the first part has an id and a name."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True)
class Usage:
    """Tokens as the upstream counted them; None where it did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int = 0
    thinking_tokens: int = 0


@dataclass(frozen=True)
class Delta:
    """What one event of an upstream's stream adds to one of the answers. `logprobs` are as the upstream shapes them."""

    choice: int = 0
    text: str = ""
    thinking: str = ""
    calls: tuple[CallDelta, ...] = ()
    logprobs: Any = None
    finish_reason: str | None = None
    usage: Usage | None = None

    @property
    def has_token(self) -> bool:
        """Whether it holds a part of the answer."""
        return bool(self.text or self.thinking or self.calls)

    @property
    def is_answer(self) -> bool:
        """Whether the answer has begun with it, or has ended without a word."""
        return self.has_token or self.finish_reason is not None


@dataclass(frozen=True)
class RemotePiece(Piece):
    """A piece of an upstream's answer. The last one knows the count of the prompt, or why there is no whole answer."""

    delta: Delta = field(default_factory=Delta)
    prompt_tokens: int | None = None
    refused: Refused | None = None


@dataclass(frozen=True)
class RemoteCompletion(Completion):
    """An upstream's whole answer. Its `ids` only count; with `estimated` not even that is exact."""

    deltas: tuple[Delta, ...] = ()
    estimated: bool = False


@dataclass(frozen=True)
class PromptSize:
    """How many tokens a prompt has: as counted, or as guessed, with how many there can be at most."""

    likely_tokens: int
    most_tokens: int
    is_counted: bool


def wire_logprobs(written: "Piece | Completion") -> dict[str, Any] | None:
    """Return the log-probabilities of an upstream's answer or of a piece of it, in OpenAI's shape, as the upstream sent them."""
    deltas = written.deltas if isinstance(written, RemoteCompletion) else (getattr(written, "delta", Delta()),)
    whole: dict[str, Any] = {}
    for delta in deltas:
        for name, value in (delta.logprobs if isinstance(delta.logprobs, dict) else {}).items():
            whole[name] = [*whole.get(name, ()), *value] if isinstance(value, list) else whole.get(name, value)
    return whole or None


class Asked(Sequence[int]):
    """A request to an upstream, standing where a local prompt's ids would: as long as its prompt can be at most.

    `fields` are OpenAI's, without what the service itself takes care of. `likely_tokens` is how long the prompt is thought
    to be, which is a count when `is_counted`. `begun` resolves, for any thread, to the name of who answers, or to why nobody
    does.
    """

    def __init__(
        self, api: Api, fields: dict[str, Any], params: SamplingParams, choices: int, size: "PromptSize"
    ) -> None:
        self.api = api
        self.fields = fields
        self.params = params
        self.choices = choices
        self.likely_tokens = size.likely_tokens
        self.is_counted = size.is_counted
        self.begun: Future[str] = Future()
        self.exchange: Exchange
        self._places = range(size.most_tokens)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> int: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[int]: ...

    def __getitem__(self, place: int | slice) -> int | Sequence[int]:
        return self._places[place]
