"""Request bodies as strict shapes with OpenAI's spellings; what does not fit becomes a 400 that names the field.

Fields beyond OpenAI's (top_k, min_p, repetition_penalty, ...) have the names other open servers use. Ranges are checked
once, by the engine's `SamplingParams`; here only shapes are.
Source: https://platform.openai.com/docs/api-reference
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from caslon.server.errors import Refused, invalid
from caslon.settings import nearest

MAX_PROMPTS = 64
MAX_MESSAGES = 2048
MAX_ANSWERS = 16  # n
MAX_LOGPROBS = 20


class Wire(BaseModel):
    """A JSON body: nothing unknown, nothing converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _asks_for_nothing(value: Any) -> Any:
    if value in (None, [], {}, "none", "auto") or value is False:
        return value
    raise PydanticCustomError("not_offered", "this server does not offer it")


# A field of OpenAI's that would change the answer in a way that is not offered: taken only while it asks for nothing.
NotOffered = Annotated[Any, BeforeValidator(_asks_for_nothing), Field(description="not offered")]


class StreamOptions(Wire):
    """How a stream ends."""

    include_usage: bool = False


class ResponseFormat(Wire):
    """The form of an answer; only free text is offered."""

    type: Literal["text"]


class SamplingFields(Wire):
    """What both kinds of request may set. None means: not set, the model folder's default holds."""

    model: str | None = Field(None, description="name of the model; the one served when left out")
    max_tokens: int | None = Field(None, description="most tokens to write")
    min_tokens: int | None = Field(None, description="fewest tokens to write")
    temperature: float | None = Field(None, description="0 always takes the likeliest token; 0-2")
    top_p: float | None = Field(None, description="keep the likeliest tokens whose mass reaches this share")
    top_k: int | None = Field(None, description="keep this many likeliest tokens; 0 keeps all")
    min_p: float | None = Field(None, description="keep tokens at least this likely, as a share of the likeliest")
    repetition_penalty: float | None = Field(None, description="over 1 makes tokens seen before less likely")
    presence_penalty: float | None = Field(None, description="subtracted once for a token already written; -2 to 2")
    frequency_penalty: float | None = Field(None, description="subtracted for each time a token was written; -2 to 2")
    logit_bias: dict[str, float] | None = Field(None, description="token id to a number added to its logit")
    stop: str | list[str] | None = Field(None, description="the answer ends before any of these strings")
    stop_token_ids: list[int] | None = Field(None, description="the answer ends at any of these tokens")
    include_stop: bool | None = Field(None, description="keep the stop string in the answer")
    ignore_eos: bool | None = Field(None, description="go on past end tokens")
    skip_special_tokens: bool | None = Field(None, description="leave special tokens out of the text; default true")
    seed: int | None = Field(None, description="same seed, same answer")
    n: int | None = Field(None, ge=1, le=MAX_ANSWERS, description="answers to each prompt; the i-th has seed + i")
    stream: bool | None = Field(None, description="send the answer piece by piece")
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, description="accepted, not stored")
    metadata: dict[str, str] | None = Field(None, description="accepted, not stored")


def _prompt_shape(value: Any) -> Any:
    """Refuse what is no prompt in one sentence, where a union would give one complaint for each member."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise ValueError("a prompt is a string, a list of strings, a list of token ids or a list of lists of token ids")
    kinds = {"text" if isinstance(item, str) else "ids" if _is_ids(item) else _kind(item) for item in value}
    if kinds not in ({"text"}, {"ids"}, {"id"}):
        raise ValueError("a prompt list holds only strings, only token ids, or only non-empty lists of token ids")
    if kinds != {"id"} and len(value) > MAX_PROMPTS:
        raise ValueError(f"{len(value)} prompts in one request; at most {MAX_PROMPTS} are taken")
    return value


def _kind(item: Any) -> str:
    return "id" if isinstance(item, int) and not isinstance(item, bool) else "other"


def _is_ids(item: Any) -> bool:
    return isinstance(item, list) and bool(item) and all(_kind(part) == "id" for part in item)


Prompt = Annotated[Any, BeforeValidator(_prompt_shape)]


class CompletionRequest(SamplingFields):
    """POST /v1/completions."""

    prompt: Prompt = Field(None, description="text, texts, token ids or lists of token ids")
    echo: bool | None = Field(None, description="return the prompt before the answer")
    logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS, description="log-probabilities of this many tokens")
    best_of: NotOffered = None
    suffix: NotOffered = None


class ChatMessage(Wire):
    """One turn. Fields that clients send back from an earlier answer may be there when they are empty."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[dict[str, Any]]
    name: NotOffered = None
    refusal: NotOffered = None
    audio: NotOffered = None
    annotations: NotOffered = None
    function_call: NotOffered = None
    tool_calls: NotOffered = None
    reasoning_content: NotOffered = None

    def text(self) -> str:
        """Return the content as text; `Refused` for a part that is not text."""
        if isinstance(self.content, str):
            return self.content
        for part in self.content:
            if part.get("type") != "text" or not isinstance(part.get("text"), str):
                message = f"content parts of type {part.get('type')!r} are not offered; only text is"
                raise invalid(message, "messages", "unsupported_content")
        return "".join(part["text"] for part in self.content)


