"""A request's sampling fields to the engine's `SamplingParams`: the request wins, then the model folder, then the default."""

from typing import TYPE_CHECKING

from caslon.engine.request import SamplingParams
from caslon.server.errors import invalid
from caslon.server.wire import SamplingFields

if TYPE_CHECKING:
    from caslon.server.service import Service

# Fields that go to the engine under the same name.
SAME_NAME = (
    "min_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "include_stop",
    "ignore_eos",
    "skip_special_tokens",
)


def sampling_params(
    service: "Service",
    fields: SamplingFields,
    *,
    max_tokens: int,
    logprobs: int | None = None,
    prompt_logprobs: int | None = None,
    thinking_budget: int | None = None,
    answers: int | None = None,
) -> list[SamplingParams]:
    """Return the parameters of the request's `n` (or so many) answers to one prompt; the i-th has seed + i."""
    chosen = {name: value for name in SAME_NAME if (value := getattr(fields, name)) is not None}
    chosen |= {"max_tokens": max_tokens, "logprobs": logprobs, "prompt_logprobs": prompt_logprobs}
    if thinking_budget is not None:
        chosen["thinking_budget"] = thinking_budget
    chosen["stop"] = (fields.stop,) if isinstance(fields.stop, str) else tuple(fields.stop or ())
    chosen["stop_token_ids"] = tuple(fields.stop_token_ids or ())
    chosen["logit_bias"] = _logit_bias(service, fields.logit_bias or {})
    seeds = [None if fields.seed is None else fields.seed + index for index in range(answers or fields.n or 1)]
    return [service.engine.params(**chosen, seed=seed) for seed in seeds]


def _logit_bias(service: "Service", wanted: dict[str, float]) -> dict[int, float]:
    bias = {}
    for key, value in wanted.items():
        if not key.isdecimal() or int(key) >= service.tokenizer.vocab_size:
            raise invalid(f"'{key}' is not a token id (0 to {service.tokenizer.vocab_size - 1})", "logit_bias")
        bias[int(key)] = value
    return bias
