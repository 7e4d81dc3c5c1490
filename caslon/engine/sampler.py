"""Chooses each sequence's next token from the model's raw logits.

The order is fixed: logit_bias, min_tokens; repetition; frequency and presence; temperature; top-k; top-p; min-p;
renormalise; draw. Every step works within a row, so a row's choice does not depend on its neighbours. The processors
give what transformers' do; nucleus sampling: arXiv:1904.09751, min-p: arXiv:2407.01082, repetition penalty:
arXiv:1909.05858. `S` sequences, `V` vocabulary.
"""

from collections.abc import Sequence as Many
from dataclasses import dataclass

import torch
from torch import Tensor

from caslon.engine.request import SamplingParams, Sequence, TokenLogprob

NOT_FINITE = "model_output_not_finite"
NO_ALLOWED_TOKEN = "no_allowed_token"  # noqa: S105 - a word, not a secret


@dataclass(frozen=True)
class Choice:
    """The token chosen for one sequence, or the reason why none could be."""

    id: int = -1
    logprob: TokenLogprob | None = None
    error: str | None = None


def sample(logits: Tensor, sequences: Many[Sequence]) -> list[Choice]:
    """Return one choice for each row of `logits` [S, V], float32."""
    best_logits, best_ids = logits.max(dim=-1)  # NaN and infinity pass through max; ties go to the lowest id
    finite = torch.isfinite(best_logits).tolist()
    chosen = best_ids.tolist()
    for row, sequence in enumerate(sequences):
        if finite[row] and not _is_plain_greedy(sequence):
            chosen[row] = _choose(logits[row], sequence)
    return [
        Choice(error=NOT_FINITE)
        if not finite[row]
        else Choice(error=NO_ALLOWED_TOKEN)
        if chosen[row] is None
        else Choice(chosen[row], _asked_logprob(logits[row], chosen[row], sequence.params))
        for row, sequence in enumerate(sequences)
    ]


def token_logprobs(logits: Tensor, ids: Many[int], alternatives: int) -> list[TokenLogprob]:
    """Return the log-probability of each token of `ids` under its row of `logits` [S, V], with the best alternatives."""
    logprobs = logits.float().log_softmax(dim=-1)
    chosen = logprobs.gather(1, torch.tensor(ids, device=logits.device).unsqueeze(1)).squeeze(1).tolist()
    if not alternatives:
        return [TokenLogprob(token, value) for token, value in zip(ids, chosen, strict=True)]
    values, tokens = logprobs.topk(min(alternatives, logprobs.shape[-1]), dim=-1)
    best = [tuple(zip(*row, strict=True)) for row in zip(tokens.tolist(), values.tolist(), strict=True)]
    return [TokenLogprob(*row) for row in zip(ids, chosen, best, strict=True)]


def allowed(logits: Tensor, params: SamplingParams) -> Tensor:
    """Return logits [V] after temperature, top-k, top-p and min-p; minus infinity marks what may not be drawn."""
    if params.temperature not in (0, 1):
        logits = logits / params.temperature
    if 0 < params.top_k < logits.numel():
        logits = _top_k(logits, params.top_k)
    if params.top_p < 1:
        logits = _top_p(logits, params.top_p)
    if params.min_p > 0:
        probabilities = logits.softmax(dim=-1)
        logits = logits.masked_fill(probabilities < params.min_p * probabilities.max(), -torch.inf)
    return logits


def changed(logits: Tensor, sequence: Sequence) -> Tensor:
    """Return logits [V] after logit_bias, min_tokens and the three penalties."""
    params = sequence.params
    logits = logits.clone()
    if params.logit_bias:
        bias = torch.tensor(list(params.logit_bias.values()), dtype=logits.dtype, device=logits.device)
        logits[list(params.logit_bias)] += bias
    if sequence.output_tokens < params.min_tokens:
        logits[sorted(sequence.stop_ids)] = -torch.inf
    if params.repetition_penalty != 1:
        seen = sorted(set(sequence.ids))
        scores = logits[seen]
        logits[seen] = torch.where(scores < 0, scores * params.repetition_penalty, scores / params.repetition_penalty)
    if sequence.output_counts and (params.frequency_penalty or params.presence_penalty):
        counts = torch.tensor(list(sequence.output_counts.values()), dtype=logits.dtype, device=logits.device)
        logits[list(sequence.output_counts)] -= params.frequency_penalty * counts + params.presence_penalty
    return logits


def _is_plain_greedy(sequence: Sequence) -> bool:
    return sequence.params.temperature == 0 and not _is_changed(sequence)


def _is_changed(sequence: Sequence) -> bool:
    params = sequence.params
    return bool(
        params.logit_bias
        or params.repetition_penalty != 1
        or params.frequency_penalty
        or params.presence_penalty
        or sequence.output_tokens < params.min_tokens
    )


def _choose(logits: Tensor, sequence: Sequence) -> int | None:
    logits = logits.float()
    if _is_changed(sequence):
        logits = changed(logits, sequence)
        if logits.max() == -torch.inf:
            return None
    if sequence.params.temperature == 0:
        return int(logits.max(dim=-1).indices)
    return _draw(allowed(logits, sequence.params).softmax(dim=-1), sequence.draws.random())


def _draw(probabilities: Tensor, uniform: float) -> int:
    """Return the token whose slice of the cumulative distribution [V] holds `uniform`, which lies in [0, 1)."""
    # float64, so that 100,000 small probabilities add up; divided, so that the last slice ends at exactly 1
    cumulative = probabilities.cumsum(dim=-1, dtype=torch.float64)
    cumulative /= cumulative[-1].clone()
    return int(torch.searchsorted(cumulative, uniform, right=True))


def _top_k(logits: Tensor, count: int) -> Tensor:
    return logits.masked_fill(logits < logits.topk(count).values[-1], -torch.inf)


def _top_p(logits: Tensor, mass: float) -> Tensor:
    """Keep the smallest set whose cumulative mass reaches `mass`; at least one token."""
    ascending, order = logits.sort(descending=False)
    unlikely = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1 - mass
    unlikely[-1] = False
    return logits.masked_fill(torch.zeros_like(unlikely).scatter(0, order, unlikely), -torch.inf)


def _asked_logprob(logits: Tensor, token: int, params: SamplingParams) -> TokenLogprob | None:
    if params.logprobs is None:
        return None
    return token_logprobs(logits.unsqueeze(0), [token], params.logprobs)[0]
