"""Several answers to the one most of them agree on (self-consistency, arXiv:2203.11171), no more of them than the vote needs.

Answers are written in waves: as many at once as must agree before the vote can be over. So writing side by side costs no
token more than writing one after another.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from caslon.errors import UserError
from caslon.reasoning.branch import Branch
from caslon.reasoning.work import Work


class Votes:
    """Votes in the order they came. A tie goes to the answer that came up first."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()  # keeps the order in which answers came up
        self.cast = 0

    def add(self, answer: str | None) -> None:
        """Count a branch; one without an answer votes for none."""
        self.cast += 1
        if answer is not None:
            self.counts[answer] += 1

    @property
    def leader(self) -> str | None:
        """The answer with most votes, the earliest of several."""
        return max(self.counts, key=lambda answer: self.counts[answer], default=None)

    @property
    def margin(self) -> int:
        """By how many votes the leader is ahead of the next."""
        first, second = (*sorted(self.counts.values(), reverse=True), 0, 0)[:2]
        return first - second

    def is_decided(self, left: int, *, for_leader: int = 0) -> bool:
        """Return whether `left` further votes cannot change the leader, who is given `for_leader` votes more."""
        order = list(self.counts)
        leader = self.leader
        if leader is None:
            return left == 0 or for_leader >= left
        place, lead = order.index(leader), self.counts[leader] + for_leader
        # Whoever came up later needs one vote more than the leader; whoever came up earlier wins a tie.
        ahead = [self.counts[answer] + left < lead for answer in order[:place]]
        behind = [self.counts[answer] + left <= lead for answer in order[place + 1 :]]
        return all(ahead) and all(behind) and left <= lead

    def next_wave(self, left: int) -> int:
        """Return how many votes it takes at least before the vote can be decided."""
        return next(size for size in range(1, left + 1) if self.is_decided(left - size, for_leader=size))


@dataclass(frozen=True)
class SelfConsistency:
    """The majority of `samples` answers, ties to the earliest; stops when the lead cannot be lost any more."""

    name: ClassVar[str] = "self_consistency"
    samples: int = 5

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UserError("a vote needs at least one answer", where="samples", fix="use 3 or more")

    def __call__(self, work: Work) -> Iterator[Branch]:
        """Yield the first branch with the leading answer, after each wave."""
        votes, firsts = Votes(), dict[str, Branch]()
        while votes.cast < self.samples:
            wave = votes.next_wave(self.samples - votes.cast)
            branches = work.branches([work.plan() for _ in range(wave)])
            for branch in branches:
                answer = work.extract(branch.text)
                votes.add(answer)
                if answer is not None:
                    firsts.setdefault(answer, branch)
            decided = votes.is_decided(self.samples - votes.cast)
            work.log(
                "votes",
                votes=dict(votes.counts),
                leader=votes.leader,
                margin=votes.margin,
                cast=votes.cast,
                breadth=self.samples,
                decided=decided,
            )
            yield firsts[votes.leader] if votes.leader is not None else branches[0]
            if decided:
                work.stop_reason = "complete" if votes.cast == self.samples else "decided"
                return
