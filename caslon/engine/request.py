"""What goes into the engine and what comes out: sampling parameters, a request's life, streamed pieces, completions.

Free of torch, so that a server or a command line can check a request before any model is loaded.
Field names are OpenAI's and Hugging Face's where they have one.
"""

import math
import random
import time
from collections import Counter
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from caslon.engine.blocks import ROOT, Link
from caslon.errors import CaslonError, UserError

if TYPE_CHECKING:
    from torch import Tensor

    from caslon.engine.adapters import Adapter
    from caslon.engine.pooling import Pooled

Bounds = tuple[float, float]

RANGES: Mapping[str, tuple[Bounds, str]] = {
    "max_tokens": ((1, math.inf), "at least 1"),
    "min_tokens": ((0, math.inf), "at least 0"),
    "temperature": ((0, 2), "0 (greedy) to 2"),
    "top_k": ((-1, math.inf), "at least 0; 0 or -1 means off"),
    "top_p": ((math.ulp(0.0), 1), "above 0, at most 1"),
    "min_p": ((0, 1), "0 to 1"),
    "repetition_penalty": ((math.ulp(0.0), 10), "above 0, at most 10"),
    "presence_penalty": ((-2, 2), "-2 to 2"),
    "frequency_penalty": ((-2, 2), "-2 to 2"),
    "no_repeat_ngram_size": ((0, 16), "0 to 16; 0 means off"),
    "n": ((1, 16), "1 to 16"),
    "best_of": ((1, 20), "n to 20"),
    "num_beams": ((1, 16), "1 to 16"),
    "length_penalty": ((-10, 10), "-10 to 10"),
    "penalty_alpha": ((0, 1), "0 (off) to 1"),
    "seed": ((-(2**63), 2**64 - 1), "a 64-bit integer"),
    "logprobs": ((0, 20), "0 to 20"),
    "prompt_logprobs": ((0, 20), "0 to 20"),
    "thinking_budget": ((0, math.inf), "at least 0"),
}
WHOLE_NUMBERS = frozenset(RANGES) - {
    "temperature",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "length_penalty",
    "penalty_alpha",
}
MAY_BE_UNSET = frozenset({"seed", "logprobs", "prompt_logprobs", "best_of", "thinking_budget"})


class RequestError(UserError):
    """A request that cannot be served as it is; `code` is the word an API answer carries."""

    code = "invalid_request"


class InvalidParameter(RequestError):
    """A sampling parameter outside its range; `field` names it."""

    code = "invalid_parameter"

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field} = {value!r} is not valid", where=field, fix=f"{field} must be {allowed}")
        self.field = field

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuilt, (type(self), self.what, self.where, self.fix, self.__dict__)


class ContextLengthExceeded(RequestError):
    """Prompt and answer together are longer than the model's context. Nothing is ever cut to fit."""

    code = "context_length_exceeded"

    def __init__(self, prompt_tokens: int, max_tokens: int, limit: int) -> None:
        super().__init__(
            f"the prompt has {prompt_tokens} tokens and max_tokens is {max_tokens}: "
            f"together {prompt_tokens + max_tokens}, but the model's context is {limit} tokens",
            fix="shorten the prompt or lower max_tokens",
        )
        self.prompt_tokens = prompt_tokens
        self.max_tokens = max_tokens
        self.limit = limit

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.prompt_tokens, self.max_tokens, self.limit)


class CacheTooSmall(RequestError):
    """The request needs more key-value blocks than the whole pool has, so it could never run."""

    code = "kv_cache_too_small"

    def __init__(self, prompt_tokens: int, max_tokens: int, pool_tokens: int) -> None:
        super().__init__(
            f"the prompt has {prompt_tokens} tokens and max_tokens is {max_tokens}, "
            f"but the key-value cache holds {pool_tokens} tokens in all",
            fix="raise kv_memory_gib, shorten the prompt or lower max_tokens",
        )
        self.prompt_tokens = prompt_tokens
        self.max_tokens = max_tokens
        self.pool_tokens = pool_tokens

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.prompt_tokens, self.max_tokens, self.pool_tokens)


