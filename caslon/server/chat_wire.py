"""The shape of a chat request: messages, tools, thinking, and what a conversation may be tokenized with.

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

import json
from typing import Any, Literal

from pydantic import Field, model_validator

from caslon.server.errors import invalid
from caslon.server.wire import MAX_LOGPROBS, NotOffered, SamplingFields, Wire

MAX_MESSAGES = 2048
MAX_TOOLS = 128
# The newer name of a role that chat templates know under the older one.
ROLES = {"developer": "system"}

Effort = Literal["none", "minimal", "low", "medium", "high"]
ThinkingMode = Literal["off", "hidden", "shown"]


class FunctionCall(Wire):
    """Which function was called, with its arguments as JSON text."""

    name: str
    arguments: str


class ToolCall(Wire):
    """A call that an earlier answer made."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall
    index: int | None = None  # pieces of a stream have it, and some clients send it back


class ChatMessage(Wire):
    """One turn. Fields that clients send back from an earlier answer may be there when they are empty."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = Field(None, description="accepted; templates have no place for it")
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = Field(None, description="which call a tool message answers")
    reasoning_content: str | None = Field(None, description="what the assistant thought")
    refusal: NotOffered = None
    audio: NotOffered = None
    annotations: NotOffered = None
    function_call: NotOffered = None

    @model_validator(mode="after")
    def _complete(self) -> "ChatMessage":
        if self.content is None and not self.tool_calls:
            raise ValueError("a message needs a content")
        if self.role == "tool" and not self.tool_call_id:
            raise ValueError("a tool message needs the tool_call_id of the call it answers")
        if self.role != "assistant" and self.tool_calls:
            raise ValueError("only the assistant makes tool_calls")
        return self

    def text(self) -> str:
        """Return the content as text; `Refused` for a part that is not text."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        for part in self.content:
            if part.get("type") != "text" or not isinstance(part.get("text"), str):
                message = f"content parts of type {part.get('type')!r} are not offered; only text is"
                raise invalid(message, "messages", "unsupported_content")
        return "".join(part["text"] for part in self.content)

    def plain(self, place: int) -> dict[str, Any]:
        """Return the message as chat templates take it; `Refused` for calls whose arguments are no JSON object."""
        plain: dict[str, Any] = {"role": ROLES.get(self.role, self.role), "content": self.text()}
        if self.tool_calls:
            plain["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.function.name, "arguments": _arguments(call, place)},
                }
                for call in self.tool_calls
            ]
        if self.tool_call_id:
            plain["tool_call_id"] = self.tool_call_id
        if self.reasoning_content:
            plain["reasoning_content"] = self.reasoning_content
        return plain


def _arguments(call: ToolCall, place: int) -> dict[str, Any]:
    try:
        arguments = json.loads(call.function.arguments or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        message = f"the arguments of call {call.id!r} are not the JSON text of an object"
        raise invalid(message, f"messages.{place}.tool_calls")
    return arguments


class Function(Wire):
    """A function the model may call."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="JSON schema of its arguments")
    strict: bool | None = Field(None, description="hold the arguments to the schema whenever it is called")


class Tool(Wire):
    """A tool the model may call."""

    type: Literal["function"]
    function: Function


class NamedFunction(Wire):
    """A function's name."""

    name: str


class NamedTool(Wire):
    """The one tool that is to be called."""

    type: Literal["function"]
    function: NamedFunction


class ChatRequest(SamplingFields):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES, description="the conversation so far")
    max_completion_tokens: int | None = Field(None, description="the newer name of max_tokens")
    logprobs: bool | None = Field(None, description="return log-probabilities of the answer's tokens")
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS, description="and of this many alternatives")
    tools: list[Tool] | None = Field(None, max_length=MAX_TOOLS, description="functions the model may call")
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = Field(
        None, description="whether it may, must, or must not call one, or which"
    )
    parallel_tool_calls: bool | None = Field(None, description="whether it may make several calls; default true")
    reasoning_effort: Effort | None = Field(None, description="tokens to think: 0, 64, 256, 1,024 or 4,096")
    thinking: ThinkingMode | None = Field(None, description="off, hidden (done and not shown) or shown")
    thinking_budget: int | None = Field(None, description="most tokens to think; the answer has max_tokens to itself")
    chat_template_kwargs: dict[str, Any] | None = Field(None, description="further variables of the chat template")
    functions: NotOffered = None
    function_call: NotOffered = None
    audio: NotOffered = None
    modalities: list[Literal["text"]] | None = None
    prediction: NotOffered = None
    service_tier: NotOffered = None
    store: NotOffered = None
    verbosity: NotOffered = None
    web_search_options: NotOffered = None


class TokenizeRequest(Wire):
    """POST /tokenize: text or a conversation."""

    model: str | None = None
    prompt: str | None = Field(None, description="text to split")
    messages: list[ChatMessage] | None = Field(None, min_length=1, max_length=MAX_MESSAGES)
    tools: list[Tool] | None = Field(None, max_length=MAX_TOOLS)
    add_generation_prompt: bool = Field(True, description="end a conversation with the mark of the assistant's turn")
    return_token_strs: bool = Field(False, description="return each token's text too")


class TemplateRequest(Wire):
    """POST /apply-template: the prompt a chat request with these messages would use."""

    model: str | None = None
    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    tools: list[Tool] | None = Field(None, max_length=MAX_TOOLS)
    add_generation_prompt: bool = Field(True, description="end it with the mark of the assistant's turn")
    chat_template_kwargs: dict[str, Any] | None = Field(None, description="further variables of the chat template")
