"""Questions with their right answers: from a file of JSON lines, or sums in words that are made here, as many as wanted."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from caslon.errors import UserError
from caslon.reasoning.answers import final_answer, normal

ARITHMETIC = "arithmetic"
STEPS = (2, 3, 4, 5, 6)  # operations of a made question; all lengths come equally often
LARGEST_NUMBER = 20
LARGEST_FACTOR = 5
OPERATIONS: dict[str, tuple[str, Callable[[int, int], int], int]] = {
    "add": ("+", lambda left, right: left + right, LARGEST_NUMBER),
    "subtract": ("-", lambda left, right: left - right, LARGEST_NUMBER),
    "multiply by": ("*", lambda left, right: left * right, LARGEST_FACTOR),
}


@dataclass(frozen=True)
class Item:
    """A question, its right answer in normal form, and, where it was made here, a solution step by step."""

    question: str
    answer: str
    solution: str = ""


def read_task(task: str, questions: int, seed: int) -> list[Item]:
    """Return the first `questions` items of a file, or so many made by the seed where the task is called "arithmetic"."""
    if task == ARITHMETIC:
        return arithmetic(questions, seed)
    path = Path(task)
    if not path.is_file():
        raise UserError(f"no file {path}", where="TASK", fix=f"give a file of JSON lines, or: {ARITHMETIC}")
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    if not lines:
        raise UserError("the task has no questions", where=str(path))
    return [_item(line, f"{path}, line {number}") for number, line in enumerate(lines[:questions], start=1)]


def arithmetic(count: int, seed: int) -> list[Item]:
    """Return sums in words, as in "Start with 2; add 3; multiply by 4. What is the result?", the same for the same seed."""
    draws = random.Random(f"arithmetic {seed}")  # noqa: S311  repeatable
    return [_made(draws, STEPS[number % len(STEPS)]) for number in range(count)]


def _made(draws: random.Random, steps: int) -> Item:
    value = draws.randint(2, LARGEST_NUMBER)
    question, lines = [f"Start with {value}"], []
    for _ in range(steps):
        word = draws.choice([word for word in OPERATIONS if value > 2 or word != "subtract"])  # never below 1
        sign, compute, most = OPERATIONS[word]
        number = draws.randint(2, min(most, value - 1) if word == "subtract" else most)
        result = compute(value, number)
        question.append(f"{word} {number}")
        lines.append(f"{value} {sign} {number} = {result}")
        value = result
    solution = "\n".join([*lines, f"Answer: {value}"])
    return Item(f"{'; '.join(question)}. What is the result?", str(value), solution)


def _item(line: str, where: str) -> Item:
    try:
        fields = json.loads(line)
        question, answer = fields["question"], str(fields["answer"])
    except (ValueError, TypeError, KeyError) as error:
        raise UserError('each line is a JSON object with a "question" and an "answer"', where=where) from error
    if not isinstance(question, str) or not answer.strip():
        raise UserError("question and answer are texts", where=where)
    # GSM8K's answers are whole solutions with the answer behind a mark.
    return Item(question, (final_answer(answer) if "####" in answer else None) or normal(answer))