class EngineClosed(CaslonError):
    """The engine was closed and takes no more requests."""


def _rebuilt(
    kind: type[InvalidParameter], what: str, where: str | None, fix: str | None, state: dict[str, Any]
) -> RequestError:
    error = kind.__new__(kind)
    UserError.__init__(error, what, where=where, fix=fix)
    error.__dict__.update(state)
    return error


@dataclass(frozen=True)
class SamplingParams:
    """How to choose tokens and when to stop. Every field is checked; a bad value raises `InvalidParameter`.

    `max_tokens` counts new tokens only. `temperature` 0 is greedy. `logprobs` asks for that many alternatives
    beside the chosen token, from the model's raw output before any of the changes below. `n` answers are written, of
    `best_of` tries where that is larger. `num_beams` above 1 searches for the likeliest answer, `penalty_alpha` above
    0 for one that does not repeat itself (contrastive search, arXiv:2202.06417): both draw nothing, so they want
    temperature 0. `add_special_tokens` overrides the tokenizer's own rule for text prompts. `truncate` is refused:
    nothing is ever cut.
    With a `thinking_budget` thinking and its two markers do not count as part of the answer, which has `max_tokens` to itself.
    """

    max_tokens: int = 16
    min_tokens: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop: bool = False
    seed: int | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    n: int = 1
    best_of: int | None = None
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool = False
    penalty_alpha: float = 0.0
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    thinking_budget: int | None = None
    add_special_tokens: bool | None = None
    truncate: bool = False

    def __post_init__(self) -> None:
        for name, (bounds, allowed) in RANGES.items():
            self._check_number(name, bounds, allowed)
        if self.min_tokens > self.max_tokens:
            raise InvalidParameter("min_tokens", self.min_tokens, f"at most max_tokens ({self.max_tokens})")
        if self.best_of is not None and self.best_of < self.n:
            raise InvalidParameter("best_of", self.best_of, f"at least n ({self.n})")
        if self.truncate:
            raise InvalidParameter("truncate", self.truncate, "left out: nothing is cut silently; shorten the prompt")
        self._check_stops()
        self._check_logit_bias()
        self._check_search()

    @property
    def width(self) -> int:
        """Return how many sequences write the answer together: beams, or a contrastive search's candidates."""
        return self.top_k if self.penalty_alpha else self.num_beams

    def _check_search(self) -> None:
        if not isinstance(self.early_stopping, bool):
            raise InvalidParameter("early_stopping", self.early_stopping, "true or false")
        beams, contrastive = self.num_beams > 1, self.penalty_alpha > 0
        if not (beams or contrastive):
            return
        name = "num_beams" if beams else "penalty_alpha"
        if beams and contrastive:
            raise InvalidParameter("penalty_alpha", self.penalty_alpha, "0 with num_beams")
        if self.temperature != 0 or self.top_p != 1 or self.min_p != 0:
            raise InvalidParameter(name, getattr(self, name), "left out when sampling; set temperature to 0")
        if self.best_of not in (None, self.n) or self.n > self.num_beams:
            raise InvalidParameter("n", self.n, f"at most num_beams ({self.num_beams}) here, without best_of")
        if beams and self.top_k > 0:
            raise InvalidParameter("top_k", self.top_k, "0 with num_beams")
        if contrastive and not 2 <= self.top_k <= 16:
            raise InvalidParameter("top_k", self.top_k, "2 to 16 with penalty_alpha, for example 4")

    def _check_number(self, name: str, bounds: Bounds, allowed: str) -> None:
        value = getattr(self, name)
        if value is None and name in MAY_BE_UNSET:
            return
        kinds = (int,) if name in WHOLE_NUMBERS else (int, float)
        right_kind = isinstance(value, kinds) and not isinstance(value, bool)
        # written so that NaN fails
        if not (right_kind and bounds[0] <= value <= bounds[1]):
            raise InvalidParameter(name, value, allowed)

    def _check_stops(self) -> None:
        if isinstance(self.stop, str):
            raise InvalidParameter("stop", self.stop, "a tuple of strings")
        object.__setattr__(self, "stop", tuple(self.stop))
        object.__setattr__(self, "stop_token_ids", tuple(self.stop_token_ids))
        if len(self.stop) > 16 or not all(isinstance(text, str) and 1 <= len(text) <= 256 for text in self.stop):
            raise InvalidParameter("stop", self.stop, "at most 16 strings of 1 to 256 characters")
        if len(self.stop_token_ids) > 64 or not all(_is_id(token) for token in self.stop_token_ids):
            raise InvalidParameter("stop_token_ids", self.stop_token_ids, "at most 64 token ids")

    def _check_logit_bias(self) -> None:
        if len(self.logit_bias) > 1024:
            raise InvalidParameter("logit_bias", f"{len(self.logit_bias)} entries", "at most 1,024 entries")
        for token, bias in self.logit_bias.items():
            if not (_is_id(token) and isinstance(bias, int | float) and -100 <= bias <= 100):
                raise InvalidParameter("logit_bias", {token: bias}, "token ids with numbers from -100 to 100")

    @property
    def total_tokens(self) -> int:
        """The most tokens that can come: the answer's, and those of thinking where it has a budget of its own."""
        return self.max_tokens + (0 if self.thinking_budget is None else self.thinking_budget + 2)

    def check_vocabulary(self, vocab_size: int) -> None:
        """Raise `InvalidParameter` where a field names a token the model does not have."""
        for name in ("logit_bias", "stop_token_ids"):
            for token in getattr(self, name):
                if token >= vocab_size:
                    raise InvalidParameter(name, token, f"token ids below the vocabulary size {vocab_size}")