class ChatRequest(SamplingFields):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES, description="the conversation so far")
    max_completion_tokens: int | None = Field(None, description="the newer name of max_tokens")
    logprobs: bool | None = Field(None, description="return log-probabilities of the answer's tokens")
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS, description="and of this many alternatives")
    response_format: ResponseFormat | None = None
    tools: NotOffered = None
    tool_choice: NotOffered = None
    parallel_tool_calls: bool | None = Field(None, description="without tools it changes nothing")
    functions: NotOffered = None
    function_call: NotOffered = None
    audio: NotOffered = None
    modalities: NotOffered = None
    prediction: NotOffered = None
    reasoning_effort: NotOffered = None
    service_tier: NotOffered = None
    store: NotOffered = None
    verbosity: NotOffered = None
    web_search_options: NotOffered = None


class TokenizeRequest(Wire):
    """POST /tokenize: text or a conversation."""

    model: str | None = None
    prompt: str | None = Field(None, description="text to split")
    messages: list[ChatMessage] | None = Field(None, min_length=1, max_length=MAX_MESSAGES)
    add_generation_prompt: bool = Field(True, description="end a conversation with the mark of the assistant's turn")
    return_token_strs: bool = Field(False, description="return each token's text too")


class DetokenizeRequest(Wire):
    """POST /detokenize."""

    model: str | None = None
    tokens: list[int]


Body = TypeVar("Body", bound=Wire)


def parse(shape: type[Body], data: bytes) -> Body:
    """Return a request body as its shape; `Refused` (400) names the first field that is wrong."""
    try:
        return shape.model_validate_json(data)
    except ValidationError as error:
        raise _refusal(shape, error) from None


def _refusal(shape: type[Wire], error: ValidationError) -> Refused:
    problems = error.errors(include_url=False)
    # An unknown field says more about the mistake than what its absence broke elsewhere.
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    location = [str(part) for part in first["loc"]]
    param = ".".join(location) or None
    kind = first["type"]
    if kind == "json_invalid":
        return Refused(400, f"the body is not valid JSON: {first['ctx']['error']}", code="invalid_json")
    if kind == "extra_forbidden":
        return _unknown_field(shape, location, param)
    if kind == "missing":
        return invalid(f"'{param}' is needed and missing", param, "missing_required_parameter")
    if kind == "not_offered":
        return invalid(f"'{param}' is not offered by this server", param, "unsupported_parameter")
    if location[:1] == ["response_format"]:
        return invalid("only response_format {'type': 'text'} is offered", param, "unsupported_parameter")
    reason = first["msg"].removeprefix("Value error, ")
    return invalid(f"'{param or 'body'}' is not valid: {reason[:1].lower()}{reason[1:]}", param)


def _unknown_field(shape: type[Wire], location: list[str], param: str | None) -> Refused:
    inner: dict[str, type[Wire]] = {"messages": ChatMessage, "stream_options": StreamOptions}
    known = inner.get(location[0], shape)
    guess = nearest(location[-1], known.model_fields)
    hint = f"; did you mean '{guess}'?" if guess else ""
    return invalid(f"unknown field '{param}'{hint}", param, "unknown_parameter")
