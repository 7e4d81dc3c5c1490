"""A chat request to answers on their way, and their pieces to text, thinking and tool calls, whatever shape a client wants.

The three chat APIs (OpenAI's two and Anthropic's) share this; each only turns its own words into a `ChatRequest` and the parts
back.
"""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from caslon.engine.form import AnswerForm
from caslon.engine.request import ANSWER, Completion, Constraint, Piece, SamplingParams, Section
from caslon.engine.sections import THINKING, TOOL_CALL, Markers, Sections, is_thinking, thinking_markers
from caslon.engine.thinking import EFFORT_TOKENS, ThinkingLimit
from caslon.server.calls_read import CallArguments, CallBegins, CallEvent, CallReader, TextCalls
from caslon.server.chat_wire import ChatMessage, ChatRequest, Tool
from caslon.server.errors import invalid
from caslon.server.forms import form_of
from caslon.server.sampling import sampling_params
from caslon.server.service import Answer, Service
from caslon.server.stream import Pieces
from caslon.server.tools import ToolUse
from caslon.server.upstream.pieces import Delta, RemoteCompletion, RemotePiece

TEMPLATE_SWITCH = "enable_thinking"  # the name Qwen gave it, and others took over


@dataclass(frozen=True)
class Text:
    """Part of the answer itself."""

    text: str


@dataclass(frozen=True)
class Thinking:
    """Part of what was thought."""

    text: str


@dataclass(frozen=True)
class ToolCallBegins:
    """The `index`-th call, whose arguments follow."""

    index: int
    id: str
    name: str


@dataclass(frozen=True)
class ToolCallArguments:
    """A further part of the JSON text of a call's arguments."""

    index: int
    text: str


Part = Text | Thinking | ToolCallBegins | ToolCallArguments


@dataclass(frozen=True)
class Thoughts:
    """How a request wants the model to think."""

    markers: Markers | None
    is_off: bool = False
    is_hidden: bool = False
    budget: int | None = None
    begun: bool = False  # by the template

    @property
    def limit(self) -> int | None:
        """The most tokens to think; None: no limit but that of the answer."""
        return 0 if self.is_off else self.budget


@dataclass(frozen=True)
class Conversation:
    """A chat request that was taken on: its answers are on their way."""

    service: Service
    fields: ChatRequest
    prompt: Sequence[int]
    answers: list[Answer]
    tools: ToolUse | None
    thoughts: Thoughts

    def reader(self) -> "PartReader | RemoteReader":
        """Return what tells the parts of one of the answers apart."""
        if self.service.remote is not None:
            return RemoteReader()
        return PartReader(self.tools, hides_thinking=self.thoughts.is_hidden)


@dataclass(frozen=True)
class Prepared:
    """What a chat request comes to, before anything is written: one prompt, and how each of its answers is to be written."""

    prompt: Sequence[int]
    params: list[SamplingParams]
    options: list[dict[str, Any]]
    tools: ToolUse | None
    thoughts: Thoughts


def begin(service: Service, fields: ChatRequest, pieces: Pieces) -> Conversation:
    """Turn a conversation into tokens and start its answers. `Refused` for what cannot be had, before any token."""
    ready = prepared(service, fields)
    prompts = [ready.prompt] * len(ready.params)
    answers = service.submit(prompts, ready.params, pieces.put, ready.options)
    return Conversation(service, fields, ready.prompt, answers, ready.tools, ready.thoughts)


def prepared(service: Service, fields: ChatRequest) -> Prepared:
    """Return what a request comes to. `Refused` for what cannot be had."""
    service.check_model(fields.model)
    if service.remote is not None:
        asked = service.remote.chat(fields)
        choices: list[dict[str, Any]] = [{"choice": choice} for choice in range(asked.choices)]
        return Prepared(asked, [asked.params] * asked.choices, choices, None, Thoughts(None))
    tools = ToolUse.of(fields, service.tokenizer)
    prompt, thoughts = _prompt(service, fields, tools)
    form = form_of(fields)
    if tools is not None:
        form = tools.grammar(form) or form
    params = sampling_params(
        service,
        fields,
        max_tokens=_max_tokens(service, fields, len(prompt), thoughts),
        logprobs=_alternatives(fields),
        thinking_budget=thoughts.limit,
    )
    options = [
        {"constraint": _constraint(service, form, thoughts, chosen), "sections": _sections(chosen, tools, thoughts)}
        for chosen in params
    ]
    return Prepared(prompt, params, options, tools, thoughts)


