"""The kinds of upstream by name: what each honours, how it is asked, and how its stream is read."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from caslon.server.errors import Refused, invalid
from caslon.server.upstream import anthropic, ollama, openai
from caslon.server.upstream.pieces import Asked, Delta
from caslon.server.upstream.settings import UpstreamKind, UpstreamSettings

# Fields that say what is asked and are translated by every kind.
SUBJECT = frozenset({"messages", "prompt"})
# Values at which a field asks for nothing that is not done anyway, by a server that does not know the field.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "logprobs": (False,),
    "echo": (False,),
    "tool_choice": ("auto",),
    "parallel_tool_calls": (True,),
    "thinking": ("shown",),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "min_tokens": (0,),
    "include_stop": (False,),
    "ignore_eos": (False,),
    "skip_special_tokens": (True,),
    "repetition_penalty": (1.0,),
    "presence_penalty": (0.0,),
    "frequency_penalty": (0.0,),
    "min_p": (0.0,),
    "top_k": (0,),
    "logit_bias": ({},),
    "stop_token_ids": ([],),
    "chat_template_kwargs": ({},),
}


@dataclass(frozen=True)
class Kind:
    """One protocol. `fields` names, for each of our two ways to ask, the fields it honours."""

    fields: Mapping[str, Mapping[str, str]]
    headers: Callable[[str | None], dict[str, str]]
    refusal: Callable[[Asked, UpstreamSettings], str | None]
    body: Callable[[Asked, str, UpstreamSettings], tuple[str, dict[str, Any]]]
    deltas: Callable[[AsyncIterator[bytes], Asked], AsyncIterator[Delta]]


KINDS: Mapping[UpstreamKind, Kind] = {
    "openai": Kind(openai.OPENAI, openai.headers, openai.refusal, openai.body, openai.deltas),
    "vllm": Kind(openai.VLLM, openai.headers, openai.refusal, openai.body, openai.deltas),
    "llama-server": Kind(openai.LLAMA_SERVER, openai.headers, openai.refusal, openai.body, openai.deltas),
    "ollama": Kind(ollama.FIELDS, ollama.headers, ollama.refusal, ollama.body, ollama.deltas),
    "anthropic": Kind(anthropic.FIELDS, anthropic.headers, anthropic.refusal, anthropic.body, anthropic.deltas),
}


def not_honoured(asked: Asked, settings: UpstreamSettings) -> Refused | None:
    """Return why an upstream cannot do what is asked; None when it can."""
    kind = KINDS[settings.kind]
    if asked.api not in kind.fields:
        message = f"the server behind this model ({settings.kind}) continues no text; use /v1/chat/completions"
        return invalid(message, "prompt", "unsupported_by_upstream")
    known = SUBJECT | kind.fields[asked.api].keys()
    unknown = (name for name, value in asked.fields.items() if name not in known and value not in NEUTRAL.get(name, ()))
    field = next(unknown, None) or kind.refusal(asked, settings)
    if field is None:
        return None
    message = f"'{field}': the server behind this model ({settings.kind}) cannot honour it"
    return invalid(message, field, "unsupported_by_upstream")
