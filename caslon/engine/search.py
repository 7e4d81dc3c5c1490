"""Answers that several sequences write together: beam search and contrastive search.

The sequences of such an answer grow in lockstep. When each has reported its logits the search says which go on with
which token; the first heir of a sequence is that sequence, the others fork from it and share its full blocks.

Beam search gives the sequences of transformers' (version 5): processors work on log-probabilities, as many candidates
are kept as there are beams and ends, and finished beams are ranked by their sum over length to the `length_penalty`.
Contrastive search: arXiv:2202.06417. `S` sequences, `V` vocabulary, `D` width.
"""

import math
import time
from collections.abc import Sequence as Many
from dataclasses import replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from caslon.engine.answer import Answer, OnPiece
from caslon.engine.request import Completion, Sequence, TokenLogprob
from caslon.engine.sampler import NO_ALLOWED_TOKEN, NOT_FINITE, Choice, changed, token_logprobs
from caslon.engine.sections import NO_SECTIONS, Sections
from caslon.tokenizer.tokenizer import Tokenizer

Heir = tuple[int, int]  # the place of the parent among the sequences, and the token it goes on with


class Search(Protocol):
    """Decides which sequences go on. `results` has the answers found, best first, when there are no more heirs."""

    results: list[list[Choice]]

    def see(self, sequence: Sequence, start: int, states: Tensor) -> None:
        """Take the final hidden states [T, D] of a sequence's tokens from `start` on."""
        ...

    def step(self, logits: Tensor, sequences: Many[Sequence]) -> list[Heir]:
        """Return the heirs of the sequences, given the logits [S, V] after each; none at the end."""
        ...


class BeamSearch:
    """The likeliest answers, as far as `num_beams` kept at a time can find them."""

    def __init__(self, root: Sequence) -> None:
        self.params = root.params
        self.stop_ids = root.stop_ids
        self.results: list[list[Choice]] = []
        self._scores = torch.zeros(1)
        self._finished: list[tuple[float, list[Choice]]] = []  # best first

    def see(self, sequence: Sequence, start: int, states: Tensor) -> None:
        """Need no hidden states."""

    def step(self, logits: Tensor, sequences: Many[Sequence]) -> list[Heir]:
        """Return the heirs of the beams; none when the search has ended."""
        params, beams = self.params, self.params.num_beams
        logprobs = logits.log_softmax(dim=-1)
        processed = torch.stack([changed(row, one) for row, one in zip(logprobs, sequences, strict=True)])
        totals = (processed + self._scores.to(logits.device)[:, None]).flatten()
        values, places = totals.topk(min(max(2, 1 + len(self.stop_ids)) * beams, totals.numel()))
        length = sequences[0].output_tokens + 1
        over_length = (values / length**params.length_penalty).tolist()
        was_full = params.early_stopping and len(self._finished) == beams
        going: list[tuple[float, Heir]] = []
        for rank, (value, place) in enumerate(zip(values.tolist(), places.tolist(), strict=True)):
            parent, token = divmod(place, logits.shape[-1])
            if value == -math.inf:
                break
            if token not in self.stop_ids and length < params.max_tokens:
                going.append((value, (parent, token)))
            elif rank < beams and not was_full:
                said = _said(sequences[parent], token, logits[parent])
                self._finished.append((over_length[rank], said))
        self._finished = sorted(self._finished, key=lambda pair: -pair[0])[:beams]
        going = going[:beams]
        if not going or self._is_over(going[0][0] / length**params.length_penalty):
            self.results = [said for _, said in self._finished[: params.n]]
            return []
        self._scores = torch.tensor([value for value, _ in going])
        return [heir for _, heir in going]

    def _is_over(self, best_running: float) -> bool:
        full = len(self._finished) == self.params.num_beams
        return full and (self.params.early_stopping or best_running <= self._finished[-1][0])


class ContrastiveSearch:
    """Of the `top_k` likeliest tokens, each time the one that is likely and least like what stands there already.

    `(1 - alpha) p(token) - alpha max cos(h, h_j)` over the final hidden states of all tokens so far; so each candidate
    has to pass through the model before one is chosen.
    """

    def __init__(self, root: Sequence) -> None:
        self.params = root.params
        self.stop_ids = root.stop_ids
        self.results: list[list[Choice]] = []
        self._context: list[Tensor] = []  # unit states of the tokens so far, in rows
        self._own: dict[Sequence, Tensor] = {}  # the unit state of each candidate
        self._shares: list[float] = []
        self._said: list[Choice] = []
        self._next: list[Choice] = []

    def see(self, sequence: Sequence, start: int, states: Tensor) -> None:
        """Keep the states of the prompt and of each candidate; what is computed again after a preemption is the same."""
        units = F.normalize(states.float(), dim=-1)
        if not self._shares:
            held = sum(len(part) for part in self._context)
            if start + len(units) > held:
                self._context.append(units[held - start :])
        elif start + len(units) == len(sequence.ids):
            self._own[sequence] = units[-1]

    def step(self, logits: Tensor, sequences: Many[Sequence]) -> list[Heir]:
        """Return the best candidate's next candidates; none when the answer has ended."""
        best = self._best(sequences)
        length = len(self._said)
        if self._said and (self._said[-1].id in self.stop_ids or length == self.params.max_tokens):
            self.results = [self._said]
            return []
        shares = changed(logits[best], sequences[best]).softmax(dim=-1)
        values, tokens = shares.topk(min(self.params.top_k, len(shares)))
        likely = [(value, token) for value, token in zip(values.tolist(), tokens.tolist(), strict=True) if value > 0]
        self._shares = [value for value, _ in likely]
        self._next = [Choice(token, _logprob(logits[best], token, self.params.logprobs)) for _, token in likely]
        return [(best, token) for _, token in likely]

    def _best(self, sequences: Many[Sequence]) -> int:
        """Return the place of the best candidate, which becomes part of the answer; 0 after the prompt."""
        if not self._shares:
            return 0
        states = torch.stack([self._own[one] for one in sequences])
        context = torch.cat(self._context)
        likeness = (states @ context.T).amax(dim=-1)
        alpha = self.params.penalty_alpha
        scores = (1 - alpha) * torch.tensor(self._shares, device=likeness.device) - alpha * likeness
        best = int(scores.argmax())
        self._context = [context, states[best : best + 1]]
        self._own.clear()
        self._said.append(self._next[best])
        return best


