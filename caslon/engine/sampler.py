"""Chooses each sequence's next token from the model's raw logits.

The order is fixed: constraint (a grammar); logit_bias, min_tokens; repetition; frequency and presence; no-repeat
n-gram; temperature; top-k; top-p; min-p; renormalise; draw. Every step works within a row, so a row's choice does not
depend on its neighbours. The processors give what transformers' do; nucleus sampling: arXiv:1904.09751, min-p:
arXiv:2407.01082, repetition penalty: arXiv:1909.05858. `S` sequences, `V` vocabulary.
"""

import math
from collections.abc import Sequence as Many
from dataclasses import dataclass

import torch
from torch import Tensor

from caslon.engine.request import SamplingParams, Sequence, TokenLogprob

NOT_FINITE = "model_output_not_finite"
SMALLEST_TEMPERATURE = 1e-5  # below it the likeliest token is certain, and quotients leave float32
NO_ALLOWED_TOKEN = "no_allowed_token"  # noqa: S105 - a word, not a secret


@dataclass(frozen=True)
class Choice:
    """The token chosen for one sequence, or the reason why none could be."""

    id: int = -1
    logprob: TokenLogprob | None = None
    error: str | None = None


def sample(logits: Tensor, sequences: Many[Sequence]) -> list[Choice]:
    """Return one choice for each row of `logits` [S, V], float32."""
    raw = logits
    rows = [row for row, sequence in enumerate(sequences) if _is_changed(sequence)]
    if rows:
        logits = logits.clone()
        for row in rows:
            logits[row] = changed(logits[row], sequences[row])
    best_logits, best_ids = logits.max(dim=-1)  # NaN and infinity pass through max; ties go to the lowest id
    best, chosen = best_logits.tolist(), best_ids.tolist()
    drawing = [row for row, one in enumerate(sequences) if one.params.temperature > 0 and math.isfinite(best[row])]
    if drawing:
        params = [sequences[row].params for row in drawing]
        shares = allowed(logits if len(drawing) == len(sequences) else logits[drawing], params).softmax(dim=-1)
        for row, token in zip(drawing, _drawn(shares, [sequences[row] for row in drawing]), strict=True):
            chosen[row] = token
    return [
        _choice(raw[row], best[row], chosen[row], sequence.params, was_changed=row in rows)
        for row, sequence in enumerate(sequences)
    ]


def _choice(raw: Tensor, best: float, token: int, params: SamplingParams, *, was_changed: bool) -> Choice:
    if best == -math.inf and was_changed:
        return Choice(error=NO_ALLOWED_TOKEN)
    if not math.isfinite(best):
        return Choice(error=NOT_FINITE)
    if params.logprobs is None:
        return Choice(token)
    return Choice(token, token_logprobs(raw.unsqueeze(0), [token], params.logprobs)[0])


def token_logprobs(logits: Tensor, ids: Many[int], alternatives: int) -> list[TokenLogprob]:
    """Return the log-probability of each token of `ids` under its row of `logits` [S, V], with the best alternatives."""
    logprobs = logits.float().log_softmax(dim=-1)
    chosen = logprobs.gather(1, torch.tensor(ids, device=logits.device).unsqueeze(1)).squeeze(1).tolist()
    if not alternatives:
        return [TokenLogprob(token, value) for token, value in zip(ids, chosen, strict=True)]
    values, tokens = logprobs.topk(min(alternatives, logprobs.shape[-1]), dim=-1)
    best = [tuple(zip(*row, strict=True)) for row in zip(tokens.tolist(), values.tolist(), strict=True)]
    return [TokenLogprob(*row) for row in zip(ids, chosen, best, strict=True)]


def allowed(logits: Tensor, params: Many[SamplingParams]) -> Tensor:
    """Return logits [S, V] after temperature, top-k, top-p and min-p; minus infinity marks what may not be drawn."""
    if any(one.temperature != 1 for one in params):
        logits = logits / _column([max(one.temperature, SMALLEST_TEMPERATURE) for one in params], logits)
    size = logits.shape[-1]
    top_k = [one.top_k if 0 < one.top_k < size else size for one in params]
    top_p = [one.top_p for one in params]
    if min(top_k) < size or min(top_p) < 1:
        logits = _most_likely(logits, top_k, top_p)
    if any(one.min_p > 0 for one in params):
        shares = logits.softmax(dim=-1)
        least = _column([one.min_p for one in params], logits) * shares.amax(dim=-1, keepdim=True)
        logits = logits.masked_fill(shares < least, -torch.inf)
    return logits


def _most_likely(logits: Tensor, top_k: list[int], top_p: list[float]) -> Tensor:
    """Keep the k largest of each row, then the smallest set of those whose share reaches p; at least one token."""
    ascending, order = logits.sort(dim=-1, stable=True)
    smallest_kept = torch.tensor([[logits.shape[-1] - count] for count in top_k], device=logits.device)
    threshold = ascending.gather(1, smallest_kept)
    logits = logits.masked_fill(logits < threshold, -torch.inf)
    if min(top_p) == 1:
        return logits
    ascending = ascending.masked_fill(ascending < threshold, -torch.inf)
    # where a row has top_p = 1, nothing is below -1
    excess = _column([1 - mass if mass < 1 else -1 for mass in top_p], logits)
    unlikely = ascending.softmax(dim=-1).cumsum(dim=-1) <= excess
    unlikely[:, -1] = False
    return logits.masked_fill(torch.zeros_like(unlikely).scatter(1, order, unlikely), -torch.inf)


def _drawn(shares: Tensor, sequences: Many[Sequence]) -> list[int]:
    """Return for each row the token whose slice of the cumulative distribution [S, V] holds the sequence's next draw."""
    # float64, so that 100,000 small shares add up; divided, so that the last slice ends at exactly 1
    cumulative = shares.cumsum(dim=-1, dtype=torch.float64)
    cumulative /= cumulative[:, -1:].clone()
    draws = torch.tensor([[sequence.draws.random()] for sequence in sequences], dtype=torch.float64)
    tokens: list[int] = torch.searchsorted(cumulative, draws.to(shares.device), right=True).squeeze(1).tolist()
    return tokens


def _column(values: Many[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).unsqueeze(1)


def changed(logits: Tensor, sequence: Sequence) -> Tensor:
    """Return logits [V] after the constraint, logit_bias, min_tokens, the three penalties and no-repeat n-gram."""
    params = sequence.params
    logits = logits.clone()
    if sequence.constraint is not None:
        sequence.constraint.mask(logits)
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
    if params.no_repeat_ngram_size:
        logits[ngram_ends(sequence.ids, params.no_repeat_ngram_size)] = -torch.inf
    return logits


def ngram_ends(ids: list[int], size: int) -> list[int]:
    """Return the tokens that would make `ids` end with an n-gram of that size which it already holds."""
    begun = ids[len(ids) - size + 1 :] if size > 1 else []
    return [ids[end] for end in range(size - 1, len(ids)) if ids[end - size + 1 : end] == begun]


def _is_changed(sequence: Sequence) -> bool:
    params = sequence.params
    return bool(
        sequence.constraint is not None
        or params.logit_bias
        or params.repetition_penalty != 1
        or params.frequency_penalty
        or params.presence_penalty
        or params.no_repeat_ngram_size
        or sequence.output_tokens < params.min_tokens
    )
