"""A written solution to a verdict on it: each arithmetic step is computed anew, so that a right answer cannot hide a wrong step.

Two slips that cancel each other give the right answer by the wrong way; whoever looks at the answer alone never sees it.
"""

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from caslon.reasoning.answers import NUMBER, final_answer, normal

LONGEST_EXPRESSION = 200  # characters; what is longer is no step of an argument
LABEL = re.compile(r"^\s*(?:step\s*)?\d+\s*[.):](?!\d)\s*", re.IGNORECASE)
EQUATION = re.compile(rf"([\d.,\s()$*/×÷+−-]*\d[\d.,\s()$*/×÷+−-]*)=\s*\$?({NUMBER.pattern})")
OPERATORS: Mapping[type[ast.AST], Callable[..., Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


@dataclass(frozen=True)
class Verdict:
    """What a checker says of a solution. `score` is 1 for one that passes, below 1 for any other; steps count from 1."""

    passed: bool
    score: float
    fails_at_step: int | None = None
    reason: str = ""

    @property
    def sentence(self) -> str:
        """The verdict in a few words."""
        if self.passed:
            return "passes"
        if self.fails_at_step is None:
            return self.reason or "fails"
        return f"step {self.fails_at_step} fails: {self.reason}"


Verifier = Callable[[str, str], Verdict]  # of a question and a solution


@dataclass(frozen=True)
class Step:
    """One equation of a solution: what is computed, and what is said to come out."""

    expression: str
    result: str


@dataclass(frozen=True)
class ArithmeticSteps:
    """Checks every equation of a solution, and that its answer is the result of one of them.

    With `known_numbers` each number must stand in the question or be an earlier result. That finds numbers copied wrongly,
    but also refuses solutions that rightly bring in a number of their own, such as the days of a week.
    """

    known_numbers: bool = False
    name: str = "arithmetic steps"

    def __call__(self, question: str, solution: str) -> Verdict:
        """Return the verdict; a solution without any equation fails, for nothing in it can be checked."""
        steps = list(steps_of(solution))
        if not steps:
            return Verdict(False, 0.0, None, "no step in it can be checked")
        known = {abs(_value(number)) for number in NUMBER.findall(question)}  # "8-3" has a 3, whatever its sign
        for number, step in enumerate(steps, start=1):
            problem = self._problem(step, known)
            if problem:
                return Verdict(False, (number - 1) / len(steps), number, problem)
            known.add(abs(_value(step.result)))
        answer = final_answer(solution)
        if answer not in {normal(step.result) for step in steps}:
            return Verdict(False, 0.99, None, f"the answer {answer} is the result of no step")
        return Verdict(True, 1.0)

    def _problem(self, step: Step, known: set[Fraction]) -> str | None:
        value = computed(step.expression)
        if value is None:
            return f"'{step.expression}' cannot be computed"
        if not _same(value, step.result):
            return f"{step.expression} is {_shown(value)}, not {step.result}"
        foreign = [number for number in _operands(step.expression) if _value(number) not in known]
        if self.known_numbers and foreign:
            return f"{foreign[0]} stands neither in the question nor in an earlier step"
        return None


def steps_of(solution: str) -> Iterator[Step]:
    """Yield the equations of a solution, in order. A line "7 = 7" that computes nothing is no step."""
    for line in solution.splitlines():
        for expression, result in EQUATION.findall(LABEL.sub("", line)):
            plain = expression.strip(" ,.")
            if len(_operands(plain)) > 1:
                yield Step(plain, result)


def computed(expression: str) -> Fraction | None:
    """Return the exact value of an expression of numbers, + - * / and brackets; None for anything else."""
    plain = expression.replace("×", "*").replace("÷", "/").replace("−", "-").replace("$", "")
    plain = re.sub(r"(?<=\d),(?=\d{3})", "", plain)
    if len(plain) > LONGEST_EXPRESSION:
        return None
    try:
        return _evaluated(ast.parse(plain.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError):
        return None


def _evaluated(node: Any) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return Fraction(str(node.value))
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_evaluated(node.left), _evaluated(node.right))
    if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_evaluated(node.operand))
    raise ValueError("no arithmetic")


def _operands(expression: str) -> list[str]:
    return [number.lstrip("-") for number in NUMBER.findall(expression)]


def _same(value: Fraction, result: str) -> bool:
    """Return whether a result is right; one with decimals may be rounded to them, a whole one may not."""
    decimals = len(result.partition(".")[2])
    tolerance = Fraction(1, 2 * 10**decimals) if decimals else 0
    return abs(value - _value(result)) <= tolerance


def _value(number: str) -> Fraction:
    return Fraction(number.replace(",", ""))


def _shown(value: Fraction) -> str:
    return str(value) if value.denominator == 1 else f"{float(value):g}"