def prompt_ids(service: Service, fields: ChatRequest) -> list[int]:
    """Return the prompt a chat request would use."""
    service.check_model(fields.model)
    return _prompt(service, fields, ToolUse.of(fields, service.tokenizer))[0]


def plain_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Return messages as the chat template takes them."""
    return [message.plain(place) for place, message in enumerate(messages)]


def plain_tools(tools: Sequence[Tool] | None) -> list[dict[str, Any]] | None:
    """Return tools as the chat template takes them."""
    return [tool.model_dump(exclude_none=True) for tool in tools] if tools else None


def _prompt(service: Service, fields: ChatRequest, tools: ToolUse | None) -> tuple[list[int], Thoughts]:
    thoughts = _thoughts(service, fields)
    variables: dict[str, Any] = dict(fields.chat_template_kwargs or {})
    has_switch = TEMPLATE_SWITCH in (service.tokenizer.chat_template or "")
    if has_switch and (thoughts.is_off or fields.thinking is not None or fields.reasoning_effort is not None):
        variables.setdefault(TEMPLATE_SWITCH, not thoughts.is_off)
    ids = service.chat_ids(
        plain_messages(fields.messages),
        tools=plain_tools(fields.tools) if tools is not None else None,
        variables=variables,
    )
    begun = is_thinking(ids, thoughts.markers)
    if begun and thoughts.is_off:
        assert thoughts.markers is not None
        assert thoughts.markers.closing is not None
        ids, begun = [*ids, thoughts.markers.closing], False
    budget = thoughts.budget
    if budget is not None and fields.thinking_budget is None:  # an effort is a wish: it leaves the answer half the room
        budget = max(0, min(budget, (service.context - len(ids)) // 2 - 2))
    return ids, Thoughts(thoughts.markers, thoughts.is_off, thoughts.is_hidden, budget, begun)


def _thoughts(service: Service, fields: ChatRequest) -> Thoughts:
    markers = thinking_markers(service.tokenizer)
    is_off = fields.thinking == "off" or (fields.thinking is None and fields.reasoning_effort == "none")
    asked = {
        "thinking": fields.thinking,
        "thinking_budget": fields.thinking_budget,
        "reasoning_effort": fields.reasoning_effort,
    }
    if markers is None:
        wish = next((name for name, value in asked.items() if value not in (None, "off", "none", 0)), None)
        if wish is not None:
            raise invalid(f"'{wish}': the model has no marks of thinking", wish, "unsupported_parameter")
        return Thoughts(None)
    budget = fields.thinking_budget
    if budget is None and fields.reasoning_effort is not None:
        budget = EFFORT_TOKENS[fields.reasoning_effort]
    return Thoughts(markers, is_off, fields.thinking == "hidden", budget)


def _max_tokens(service: Service, fields: ChatRequest, prompt_tokens: int, thoughts: Thoughts) -> int:
    for wanted in (fields.max_completion_tokens, fields.max_tokens):
        if wanted is not None:
            return wanted
    # The rest of the context; at least one token, so that the engine can say how far a prompt is over it.
    thinking = 0 if thoughts.limit is None else thoughts.limit + 2
    return max(1, service.context - prompt_tokens - thinking)


def _alternatives(fields: ChatRequest) -> int | None:
    return (fields.top_logprobs or 0) if fields.logprobs else None


def _constraint(
    service: Service, form: AnswerForm | None, thoughts: Thoughts, params: SamplingParams
) -> Constraint | None:
    answer = None if form is None else service.engine.constraint(form)
    if thoughts.markers is None or (thoughts.limit is None and not (form is not None and thoughts.begun)):
        return answer
    budget = params.max_tokens if thoughts.limit is None else thoughts.limit
    ends = service.engine.end_ids
    return ThinkingLimit(thoughts.markers, budget, end_ids=ends, begins_thinking=thoughts.begun, answer=answer)


def _sections(params: SamplingParams, tools: ToolUse | None, thoughts: Thoughts) -> Sections:
    if not params.skip_special_tokens:  # the client reads the markers itself
        return Sections()
    return Sections(thoughts.markers, None if tools is None else tools.markers, thoughts.begun)


@dataclass
class PartReader:
    """Tells one answer's text, thinking and calls apart, from its pieces or from the whole."""

    tools: ToolUse | None
    hides_thinking: bool
    calls: int = 0
    _section: Section = ANSWER
    _reader: CallReader | None = None
    _text: TextCalls | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.tools is not None and self.tools.markers is None:
            self._text = TextCalls(self.tools.format.opening, self.tools.format.closing)

    def of_piece(self, piece: Piece) -> Iterator[Part]:
        """Yield the parts of a piece; the last piece settles what was still open."""
        yield from self._in_section(piece.section, piece.text)
        if piece.finish_reason is not None:
            yield from self._end()

    def of_completion(self, completion: Completion) -> Iterator[Part]:
        """Yield the parts of a whole answer."""
        yield from self._in_section(Section(THINKING, 0), completion.thinking)
        yield from self._in_section(ANSWER, completion.text)
        for number, text in enumerate(completion.tool_calls):
            yield from self._in_section(Section(TOOL_CALL, number), text)
        yield from self._end()

    def finish_reason(self, reason: str) -> str:
        """Return why the answer ended, in OpenAI's words."""
        return "tool_calls" if self.calls and reason == "stop" else reason

    def _in_section(self, section: Section, text: str) -> Iterator[Part]:
        if section != self._section:
            yield from self._end_call()
            self._section = section
        if section.kind == TOOL_CALL:
            yield from self._in_call(text)
        elif section.kind == THINKING:
            if text and not self.hides_thinking:
                yield Thinking(text)
        elif self._text is not None:
            yield from self._in_text(self._text.push(text))
        elif text:
            yield Text(text)

    def _in_text(self, parts: Iterable[tuple[bool, str]]) -> Iterator[Part]:
        for in_call, text in parts:
            if in_call:
                yield from self._in_call(text)
                continue
            yield from self._end_call()
            if text:
                yield Text(text)

    def _in_call(self, text: str) -> Iterator[Part]:
        assert self.tools is not None
        if self._reader is None:
            self._reader = CallReader(self.tools.format.arguments)
        yield from self._parts(self._reader.push(text))

    def _end_call(self) -> Iterator[Part]:
        if self._reader is not None:
            yield from self._parts(self._reader.finish())
            self._reader = None

    def _end(self) -> Iterator[Part]:
        if self._text is not None:
            yield from self._in_text(self._text.finish())
        yield from self._end_call()

    def _parts(self, events: Iterable[CallEvent]) -> Iterator[Part]:
        for event in events:
            if isinstance(event, CallBegins):
                self.calls += 1
                yield ToolCallBegins(self.calls - 1, f"call_{uuid.uuid4().hex[:24]}", event.name)
            elif isinstance(event, CallArguments):
                yield ToolCallArguments(self.calls - 1, event.text)
            else:
                yield Text(event.text)


