"""Curves of accuracy against tokens, their verdicts, and the plan made from them."""

import json
import random
from pathlib import Path

import pytest
from scripted import Scripted, noisy

from caslon.errors import UserError
from caslon.reasoning.branch import Ask
from caslon.reasoning.checking import ArithmeticSteps
from caslon.reasoning.controller import PLAIN, reason
from caslon.reasoning.curve import Curve, Point, difference, measure, verdicts
from caslon.reasoning.measurement import Measuring
from caslon.reasoning.planner import Setting, Traces, Weights, attention_compute, knee, plan
from caslon.reasoning.routing import Route
from caslon.reasoning.stepwise import StepSearch
from caslon.reasoning.strategies import Single
from caslon.reasoning.task import Item, arithmetic, read_task
from caslon.reasoning.voting import SelfConsistency
from caslon.reasoning.work import Limits

ITEMS = arithmetic(40, seed=1)
ANSWERS = {item.question: item.answer for item in ITEMS}


def point(budget: int, right: list[bool], tokens: list[int]) -> Point:
    return Point(budget, tuple(right), tuple(tokens), tuple(Traces(1, 0, one) for one in tokens), 0)


def guessing(share_right: float, words: int = 19) -> Scripted:
    """Answers in 20 tokens, right in a share of the answers that the seed alone decides."""

    def script(ask: Ask, _number: int) -> str:
        draw = random.Random(ask.seed)
        right = ANSWERS[ask.prompt.strip()]
        return "well " * words + (right if draw.random() < share_right else str(draw.randrange(10_000)))

    return Scripted(script)


def measuring(generate: Scripted, budgets: tuple[int, ...] = (25, 120)) -> Measuring:
    return Measuring(generate, ITEMS, budgets, Limits(max_tokens=25), PLAIN, seed=7)


def test_a_curve_has_intervals_areas_and_the_price_of_a_right_answer() -> None:
    curve = Curve("x", (point(100, [True, False], [50, 50]), point(200, [True, True], [60, 140])))
    assert [one.accuracy for one in curve.points] == [0.5, 1.0]
    assert curve.points[0].tokens_per_correct_answer == 100
    assert curve.points[0].interval == pytest.approx((0.0945, 0.9055), abs=1e-3)
    assert curve.at(0) == [0, 0]
    assert curve.at(75) == [1, 0.5]
    assert curve.at(1000) == [1, 1]
    # 0 to 50 rises from 0 to 0.5, 50 to 100 from 0.5 to 1, then stays there.
    assert curve.area(200) == pytest.approx((12.5 + 37.5 + 100) / 200)


@pytest.mark.promise("reasoning", "Tokens per right answer are none, not 0, where no answer was right")
def test_no_right_answer_costs_no_number() -> None:
    assert point(100, [False, False], [50, 50]).tokens_per_correct_answer is None


@pytest.mark.promise(
    "reasoning", "What more tokens or routing do is told whichever way it went: better, worse, or not shown"
)
def test_verdicts_are_told_whichever_way_they_went() -> None:
    few, many = [True] * 10 + [False] * 30, [True] * 30 + [False] * 10
    assert difference("x", many, few).sentence.endswith("better")
    told = difference("x", few, many).sentence
    assert told.startswith("x: 25.0% against 75.0% (-50.0 points, 95 % interval")
    assert told.endswith("WORSE")
    assert difference("x", few, few).sentence.endswith("no difference shown")
    assert "no verdict" in difference("x", [True], [False]).sentence


def test_voting_helps_a_model_that_is_more_often_right_than_wrong_and_no_other() -> None:
    voted = measuring(guessing(0.5)).measured([SelfConsistency(5)], 1, Weights(), lambda _name: None)
    assert voted.verdicts[0].sentence.endswith("better")
    assert voted.curves[0].points[0].mean_tokens <= 25
    hopeless = measuring(guessing(0.0)).measured([SelfConsistency(5)], 1, Weights(), lambda _name: None)
    assert hopeless.verdicts[0].sentence.endswith("no difference shown")
    assert hopeless.to_json()["curves"][0]["points"][0]["tokens_per_correct_answer"] is None
    assert hopeless.curves[0].area(120) == 0


