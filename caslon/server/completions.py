"""POST /v1/completions: text or token ids in, text out; several prompts, several answers to each, whole or in pieces.

Source: https://platform.openai.com/docs/api-reference/completions
"""

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from anyio import to_thread
from fastapi import Request
from starlette.responses import JSONResponse, Response

from caslon.engine.request import Completion, Piece
from caslon.server.errors import invalid
from caslon.server.forms import form_of
from caslon.server.gap import gap_ids
from caslon.server.logprobs import CompletionLogprobs
from caslon.server.reading import read
from caslon.server.sampling import sampling_params
from caslon.server.service import Answer, Service
from caslon.server.stream import DONE, EventStream, Pieces, event, whole_answers
from caslon.server.upstream.engine import RemoteEngine
from caslon.server.upstream.pieces import wire_logprobs
from caslon.server.usage import timings, usage
from caslon.server.wire import CompletionRequest

DEFAULT_MAX_TOKENS = 16  # OpenAI's


@dataclass(frozen=True)
class Work:
    """A request that was taken on: its answers are on their way, those to the first prompt first."""

    service: Service
    fields: CompletionRequest
    prompts: Sequence[Sequence[int]]
    texts: list[str]
    answers: list[Answer]

    @property
    def answers_to_each(self) -> int:
        """How many answers each prompt gets."""
        return self.fields.n or 1

    @property
    def written_for_each(self) -> int:
        """How many answers are written for each prompt, the best of which it gets."""
        return self.fields.best_of or self.answers_to_each

    def head(self, request_id: str) -> dict[str, Any]:
        """Return what every object of the answer begins with."""
        return {
            "id": f"cmpl-{request_id}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": self.service.model_name,
            "system_fingerprint": self.service.fingerprint,
        }


async def create_completion(service: Service, request: Request) -> Response:
    """Answer a completion request."""
    fields = await read(service, request, CompletionRequest)
    pieces = Pieces()
    work = await to_thread.run_sync(begin, service, fields, pieces)
    head = work.head(request.state.request_id)
    if work.fields.stream:
        return EventStream(_events(work, head, pieces), work.answers)
    completions = await whole_answers(request, work.answers, pieces)
    return JSONResponse(await to_thread.run_sync(_whole, work, head, completions))


def begin(service: Service, fields: CompletionRequest, pieces: Pieces) -> Work:
    """Split a request's prompts into tokens and start its answers."""
    service.check_model(fields.model)
    _check_combination(fields)
    if service.remote is not None:
        return _begin_remote(service, service.remote, fields, pieces)
    prompts, texts = _prompts(service, fields)
    form = form_of(fields)
    ranked = _is_ranked(fields)
    params = sampling_params(
        service,
        fields,
        # No token at all cannot be asked of the engine: one is written and left out.
        max_tokens=_wanted_tokens(fields) or 1,
        logprobs=0 if ranked and fields.logprobs is None else fields.logprobs,
        prompt_logprobs=fields.logprobs if fields.echo else None,
        answers=fields.best_of,
    )
    answers = service.submit(
        [prompt for prompt in prompts for _ in params],
        [chosen for _ in prompts for chosen in params],
        pieces.put,
        [{"constraint": service.engine.constraint(form)} if form else {} for _ in prompts for _ in params],
    )
    return Work(service, fields, prompts, texts, answers)


def _begin_remote(service: Service, remote: RemoteEngine, fields: CompletionRequest, pieces: Pieces) -> Work:
    """Send each prompt on as it is; that it stands before its answer is done here."""
    given = _given_prompts(fields)
    if fields.echo and (fields.logprobs is not None or not all(isinstance(prompt, str) for prompt in given)):
        message = "'echo': the tokens of the prompt are known to the server behind this model only"
        raise invalid(message, "echo", "unsupported_by_upstream")
    sent = fields.model_copy(update={"echo": None})
    asked = [remote.completion(sent, prompt, _wanted_tokens(fields) or 1) for prompt in given]
    answers = service.submit(
        [one for one in asked for _ in range(one.choices)],
        [one.params for one in asked for _ in range(one.choices)],
        pieces.put,
        [{"choice": choice} for one in asked for choice in range(one.choices)],
    )
    texts = [prompt if isinstance(prompt, str) else "" for prompt in given]
    return Work(service, fields, asked, texts, answers)


def _wanted_tokens(fields: CompletionRequest) -> int:
    return DEFAULT_MAX_TOKENS if fields.max_tokens is None else fields.max_tokens


def _check_combination(fields: CompletionRequest) -> None:
    if fields.stream_options and not fields.stream:
        raise invalid("'stream_options' needs 'stream': true", "stream_options")
    if fields.best_of is not None and fields.best_of < (fields.n or 1):
        raise invalid("'best_of' must be at least 'n'", "best_of")
    if _is_ranked(fields) and fields.stream:
        raise invalid("'best_of' above 'n' cannot be streamed: the best is known at the end", "best_of")
    if fields.suffix is not None and fields.echo:
        raise invalid("'echo' cannot go with 'suffix'", "echo")
    if fields.max_tokens == 0 and (not fields.echo or fields.stream):
        raise invalid("'max_tokens': 0 needs 'echo': true and no stream", "max_tokens")
    if fields.stream and fields.echo and fields.logprobs is not None:
        raise invalid("'echo' with 'logprobs' is not offered in a stream", "echo", "unsupported_parameter")


