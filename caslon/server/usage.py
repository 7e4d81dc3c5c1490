"""Token counts and times of an answer, in OpenAI's shape."""

from collections.abc import Sequence
from typing import Any

from caslon.engine.request import Completion
from caslon.server.upstream.pieces import RemoteCompletion


def usage(to_each_prompt: Sequence[Completion], all_answers: Sequence[Completion]) -> dict[str, Any]:
    """Return the usage of a request: each prompt counts once however many answers it got.

    Where another server wrote the answers and did not say how many tokens they have, `estimated` says so.
    """
    prompt_tokens = sum(completion.prompt_tokens for completion in to_each_prompt)
    completion_tokens = sum(len(completion.ids) for completion in all_answers)
    guessed = any(isinstance(completion, RemoteCompletion) and completion.estimated for completion in all_answers)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": sum(completion.cached_tokens for completion in to_each_prompt)},
        "completion_tokens_details": {
            "reasoning_tokens": sum(completion.thinking_tokens for completion in all_answers)
        },
        **({"estimated": True} if guessed else {}),
    }


def timings(completions: Sequence[Completion]) -> dict[str, Any]:
    """Return `{"timings": [...]}`: for each answer the seconds it waited, to its first token and from there, and its speed."""
    return {"timings": [_times(completion) for completion in completions]}


def _times(completion: Completion) -> dict[str, Any]:
    times, tokens = completion.times, len(completion.ids)
    writing = None if times.first_token is None else times.end - times.first_token
    return {
        "queue_seconds": times.queued,
        "time_to_first_token_seconds": times.first_token,
        "generation_seconds": writing,
        "tokens_per_second": (tokens - 1) / writing if writing and tokens > 1 else None,
    }