def _is_id(token: object) -> bool:
    return isinstance(token, int) and not isinstance(token, bool) and token >= 0


@dataclass(frozen=True)
class TokenLogprob:
    """One token's natural-log probability, and the likeliest alternatives as `(id, logprob)`, best first."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Section(NamedTuple):
    """A part of an answer: "answer", "thinking" or "tool_call", and how many of its kind came before it."""

    kind: str
    number: int


ANSWER = Section("answer", 0)


@dataclass(frozen=True)
class Piece:
    """What is streamed: whole characters of text and the tokens that came since the last piece.

    `finish_reason` is set on the last piece only. `section` says what the text is part of.
    """

    text: str
    ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: str | None = None
    section: Section = ANSWER


@dataclass(frozen=True)
class Times:
    """Seconds from submission to: the first step, the first token, the end. None where it never came."""

    queued: float | None
    first_token: float | None
    end: float


@dataclass(frozen=True)
class Completion:
    """A finished answer.

    `ids` holds every generated token, the one that stopped it included; `text` leaves the stop token or stop string
    out unless `include_stop` was asked for. `finish_reason` is "stop", "length", "abort", "timeout" or "error";
    `stop_reason` is the token id or string that stopped it; `error` says what failed. `prompt_logprobs` begins with
    None, because nothing comes before the first token. `others` are the further answers of a beam search, best first.
    `guessed` has the places in `ids` of tokens that speculation had guessed.
    Where sections were asked for, `text` is the answer alone, `thinking` and `tool_calls` have the rest, and
    `thinking_unclosed` says that the answer never began.
    """

    ids: tuple[int, ...]
    text: str
    finish_reason: str
    stop_reason: str | int | None
    logprobs: tuple[TokenLogprob, ...]
    prompt_tokens: int
    cached_tokens: int
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None
    seed: int
    times: Times
    error: str | None = None
    thinking: str = ""
    thinking_tokens: int = 0
    thinking_unclosed: bool = False
    tool_calls: tuple[str, ...] = ()
    others: tuple["Completion", ...] = ()
    guessed: tuple[int, ...] = ()


class Constraint(Protocol):
    """What an answer may say next, as a grammar does. One object serves one answer."""

    @property
    def may_end(self) -> bool:
        """Whether the answer may end here. Where it may, `mask` leaves the model's end tokens open."""
        ...

    def mask(self, logits: "Tensor") -> None:
        """Set the logits [V] of all tokens that may not come next to minus infinity, in place."""
        ...

    def advance(self, token: int) -> None:
        """Take the token that came. A token that ends the answer is not told."""
        ...

    def rollback(self, tokens: int) -> None:
        """Forget the last so many tokens that came."""
        ...