def _is_ranked(fields: CompletionRequest) -> bool:
    return (fields.best_of or 1) > (fields.n or 1)


def _prompts(service: Service, fields: CompletionRequest) -> tuple[list[list[int]], list[str]]:
    """Return each prompt as ids and as text."""
    given = _given_prompts(fields)
    prompts, texts = [], []
    for prompt in given if fields.suffix is None else []:
        if isinstance(prompt, str):
            prompts.append(service.text_ids(prompt))
            texts.append(prompt)
        else:
            service.check_ids(prompt, "prompt")
            prompts.append(prompt)
            texts.append(service.tokenizer.decode(prompt))
    if fields.suffix is not None:
        prompts = [gap_ids(service.tokenizer, prompt, fields.suffix) for prompt in given]
        texts = [""] * len(prompts)
    return prompts, texts


def _given_prompts(fields: CompletionRequest) -> list[Any]:
    """Return the prompts, each a text or ids."""
    given = fields.prompt
    if given is None or isinstance(given, str):
        return [given or ""]
    return [given] if isinstance(given[0], int) else list(given)


def _whole(work: Work, head: dict[str, Any], completions: list[Completion]) -> dict[str, Any]:
    chosen = [completion for group in _groups(work, completions) for completion in group[: work.answers_to_each]]
    choices = [_choice(work, index, completion) for index, completion in enumerate(chosen)]
    counted = completions if _wanted_tokens(work.fields) else []
    firsts = completions[:: work.written_for_each]
    return {**head, "choices": choices, "usage": usage(firsts, counted), **_timings(work, chosen)}


def _groups(work: Work, completions: list[Completion]) -> Iterator[list[Completion]]:
    """Yield the answers to each prompt, the likeliest first where more were written than are wanted."""
    size = work.written_for_each
    for start in range(0, len(completions), size):
        group = completions[start : start + size]
        yield sorted(group, key=_mean_logprob, reverse=True) if _is_ranked(work.fields) else group


def _mean_logprob(completion: Completion) -> float:
    return sum(token.logprob for token in completion.logprobs) / max(1, len(completion.logprobs))


def _timings(work: Work, completions: list[Completion]) -> dict[str, Any]:
    return timings(completions) if work.service.settings.request_timings else {}


def _choice(work: Work, index: int, completion: Completion) -> dict[str, Any]:
    fields = work.fields
    prompt = index // work.answers_to_each
    text = completion.text if _wanted_tokens(fields) else ""
    if fields.echo:
        text = work.texts[prompt] + text
    return {
        "index": index,
        "text": text,
        "logprobs": _logprobs(work, prompt, completion),
        "finish_reason": completion.finish_reason if _wanted_tokens(fields) else "length",
    }


def _logprobs(work: Work, prompt: int, completion: Completion) -> dict[str, Any] | None:
    fields = work.fields
    if fields.logprobs is None:
        return None
    if work.service.remote is not None:
        return wire_logprobs(completion)
    ids = list(completion.ids) if _wanted_tokens(fields) else []
    tokens = list(completion.logprobs[: len(ids)])
    collector = CompletionLogprobs(work.service.tokenizer)
    if not fields.echo:
        return collector.shape(tokens, ids, fields.logprobs)
    before = list(completion.prompt_logprobs or ())
    return collector.shape([*before, *tokens], [*work.prompts[prompt], *ids], fields.logprobs)


async def _events(work: Work, head: dict[str, Any], pieces: Pieces) -> AsyncIterator[bytes]:
    with_usage = bool(work.fields.stream_options and work.fields.stream_options.include_usage)
    head = {**head, "usage": None} if with_usage else head
    collectors = [_collector(work, text) for text in _echoed(work)]
    for index, text in enumerate(_echoed(work)):
        if text:
            yield event({**head, "choices": [_chunk(index, text)]})
    async for index, piece in pieces.of(work.answers):
        if chunk := _piece_chunk(work, index, piece, collectors[index]):
            yield event({**head, "choices": [chunk]})
    if with_usage:
        done = [answer.result() for answer in work.answers]
        yield event(
            {**head, "choices": [], "usage": usage(done[:: work.answers_to_each], done), **_timings(work, done)}
        )
    yield DONE


def _echoed(work: Work) -> list[str]:
    echo = work.fields.echo
    return [text if echo else "" for text in work.texts for _ in range(work.answers_to_each)]


def _collector(work: Work, text: str) -> CompletionLogprobs | None:
    return None if work.service.remote else CompletionLogprobs(work.service.tokenizer, len(text))


def _piece_chunk(work: Work, index: int, piece: Piece, collector: CompletionLogprobs | None) -> dict[str, Any] | None:
    """Return a piece as a choice, None when there is nothing in it to tell."""
    alternatives = work.fields.logprobs
    logprobs = None if collector else wire_logprobs(piece)
    if collector and alternatives is not None and piece.logprobs:
        logprobs = collector.shape(piece.logprobs, piece.ids, alternatives)
    if not piece.text and not logprobs and not piece.finish_reason:
        return None
    return _chunk(index, piece.text, logprobs, piece.finish_reason)


def _chunk(
    index: int, text: str, logprobs: dict[str, Any] | None = None, finish_reason: str | None = None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}
