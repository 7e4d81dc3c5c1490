"""Turns one request for several answers into requests for one, and their answers into the best ones.

The i-th answer of a request with `n` is the answer to the same request with seed + i. Free of torch.
"""

import secrets
from collections.abc import Sequence as Many
from dataclasses import replace
from statistics import fmean

from caslon.engine.request import Completion, SamplingParams


def branches(params: SamplingParams) -> list[SamplingParams]:
    """Return parameters of one answer each, `best_of` in number. A beam search finds its `n` answers by itself."""
    count = params.best_of or params.n
    if count == 1 or params.num_beams > 1:
        return [params]
    seed = secrets.randbits(62) if params.seed is None else params.seed
    logprobs = params.logprobs if count == params.n else params.logprobs or 0
    return [replace(params, n=1, best_of=None, seed=seed + index, logprobs=logprobs) for index in range(count)]


def best(completions: Many[Completion], params: SamplingParams) -> list[Completion]:
    """Return the `n` answers wanted of those to `branches(params)`, the likeliest first where there were more."""
    if params.num_beams > 1:
        return [completions[0], *completions[0].others]
    if len(completions) == params.n:
        return list(completions)
    ranked = sorted(completions, key=mean_logprob, reverse=True)[: params.n]
    return ranked if params.logprobs is not None else [replace(one, logprobs=()) for one in ranked]


def mean_logprob(completion: Completion) -> float:
    """Return the mean log-probability of an answer's tokens; 0 for an answer without any."""
    return fmean(entry.logprob for entry in completion.logprobs) if completion.logprobs else 0.0
