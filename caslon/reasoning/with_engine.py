"""Asks to texts by an engine in this process, branches of one prompt sharing its blocks. Free of torch itself."""

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from caslon.engine.request import Completion, SamplingParams
from caslon.engine.sections import Markers, Sections, is_thinking, thinking_markers
from caslon.engine.thinking import ThinkingLimit
from caslon.errors import UserError
from caslon.reasoning.branch import Ask, Written

if TYPE_CHECKING:
    from caslon.engine.engine import Engine


class EngineGenerate:
    """Writes with an engine; with `chat` each prompt is a user's message, else plain text.

    The first of several asks with one prompt begins alone, until its prompt is computed; the others then find its blocks.
    """

    def __init__(self, engine: "Engine", *, chat: bool = True) -> None:
        self._engine = engine
        self._chat = chat
        self._markers = thinking_markers(engine.tokenizer)

    def __call__(self, asks: Sequence[Ask]) -> list[Written]:
        """Return what was written for each ask."""
        begun: set[str] = set()
        handles = []
        for ask in asks:
            is_first = ask.prompt not in begun
            begun.add(ask.prompt)
            computed = threading.Event()
            shared = is_first and any(other is not ask and other.prompt == ask.prompt for other in asks)
            handles.append(self._submit(ask, computed.set if shared else None))
            if shared:
                computed.wait()
        return [self._written(ask, handle.result()) for ask, handle in zip(asks, handles, strict=True)]

    def _submit(self, ask: Ask, on_first_piece: Callable[[], None] | None) -> Any:
        if ask.thinking_budget is not None and self._markers is None:
            raise UserError("the model has no marks of thinking", where="thinking_budget", fix="leave it out")
        prompt, begins_thinking = self._prompt(ask)
        params = self._engine.params(
            max_tokens=ask.max_tokens,
            temperature=ask.temperature,
            seed=ask.seed,
            stop=ask.stop,
            logprobs=ask.first_tokens,
            thinking_budget=ask.thinking_budget,
        )
        on_piece = None if on_first_piece is None else lambda _piece: on_first_piece()
        return self._engine.submit(
            prompt,
            params,
            on_piece,
            constraint=self._limit(params, begins_thinking),
            sections=Sections(self._markers, begins_thinking=begins_thinking),
        )

    def _prompt(self, ask: Ask) -> tuple[list[int], bool]:
        """Return the ids to go on from, and whether they end with thinking open. An answer that has begun closes it."""
        tokenizer = self._engine.tokenizer
        if not self._chat:
            return self._engine.prompt_ids(ask.prompt) + tokenizer.encode(ask.prefix), False
        message = {"role": "user", "content": ask.prompt}
        ids = list(tokenizer.encode_chat([message], add_generation_prompt=True).ids)
        thinking = is_thinking(ids, self._markers)
        if thinking and (ask.prefix or ask.first_tokens):
            ids, thinking = [*ids, _closing(self._markers)], False
        return ids + tokenizer.encode(ask.prefix), thinking

    def _limit(self, params: SamplingParams, begins_thinking: bool) -> ThinkingLimit | None:
        if self._markers is None or params.thinking_budget is None:
            return None
        return ThinkingLimit(
            self._markers, params.thinking_budget, end_ids=self._engine.end_ids, begins_thinking=begins_thinking
        )

    def _written(self, ask: Ask, completion: Completion) -> Written:
        first = completion.logprobs[0].top[: ask.first_tokens] if completion.logprobs else ()
        texts = [(self._text(token), logprob) for token, logprob in first]
        return Written(
            text=completion.text,
            tokens=len(completion.ids),
            finish_reason=completion.finish_reason,
            thinking=completion.thinking,
            thinking_tokens=completion.thinking_tokens,
            stopped_by=completion.stop_reason if isinstance(completion.stop_reason, str) else None,
            logprobs=tuple(token.logprob for token in completion.logprobs),
            cached_tokens=completion.cached_tokens,
            first_tokens=tuple((text, logprob) for text, logprob in texts if text),
        )

    def _text(self, token: int) -> str:
        """Return a token's text; none for a special token and for half a character, which cannot begin a text."""
        tokenizer = self._engine.tokenizer
        if token in tokenizer.special_ids:
            return ""
        return tokenizer.token_bytes(token).decode(errors="ignore")


def _closing(markers: Markers | None) -> int:
    assert markers is not None
    assert markers.closing is not None
    return markers.closing
