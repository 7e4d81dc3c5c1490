"""Short answers in long ones, and steps computed anew."""

import pytest
from scripted import Scripted

from caslon.reasoning.answers import final_answer
from caslon.reasoning.checking import ArithmeticSteps, computed, steps_of
from caslon.reasoning.controller import reason
from caslon.reasoning.strategies import Single

QUESTION = "Start with 12; add 8; multiply by 2; subtract 5; add 10; add 5. What is the result?"
RIGHT = "12 + 8 = 20\n20 * 2 = 40\n40 - 5 = 35\n35 + 10 = 45\n45 + 5 = 50\nAnswer: 50"
# The third step is wrong by one, the fifth by one the other way: the answer is right.
CANCELS = "12 + 8 = 20\n20 * 2 = 40\n40 - 5 = 34\n34 + 10 = 44\n44 + 5 = 50\nAnswer: 50"
# The third step copies a number wrongly, the fifth brings in another that makes up for it: every equation is true.
COPIES = "12 + 8 = 20\n20 * 2 = 40\n40 - 6 = 34\n34 + 10 = 44\n44 + 6 = 50\nAnswer: 50"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so 3 and 4 make\n#### 1,234.50", "1234.5"),
        (r"thus \boxed{12}.", "12"),
        ("The answer is $1,200.\nThank you 7 times", "1200"),
        ("Answer: 18\nAnswer: 20", "20"),
        ("**Answer:** 42 apples", "42"),
        ("12 - 5 = 7", "7"),
        ("answer: Paris.", "paris"),
        ("I do not know", None),
        ("#### 20.0", "20"),
    ],
)
def test_the_final_answer_is_found(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2 + 3 * 4", 14),
        ("(2+3)×4", 20),
        ("1,200 ÷ 3", 400),
        ("$5 * 2", 10),
        ("2 ** 99", None),
        ("1/0", None),
        ("9" * 300, None),
    ],
)
def test_expressions_are_computed_exactly_or_not_at_all(expression: str, value: int | None) -> None:
    assert computed(expression) == value


def test_steps_are_found_in_lines_with_and_without_labels() -> None:
    text = "Step 1: 12 + 8 = 20\n2. We have 20 * 2 = 40 apples\nnothing here, x = 3\n3) 1/3 = 0.33, then 2 + 2 = 4"
    assert [(step.expression, step.result) for step in steps_of(text)] == [
        ("12 + 8", "20"),
        ("20 * 2", "40"),
        ("1/3", "0.33"),
        ("2 + 2", "4"),
    ]
    assert ArithmeticSteps()("", text).passed
    assert not ArithmeticSteps()("", "1/3 = 0.34").passed
    assert not ArithmeticSteps()("", "10/3 = 3").passed


@pytest.mark.promise(
    "reasoning", "A right answer reached by a wrong step that a later one cancels is withheld, and the step is named"
)
def test_slips_that_cancel_are_caught() -> None:
    gate = ArithmeticSteps()
    assert reason(QUESTION, Single(), Scripted([RIGHT]), gate=gate).shown == RIGHT
    told = reason(QUESTION, Single(), Scripted([CANCELS]), gate=gate)
    assert told.shown.startswith("withheld: step 3 fails")
    assert (told.text, told.answer) == (None, None)
    assert final_answer(CANCELS) == final_answer(RIGHT) == "50"
    assert told.record[-1]["withheld"] == "step 3 fails: 40 - 5 is 35, not 34"
    assert reason(QUESTION, Single(), Scripted([CANCELS])).answer == "50"  # without the gate nobody notices

    assert gate(QUESTION, COPIES).passed  # each equation is true
    verdict = ArithmeticSteps(known_numbers=True)(QUESTION, COPIES)
    assert (verdict.fails_at_step, verdict.score) == (3, 0.4)
    assert verdict.sentence == "step 3 fails: 6 stands neither in the question nor in an earlier step"
    assert ArithmeticSteps(known_numbers=True)(QUESTION, RIGHT).passed


def test_what_cannot_be_checked_is_withheld_too() -> None:
    assert reason(QUESTION, Single(), Scripted(["50"]), gate=ArithmeticSteps()).shown == (
        "withheld: no step in it can be checked"
    )
    verdict = ArithmeticSteps()(QUESTION, "12 + 8 = 20\nAnswer: 50")
    assert (verdict.passed, verdict.reason) == (False, "the answer 50 is the result of no step")
