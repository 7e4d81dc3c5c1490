"""Asks to texts by a server of the OpenAI protocol, several at once.

An answer that has begun is continued by token ids, from the server's own `/tokenize`, as caslon and vLLM offer it.
"""

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from caslon.client import Client
from caslon.errors import CaslonError
from caslon.reasoning.branch import Ask, Written

AT_ONCE = 8
NO_TEXT = re.compile(r"bytes:|<\|.*\|>$|</?s>$")  # how servers spell tokens that are no text


class HttpGenerate:
    """Writes with a model behind a server; with `chat` each prompt is a user's message, else plain text."""

    def __init__(self, client: Client, model: str, *, chat: bool = True) -> None:
        self._client = client
        self._model = model
        self._chat = chat

    def __call__(self, asks: Sequence[Ask]) -> list[Written]:
        """Return what was written for each ask."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(self._write, asks))

    def _write(self, ask: Ask) -> Written:
        fields: dict[str, Any] = {
            "max_tokens": ask.max_tokens,
            "temperature": ask.temperature,
            "seed": ask.seed,
        }
        if ask.stop:  # caslon leaves the stop string in, vLLM names it: so it is known what ended the text
            fields |= {"stop": list(ask.stop), "include_stop": True}
        if ask.thinking_budget is not None:
            fields["thinking_budget"] = ask.thinking_budget
        if self._chat and not (ask.prefix or ask.first_tokens):
            return self._chatted(ask, fields)
        answer = self._client.complete(self._model, self._prompt(ask), logprobs=ask.first_tokens, **fields)
        choice = answer["choices"][0]
        logprobs = choice.get("logprobs") or {}
        return _written(ask, answer, choice["text"], logprobs.get("token_logprobs") or (), _tops(logprobs))

    def _chatted(self, ask: Ask, fields: Mapping[str, Any]) -> Written:
        answer = self._client.chat(self._model, _messages(ask), logprobs=True, **fields)
        choice = answer["choices"][0]
        tokens = (choice.get("logprobs") or {}).get("content") or ()
        text = choice["message"].get("content") or ""
        return _written(ask, answer, text, [token["logprob"] for token in tokens], ())

    def _prompt(self, ask: Ask) -> str | list[int]:
        if not self._chat:
            return ask.prompt + ask.prefix
        ids = self._ids({"messages": _messages(ask)})
        return ids + (self._ids({"prompt": ask.prefix}) if ask.prefix else [])

    def _ids(self, what: Mapping[str, Any]) -> list[int]:
        return list(self._client.post_json("/tokenize", {"model": self._model, **what})["tokens"])


def _messages(ask: Ask) -> list[dict[str, str]]:
    return [{"role": "user", "content": ask.prompt}]


def _written(
    ask: Ask,
    answer: Mapping[str, Any],
    text: str,
    logprobs: Sequence[float],
    first_tokens: Sequence[tuple[str, float]],
) -> Written:
    choice, usage = answer["choices"][0], answer.get("usage")
    if not usage:
        raise CaslonError("the server does not tell how many tokens it wrote", fix="no budget can be held with it")
    reason = choice.get("stop_reason")
    stopped_by = reason if isinstance(reason, str) else next((stop for stop in ask.stop if text.endswith(stop)), None)
    return Written(
        text=text.removesuffix(stopped_by) if stopped_by else text,
        tokens=usage["completion_tokens"],
        finish_reason=choice["finish_reason"],
        thinking=(choice.get("message") or {}).get("reasoning_content") or "",
        thinking_tokens=(usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0,
        stopped_by=stopped_by,
        logprobs=tuple(logprobs),
        first_tokens=tuple(first_tokens),
    )


def _tops(logprobs: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return the likeliest first tokens, best first, without special ones and parts of characters, which begin no text."""
    tops = (logprobs.get("top_logprobs") or [None])[0] or {}
    ranked = sorted(tops.items(), key=lambda item: -item[1])
    return [(text, logprob) for text, logprob in ranked if not NO_TEXT.match(text)]