class SearchAnswer(Answer):
    """An answer written by a search. Its pieces come at the end, when it is known."""

    def __init__(
        self,
        sequence: Sequence,
        tokenizer: Tokenizer,
        on_piece: OnPiece | None,
        sections: Sections,
        search: Search,
    ) -> None:
        super().__init__(sequence, tokenizer, on_piece, sections)
        self._tokenizer = tokenizer
        self._sections = sections
        self._search = search
        self._rows: dict[Sequence, Tensor] = {}

    def see(self, sequence: Sequence, start: int, states: Tensor) -> None:
        """Take the final hidden states [T, D] of a sequence's tokens from `start` on."""
        self._search.see(sequence, start, states)

    def report(self, sequence: Sequence, logits: Tensor) -> None:
        """Take the logits [V] after a sequence's newest token."""
        self._rows[sequence] = (
            logits.clone()
        )  # the others may report in later steps, when the runner has written over these

    @property
    def is_ready(self) -> bool:
        """Whether all sequences have reported, so that the answer can grow."""
        return len(self._rows) == len(self.sequences)

    def grow(self) -> tuple[list[tuple[Sequence, Sequence]], list[Sequence]]:
        """Let the search go on by a token; return the forks made, each with its parent, and the sequences given up."""
        logits = torch.stack([self._rows[one] for one in self.sequences])
        self._rows.clear()
        if not logits.amax(dim=-1).isfinite().all():
            self.end("error", error=NOT_FINITE)
            return [], []
        heirs = self._search.step(logits, self.sequences)
        if not heirs:
            self._tell(self._search.results)
            return [], []
        parents = self.sequences
        grown: list[Sequence] = []
        born: list[tuple[Sequence, Sequence]] = []
        tokens: list[tuple[Sequence, int, TokenLogprob | None]] = []
        for place, token in heirs:
            parent = parents[place]
            parent.width = 1
            heir = parent.fork() if parent in grown else parent
            if heir is not parent:
                born.append((heir, parent))
            grown.append(heir)
            tokens.append((heir, token, _logprob(logits[place], token, parent.params.logprobs)))
        for heir, token, logprob in tokens:
            heir.append(token)
            if logprob is not None:
                heir.logprobs.append(logprob)
        self.sequences = grown
        return born, [parent for parent in parents if parent not in grown]

    def end(
        self, reason: str, *, stop_reason: str | int | None = None, shown: str = "", error: str | None = None
    ) -> None:
        """Set the completion; of a search that was not brought to its end nothing is an answer."""
        if self.completion is None and self.sequence in self.sequences:
            self.sequence = self._afresh()
        super().end(reason, stop_reason=stop_reason, shown=shown, error=error)

    def _tell(self, results: list[list[Choice]]) -> None:
        """Say the answers found, the best one to the caller as it would have been said token by token."""
        if not results:
            self.end("error", error=NO_ALLOWED_TOKEN)
            return
        others = [
            self._retold(Answer(self._afresh(), self._tokenizer, None, self._sections), one) for one in results[1:]
        ]
        self.sequence = self._afresh()
        self.completion = replace(self._retold(self, results[0]), others=tuple(others))

    def _retold(self, answer: Answer, choices: list[Choice]) -> Completion:
        for choice in choices:
            if answer.completion is None:
                answer.accept(choice)
        assert answer.completion is not None
        return answer.completion

    def _afresh(self) -> Sequence:
        """Return a sequence with the prompt alone."""
        root = self.sequences[0].fork()
        root.ids, root.logprobs = list(root.prompt), []
        root.output_counts.clear()
        root.first_token = time.perf_counter()
        return root


def new_answer(
    sequence: Sequence, tokenizer: Tokenizer, on_piece: OnPiece | None, sections: Sections = NO_SECTIONS
) -> Answer:
    """Return the answer a sequence begins: one that is drawn token by token, or one that is searched for."""
    if sequence.params.width == 1 or not sequence.wants_tokens:
        return Answer(sequence, tokenizer, on_piece, sections)
    search: Search = ContrastiveSearch(sequence) if sequence.params.penalty_alpha else BeamSearch(sequence)
    return SearchAnswer(sequence, tokenizer, on_piece, sections, search)


def _said(sequence: Sequence, token: int, logits: Tensor) -> list[Choice]:
    """Return the choices that made a sequence and one more token."""
    ids = [*sequence.ids[len(sequence.prompt) :], token]
    last = _logprob(logits, token, sequence.params.logprobs)
    if last is None:
        return [Choice(id) for id in ids]
    return [Choice(id, logprob) for id, logprob in zip(ids, [*sequence.logprobs, last], strict=True)]


def _logprob(logits: Tensor, token: int, alternatives: int | None) -> TokenLogprob | None:
    return None if alternatives is None else token_logprobs(logits.unsqueeze(0), [token], alternatives)[0]