@dataclass(eq=False)
class Sequence:
    """One request while it lives in the engine: its tokens, its blocks, and how far both have come.

    `ids` is prompt and output in one list; the first `computed` of them have keys and values in `blocks`, the full
    ones known to the pool by `links`. `output_counts` and `draws` are what the sampler needs to know of the past.
    `wants_tokens` is false for scoring and for vectors; the latter are `pooled` from the hidden states.
    Only sequences with the same `adapter` and `cache_salt` reuse each other's blocks. Lower `priority` runs first;
    `rank`, set when it starts, orders it among the running. It takes `width` places of those that may run at once.
    `guesses` are tokens it may say next, to be checked in one step; `guessed` has the places of those that came true.
    """

    prompt: tuple[int, ...]
    params: SamplingParams
    stop_ids: frozenset[int]
    seed: int
    wants_tokens: bool = True
    constraint: Constraint | None = None
    pooled: "Pooled | None" = None
    adapter: "Adapter | None" = None
    cache_salt: str = ""
    priority: int = 0
    deadline: float = math.inf
    request_id: str = ""
    arrival: int = 0
    waits_since: int = 0
    rank: tuple[int, int] = (0, 0)
    width: int = 1
    guesses: tuple[int, ...] = ()
    guessed: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    links: list[int] = field(default_factory=list)
    cached_tokens: int = 0
    submitted: float = field(default_factory=time.perf_counter)
    started: float | None = None
    first_token: float | None = None
    output_counts: Counter[int] = field(default_factory=Counter)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ids = list(self.prompt)
        self.width = self.params.width
        self.draws = random.Random(self.seed % 2**64)  # noqa: S311 - repeatable; Random would drop the sign

    @property
    def output_tokens(self) -> int:
        """Return how many tokens were generated so far."""
        return len(self.ids) - len(self.prompt)

    @property
    def remaining(self) -> int:
        """Return how many known tokens still have to pass through the model."""
        return len(self.ids) - self.computed

    @property
    def wants_hidden(self) -> bool:
        """Return whether each step shall give the hidden states of its tokens."""
        return self.pooled is not None or (self.wants_tokens and self.params.penalty_alpha > 0)

    @property
    def shares_prefix(self) -> bool:
        """Return whether cached blocks may stand for its prompt: not when each of its tokens has to be seen."""
        return self.params.prompt_logprobs is None and not self.wants_hidden

    @property
    def root(self) -> Link:
        """Return the link before its first block: what other sequences must share to share blocks."""
        if self.adapter is None and not self.cache_salt:
            return ROOT
        return (self.adapter.digest if self.adapter else "", self.cache_salt)

    def fork(self) -> "Sequence":
        """Return another sequence with the same past, which holds no blocks yet."""
        child = copy(self)
        child.ids, child.logprobs = list(self.ids), list(self.logprobs)
        child.output_counts = Counter(self.output_counts)
        child.blocks, child.links, child.computed = [], [], 0
        return child

    def append(self, token: int) -> None:
        """Add a generated token."""
        self.ids.append(token)
        self.output_counts[token] += 1

    def times(self) -> Times:
        """Return the seconds of this sequence's life, ending now."""
        now = time.perf_counter()
        queued = None if self.started is None else self.started - self.submitted
        first = None if self.first_token is None else self.first_token - self.submitted
        return Times(queued, first, now - self.submitted)