def test_a_route_is_set_beside_the_uniform_strategy_at_equal_tokens() -> None:
    strategies = [SelfConsistency(5), Route()]
    measured = measuring(guessing(0.6)).measured(strategies, 2, Weights(), lambda _name: None)
    routed = [verdict for verdict in measured.verdicts if "for all" in verdict.what]
    uniform, route = measured.curves
    assert len(routed) == len(route.points) == 2
    assert routed[1].other_accuracy == pytest.approx(sum(uniform.at(route.points[1].mean_tokens)) / len(ITEMS))
    again = measuring(guessing(0.6)).measured(strategies, 2, Weights(), lambda _name: None)
    assert again.to_json()["curves"] == measured.to_json()["curves"]
    with pytest.raises(UserError):
        measure("x", lambda *_: None, ITEMS, [200, 100], 0)
    assert verdicts(uniform, None)[0].what == "self_consistency with 120 tokens instead of 25"


@pytest.mark.promise("reasoning", "A trace twice as long costs four times the attention, twice as many branches twice")
def test_the_planner_sweeps_and_shows_the_knee() -> None:
    once = attention_compute(width=3, trace_tokens=500, layers=12)
    assert once == 3 * 500**2 * 12
    assert attention_compute(3, 1000, 12) == 4 * once
    assert attention_compute(6, 500, 12) == 2 * once
    settings = [
        Setting("a", 1, 50, 50, 0.40),
        Setting("b", 1, 150, 50, 0.70),
        Setting("c", 1, 350, 50, 0.72),
        Setting("d", 1, 750, 50, 0.73),
    ]
    planned = plan(settings, 10, 0.01, Weights(compute=0.01, latency=0.01, accuracy=1))
    assert [one.setting.name for one in planned] == ["a", "b", "c", "d"]
    assert [one.setting.name for one in planned if one.is_knee] == ["b"]
    costs = [
        0.01 * 10 * length**2 / 1e6 + 0.01 * 0.01 * length - gain
        for length, gain in [(100, 0.4), (200, 0.7), (400, 0.72), (800, 0.73)]
    ]
    assert [one.cost for one in planned] == pytest.approx(costs)
    assert [one.is_best for one in planned] == [cost == min(costs) for cost in costs]
    impatient = plan(settings, 10, 0.01, Weights(compute=0, latency=1, accuracy=1))
    assert [one.setting.name for one in impatient if one.is_best] == ["a"]
    assert knee([1, 2, 3], [0.1, 0.1, 0.1]) is None
    assert knee([1, 2, 3], [0.1, 0.2, 0.3]) is None


def test_traces_follow_branches_to_their_ends() -> None:
    told = reason("x", SelfConsistency(3), Scripted(["#### 1"]))
    assert Traces.of(told.record) == Traces(2, 0, 2)
    told = reason("x", StepSearch(1, 3, tries=1), Scripted(["a b\n", "c\n", "#### 1"]))
    assert Traces.of(told.record) == Traces(1, 0, 2 + 1 + 2)


def test_sums_in_words_are_right_and_their_solutions_pass_the_check() -> None:
    made = arithmetic(60, seed=3)
    assert made == arithmetic(60, seed=3) != arithmetic(60, seed=4)
    check = ArithmeticSteps(known_numbers=True)
    assert all(check(item.question, item.solution).passed for item in made)
    assert {item.solution.count("=") for item in made} == {2, 3, 4, 5, 6}


def test_a_task_file_is_read_and_its_mistakes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "task.jsonl"
    lines = [
        {"question": "2 + 2?", "answer": "2 + 2 = 4\n#### 4"},
        {"question": "capital of France?", "answer": "Paris"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    assert read_task(str(path), 10, 0) == [Item("2 + 2?", "4"), Item("capital of France?", "paris")]
    assert len(read_task(str(path), 1, 0)) == 1
    path.write_text('{"question": "x"}')
    with pytest.raises(UserError, match="line 1"):
        read_task(str(path), 10, 0)
    with pytest.raises(UserError, match="no file"):
        read_task("nothing.jsonl", 10, 0)


def test_a_single_answer_is_right_or_wrong_by_its_last_number() -> None:
    curve = measure(
        "single",
        lambda item, budget, seed: reason(
            item.question, Single(), noisy(item.answer, 1.0), budget_tokens=budget, seed=seed
        ),
        ITEMS,
        [10],
        0,
    )
    assert curve.points[0].accuracy == 1