@dataclass
class RemoteReader:
    """Tells the parts of an answer of another server apart, which has told them apart itself."""

    calls: int = 0

    def of_piece(self, piece: Piece) -> Iterator[Part]:
        """Yield the parts of a piece."""
        assert isinstance(piece, RemotePiece)
        yield from self._parts(piece.delta)

    def of_completion(self, completion: Completion) -> Iterator[Part]:
        """Yield the parts of a whole answer."""
        assert isinstance(completion, RemoteCompletion)
        for delta in completion.deltas:
            yield from self._parts(delta)

    def finish_reason(self, reason: str) -> str:
        """Return why the answer ended, in OpenAI's words."""
        return "tool_calls" if self.calls and reason == "stop" else reason

    def _parts(self, delta: Delta) -> Iterator[Part]:
        if delta.thinking:
            yield Thinking(delta.thinking)
        if delta.text:
            yield Text(delta.text)
        for call in delta.calls:
            if call.index >= self.calls:
                yield ToolCallBegins(self.calls, call.id or f"call_{uuid.uuid4().hex[:24]}", call.name)
                self.calls += 1
            if call.arguments:
                yield ToolCallArguments(min(call.index, self.calls - 1), call.arguments)


@dataclass
class Whole:
    """One answer, gathered from its parts."""

    text: str = ""
    thinking: str = ""
    calls: list[dict[str, str]] = field(default_factory=list)

    @staticmethod
    def of(parts: Iterable[Part]) -> "Whole":
        """Return the parts put together."""
        whole = Whole()
        for part in parts:
            whole._add(part)
        return whole

    def _add(self, part: Part) -> None:
        if isinstance(part, Text):
            self.text += part.text
        elif isinstance(part, Thinking):
            self.thinking += part.text
        elif isinstance(part, ToolCallBegins):
            self.calls.append({"id": part.id, "name": part.name, "arguments": ""})
        else:
            self.calls[part.index]["arguments"] += part.text
