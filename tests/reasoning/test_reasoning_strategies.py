"""Strategies over a scripted generate function: votes, judges, revisions, first tokens, steps, routes."""

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import Scripted, noisy

from caslon.errors import CaslonError, UserError
from caslon.reasoning.branch import Ask, Branch, Written
from caslon.reasoning.checking import ArithmeticSteps, Verdict
from caslon.reasoning.controller import reason
from caslon.reasoning.judges import VerifierScore
from caslon.reasoning.routing import Level, Route, by_numbers
from caslon.reasoning.stepwise import StepSearch, TemperatureAnneal
from caslon.reasoning.strategies import BestOf, BranchFirst, Revise, Single
from caslon.reasoning.voting import SelfConsistency, Votes
from caslon.reasoning.work import Limits

QUESTION = "Start with 2; add 3; multiply by 4. What is the result?"
STRATEGIES = [
    Single(),
    SelfConsistency(5),
    BestOf(4),
    BranchFirst(3),
    Revise(ArithmeticSteps()),
    StepSearch(2, 4),
    TemperatureAnneal(1.0, 0.2),
    Route(),
]


def by_name(strategy: object) -> str:
    return strategy.name


def test_importing_the_room_loads_no_torch() -> None:
    code = (
        "import importlib, pkgutil, sys, caslon.reasoning as room\n"
        "for module in pkgutil.iter_modules(room.__path__): importlib.import_module('caslon.reasoning.' + module.name)\n"
        "assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""


def test_a_vote_takes_the_majority_and_stops_when_it_is_decided() -> None:
    generate = Scripted(["#### 7", "#### 20", "#### 20", "#### 20"])
    told = reason(QUESTION, SelfConsistency(5), generate)
    assert (told.answer, told.stop_reason, told.branches) == ("20", "decided", 4)
    assert generate.waves == [3, 1]
    votes = [event for event in told.record if event["event"] == "votes"]
    assert [event["margin"] for event in votes] == [1, 2]
    assert votes[-1]["votes"] == {"7": 1, "20": 3}


def test_a_tie_goes_to_the_earliest_and_no_answer_is_no_vote() -> None:
    told = reason(QUESTION, SelfConsistency(5), Scripted(["#### 1", "nothing", "#### 2", "#### 2", "#### 1"]))
    assert told.answer == "1"
    told = reason(QUESTION, SelfConsistency(3), Scripted(["nothing to see"]))
    assert (told.answer, told.text, told.branches) == (None, "nothing to see", 3)


@pytest.mark.promise(
    "reasoning", "A vote that stops early has the same winner as the whole vote, and stops as early as it can"
)
@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=7))
def test_the_early_exit_never_changes_the_winner(answers: list[str | None]) -> None:
    told = reason(
        QUESTION, SelfConsistency(len(answers)), Scripted([f"#### {one}" if one else "none" for one in answers])
    )
    whole = Votes()
    for answer in answers:
        whole.add(answer)
    assert told.answer == whole.leader
    # One vote fewer was not enough: some continuation has another winner.
    seen = answers[: told.branches - 1]
    assert len({winner([*seen, *rest]) for rest in endings(len(answers) - len(seen))}) > 1


def winner(answers: list[str | None]) -> str | None:
    votes = Votes()
    for answer in answers:
        votes.add(answer)
    return votes.leader


def endings(left: int) -> list[list[str | None]]:
    """The strongest attacks on a leader: all votes that are left go to one other."""
    return [[answer] * left for answer in ("1", "2", "3", "new", None)]


def test_best_of_takes_the_judges_favourite() -> None:
    texts = ["2 + 3 = 6\n#### 6", "2 + 3 = 5\n5 * 4 = 20\n#### 20", "#### 20"]
    told = reason(QUESTION, BestOf(3, VerifierScore(ArithmeticSteps())), Scripted(texts))
    assert told.answer == "20"
    assert told.record[-2] | {"scores": None} == {
        "event": "scored",
        "by": "arithmetic steps",
        "scores": None,
        "chosen": 1,
    }
    told = reason(QUESTION, BestOf(3, lambda _question, branch: -len(branch.text)), Scripted(texts))
    assert told.answer == "20"
    assert told.text == "#### 20"


