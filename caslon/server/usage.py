"""Token counts of an answer, in OpenAI's shape."""

from collections.abc import Sequence
from typing import Any

from caslon.engine.request import Completion


def usage(to_each_prompt: Sequence[Completion], all_answers: Sequence[Completion]) -> dict[str, Any]:
    """Return the usage of a request: each prompt counts once however many answers it got."""
    prompt_tokens = sum(completion.prompt_tokens for completion in to_each_prompt)
    completion_tokens = sum(len(completion.ids) for completion in all_answers)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": sum(completion.cached_tokens for completion in to_each_prompt)},
    }
