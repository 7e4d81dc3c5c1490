"""Request bodies as strict shapes; what does not fit becomes a 400 that names the field and, where it can, the nearest spelling.

Fields beyond OpenAI's (top_k, min_p, repetition_penalty, ...) have the names other open servers use. Ranges are checked
once, by the engine's `SamplingParams`; here only shapes are.
Source: https://platform.openai.com/docs/api-reference
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError, from_json

from caslon.server.errors import Refused, invalid
from caslon.settings import nearest

MAX_DEPTH = 64
MAX_PROMPTS = 64
MAX_ANSWERS = 16  # n
MAX_BEST_OF = 20
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
    include_obfuscation: bool | None = Field(None, description="accepted; nothing is ever padded")


class SchemaFormat(Wire):
    """The schema of a `json_schema` format. It is always kept to, whether `strict` or not."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    name: str = Field(min_length=1, max_length=64)
    description: str | None = None
    schema_: Any = Field(None, alias="schema", description="the JSON schema; any JSON when left out")
    strict: bool | None = None


class ResponseFormat(Wire):
    """The form of an answer. `regex`, `choice` and `grammar` are caslon's own."""

    type: Literal["text", "json_object", "json_schema", "regex", "choice", "grammar"]
    json_schema: SchemaFormat | None = None
    regex: str | None = Field(None, description="what the whole answer must match")
    choice: list[str] | None = Field(None, description="the answers there may be")
    grammar: str | None = Field(None, description="a Lark grammar, or llama.cpp's GBNF")


class SamplingFields(Wire):
    """What every kind of request may set. None means: not set, the model folder's default holds."""

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
    response_format: ResponseFormat | None = Field(None, description="the form every answer keeps to")
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
    best_of: int | None = Field(
        None, ge=1, le=MAX_BEST_OF, description="write this many, return the n likeliest by mean log-probability"
    )
    suffix: str | None = Field(None, description="the text after the gap that is to be filled")


class DetokenizeRequest(Wire):
    """POST /detokenize."""

    model: str | None = None
    tokens: list[int]


Body = TypeVar("Body", bound=Wire)


def parse(shape: type[Body], data: bytes, ignored: list[str] | None = None) -> Body:
    """Return a request body as its shape; `Refused` (400) names the first field that is wrong.

    With a list to name them in, unknown fields are left out instead.
    """
    return checked(shape, _json(data), ignored)


def checked(shape: type[Body], value: Any, ignored: list[str] | None = None) -> Body:
    """Return a JSON value as a shape; see `parse`."""
    while True:
        try:
            return shape.model_validate(value)
        except ValidationError as error:
            unknown = [problem["loc"] for problem in error.errors() if problem["type"] == "extra_forbidden"]
            if ignored is None or not unknown:
                raise _refusal(shape, error) from None
            ignored += [".".join(map(str, location)) for location in unknown]
            for location in unknown:
                _remove(value, location)


def _json(data: bytes) -> Any:
    """Return the JSON of a body; `Refused` says where it breaks off or is too deep."""
    try:
        value = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise Refused(400, f"the body is not valid JSON: {error}", code="invalid_json") from None
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and not _is_shallow(value):
        raise Refused(400, f"the body is nested more than {MAX_DEPTH} deep", code="invalid_json")
    return value


def _is_shallow(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer) if isinstance(inner, dict | list)]
        if not level:
            return True
    return False


def _inside(value: Any) -> Iterator[Any]:
    yield from value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _remove(value: Any, location: tuple[int | str, ...]) -> None:
    """Take out the field at a place. Names that pydantic adds for the members of a union are passed over."""
    for part in location[:-1]:
        if isinstance(part, int) if isinstance(value, list) else part in value:
            value = value[part]
    value.pop(location[-1], None)


def _refusal(shape: type[Wire], error: ValidationError) -> Refused:
    problems = error.errors(include_url=False)
    # An unknown field says more about the mistake than what its absence broke elsewhere.
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    location = [str(part) for part in first["loc"]]
    param = ".".join(location) or None
    kind = first["type"]
    if kind == "extra_forbidden":
        return _unknown_field(shape, location, param)
    if kind == "missing":
        return invalid(f"'{param}' is needed and missing", param, "missing_required_parameter")
    if kind == "not_offered":
        return invalid(f"'{param}' is not offered by this server", param, "unsupported_parameter")
    reason = first["msg"].removeprefix("Value error, ")
    return invalid(f"'{param or 'body'}' is not valid: {reason[:1].lower()}{reason[1:]}", param)


def _unknown_field(shape: type[Wire], location: list[str], param: str | None) -> Refused:
    guess = nearest(location[-1], _shape_at(shape, location[:-1]).model_fields)
    hint = f"; did you mean '{guess}'?" if guess else ""
    return invalid(f"unknown field '{param}'{hint}", param, "unknown_parameter")


def _shape_at(shape: type[BaseModel], location: list[str]) -> type[BaseModel]:
    """Return the shape that stands at a place inside another."""
    for part in location:
        field = shape.model_fields.get(part)
        if field is not None:
            shape = next(iter(_shapes_in(field.annotation)), shape)
    return shape


def _shapes_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _shapes_in(part)