def test_log_probability_is_divided_by_length() -> None:
    def generate(asks: list[Ask]) -> list[Written]:
        return [
            Written("a long likely one #### 1", 10, "stop", logprobs=(-0.5,) * 10),
            Written("#### 2", 2, "stop", logprobs=(-1.0,) * 2),
        ]

    assert reason(QUESTION, BestOf(2), generate).answer == "1"  # -5 in all against -2, but -0.5 against -1 a token
    silent = Scripted(["#### 1"])
    silent.logprob = 0.0
    with pytest.raises(UserError, match="no log-probabilities"):
        reason(QUESTION, BestOf(2), lambda asks: [Written("x", 1, "stop")] * 2)


class Scored:
    """A verifier that passes one text and scores others by a table."""

    def __init__(self, scores: dict[str, float]) -> None:
        self.scores = scores
        self.name = "scored"

    def __call__(self, question: str, solution: str) -> Verdict:
        score = self.scores[solution]
        return Verdict(score == 1, score, None, "not right")


@pytest.mark.promise(
    "reasoning", "A revision happens only where a verifier fails the answer, and a worse one is rolled back"
)
def test_revision_needs_an_anchor() -> None:
    passing = Scripted(["right"])
    told = reason(QUESTION, Revise(Scored({"right": 1})), passing)
    assert (len(passing.asks), told.stop_reason) == (1, "verified")  # skipped

    worse = Scripted(["fair", "bad", "worse"])
    told = reason(QUESTION, Revise(Scored({"fair": 0.5, "bad": 0.5, "worse": 0.1})), worse)
    assert told.text == "fair"
    assert [event["event"] for event in told.record].count("rolled_back") == 2
    assert "fair" in worse.asks[2].prompt  # the second round begins from the best, not from the last
    assert "bad" not in worse.asks[2].prompt

    better = Scripted(["bad", "right"])
    assert reason(QUESTION, Revise(Scored({"bad": 0, "right": 1})), better).text == "right"
    assert "not right" in better.asks[1].prompt
    with pytest.raises(UserError):
        Revise(Scored({}), rounds=3)


def test_branch_first_goes_on_from_each_first_token() -> None:
    generate = Scripted(lambda ask, _number: {"Aa": " #### 1", "Bb": " #### 2", "Cc": " #### 3"}.get(ask.prefix, "Aa"))
    told = reason(QUESTION, BranchFirst(3, lambda _question, branch: branch.text == "Bb #### 2"), generate)
    assert (told.text, told.branches) == ("Bb #### 2", 4)
    assert [ask.prefix for ask in generate.asks] == ["", "Aa", "Bb", "Cc"]
    assert (generate.asks[0].max_tokens, {ask.temperature for ask in generate.asks}) == (1, {0.0})
    with pytest.raises(UserError, match="first tokens"):
        reason(QUESTION, BranchFirst(2), lambda asks: [Written("x", 1, "length")])


def test_step_search_keeps_the_best_beams() -> None:
    lines = {"": ["bad\n", "good\n"], "good\n": ["better\n", "bad\n"], "good\nbetter\n": ["#### 20", "#### 7"]}

    def script(ask: Ask, number: int) -> str:
        return lines.get(ask.prefix, ["dead end\n"])[ask.seed % 2]

    told = reason(
        QUESTION,
        StepSearch(1, 5, lambda _question, branch: branch.text.count("o") + ("20" in branch.text)),
        Scripted(script),
    )
    assert told.text == "good\nbetter\n#### 20"
    steps = [event for event in told.record if event["event"] == "step"]
    assert [(event["depth"], event["breadth"], len(event["kept"])) for event in steps] == [
        (1, 2, 1),
        (2, 2, 1),
        (3, 2, 1),
    ]
    assert told.stop_reason == "complete"
    assert reason(QUESTION, StepSearch(2, 2), Scripted(["on\n", "and\n"])).stop_reason == "depth"


def test_annealing_goes_from_bold_to_careful() -> None:
    generate = Scripted(["a\n", "b\n", "c\n", "d\n", "#### 20"])
    told = reason(QUESTION, TemperatureAnneal(1.0, 0.4, steps=4), generate)
    assert told.text == "a\nb\nc\nd\n#### 20"
    assert [round(ask.temperature, 2) for ask in generate.asks] == [1.0, 0.8, 0.6, 0.4, 0.4]


def test_a_route_follows_the_classifier_unless_told_otherwise() -> None:
    assert [by_numbers(text).level for text in ("2 and 3", "1 2 3 4", "1 2 3 4 5 6")] == ["easy", "medium", "hard"]
    route = Route(lambda question: Level("easy" if len(question) < 10 else "hard", "by length"))
    assert [
        event["strategy"]
        for event in reason("2 + 2?", route, Scripted(["#### 4"])).record
        if event["event"] == "routed"
    ] == ["single"]
    told = reason("2 + 2?", route, Scripted(["#### 4"]), level="medium")
    routed = next(event for event in told.record if event["event"] == "routed")
    assert (routed["strategy"], routed["by"], routed["reason"]) == ("self_consistency", "the caller", "asked for")
    with pytest.raises(UserError, match="no strategy for level"):
        reason("2 + 2?", route, Scripted(["#### 4"]), level="impossible")


@pytest.mark.promise("reasoning", "All branches of a question together never take more tokens than its budget")
@pytest.mark.parametrize("strategy", STRATEGIES, ids=by_name)
@settings(max_examples=60, deadline=None)
@given(
    budget=st.integers(1, 60),
    max_tokens=st.integers(1, 25),
    thinking=st.none() | st.integers(0, 10),
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    lines=st.booleans(),
)
def test_the_budget_is_never_exceeded(
    strategy: object, budget: int, max_tokens: int, thinking: int | None, lengths: list[int], lines: bool
) -> None:
    texts = [" ".join(["word"] * length) + ("\nmore" if lines else "") for length in lengths]
    generate = Scripted(texts)
    told = reason(QUESTION, strategy, generate, budget_tokens=budget, limits=Limits(max_tokens, 0.8, thinking))
    assert told.tokens <= budget
    assert told.tokens == sum(event["tokens"] for event in told.record if event["event"] == "branch")
    assert (told.text is None) == (told.branches == 0 or told.record[-1]["branch"] is None)
    if told.text is None:
        assert told.stop_reason == "budget"


def test_the_best_so_far_is_returned_when_the_budget_ends() -> None:
    generate = Scripted(["one two #### 20"])
    told = reason(QUESTION, SelfConsistency(9), generate, budget_tokens=10, limits=Limits(max_tokens=4))
    assert (told.answer, told.stop_reason, told.tokens) == ("20", "budget", 10)
    assert [ask.max_tokens for ask in generate.asks] == [4, 4, 2]
    told = reason(QUESTION, Single(), Scripted(["one two three four five #### 20"]), budget_tokens=3)
    assert (told.text, told.stop_reason) == ("one two three", "budget")
    assert reason(QUESTION, Single(), generate, budget_tokens=500).stop_reason == "complete"


def test_a_model_that_does_not_end_by_itself_is_stopped() -> None:
    endless = Scripted(["#### 20\n\nThe next question: 3 + 4?"])
    assert reason(QUESTION, Single(), endless, limits=Limits(stop=("\n\n",))).text == "#### 20"
    stepwise = Scripted(["first\n", "#### 20\n", "\nThe next question: 3 + 4?"])
    told = reason(QUESTION, TemperatureAnneal(), stepwise, limits=Limits(stop=("\n\n",)))
    assert (told.answer, told.branches) == ("20", 3)


def test_a_server_that_writes_more_than_it_was_asked_is_an_error() -> None:
    with pytest.raises(CaslonError, match="no budget can be held"):
        reason(QUESTION, Single(), lambda asks: [Written("much", 600, "stop")])


@pytest.mark.promise(
    "reasoning", "Same seeds, same record, whatever the strategy; every branch in it has its seed, text and tokens"
)
@pytest.mark.parametrize("strategy", STRATEGIES, ids=by_name)
def test_the_record_repeats(strategy: object) -> None:
    first, again, other = (reason(QUESTION, strategy, noisy("20", 0.5), seed=seed).record for seed in (3, 3, 4))
    assert json.dumps(first) == json.dumps(again)
    assert json.dumps(first) != json.dumps(other)
    assert (first[0]["event"], first[-1]["event"]) == ("asked", "stopped")
    branches = [event for event in first if event["event"] == "branch"]
    assert {"seed", "text", "thinking", "tokens", "temperature", "finish_reason", "answer"} <= set(branches[0])
    assert [event["branch"] for event in branches] == list(range(len(branches)))


def test_thinking_and_answer_share_what_is_left_in_proportion() -> None:
    ask = Ask("p", 0, max_tokens=10, temperature=0, thinking_budget=30)
    assert ask.total_tokens == 42
    assert ask.within(42) is ask
    cut = ask.within(22)
    assert (cut.max_tokens, cut.thinking_budget, cut.total_tokens) == (5, 15, 22)
    assert ask.within(2) is None
    thought = Branch(0, ask, Written("answer", 5, "stop", thinking="hm", logprobs=(-1.0,)))
    assert Branch(1, ask, Written("more", 1, "stop", logprobs=(-3.0,)), thought).mean_logprob == -2
    assert thought.trace == "hm\nanswer"
