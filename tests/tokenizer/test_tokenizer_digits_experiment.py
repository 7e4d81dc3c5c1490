import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from caslon.observe.events import EventLog
from caslon.report.shares import wilson_interval
from caslon.tokenizer.train import TrainingSettings, train_tokenizer
from caslon.train import digits
from caslon.train.digits import (
    MODES,
    OPERATIONS,
    VOCAB_SIZE,
    DigitsSettings,
    Encoded,
    Problem,
    draw_problem,
    encode_problems,
    exact_matches,
    problem_batch,
    run_digits,
    small_decoder,
    training_problems,
)
from caslon.train.digits import test_problems as held_out_problems
from caslon.train.digits_report import conclusion, difference_interval, summary, write_digits_report

TINY = DigitsSettings(steps=3, batch=8, seeds=2, lengths=2, tests_per_cell=3, width=32, layers=1)


def test_problems_are_right_and_of_their_length() -> None:
    draw = random.Random(1)
    for _ in range(2_000):
        for operation, sign in OPERATIONS.items():
            length = draw.randint(1, 6)
            problem = draw_problem(draw, operation, length)
            first, second = map(int, problem.question.rstrip("=").split(sign))
            value = {"+": first + second, "-": first - second, "*": first * second}
            assert int(problem.answer) == (first // second if sign == "/" else value[sign])
            assert sign != "/" or first % second == 0
            assert int(problem.answer) >= 0
            assert max(len(str(first)), len(str(second))) == length


def test_training_never_sees_a_test_problem_in_either_order() -> None:
    settings = replace(DigitsSettings(), steps=100)
    tests = held_out_problems(settings)
    assert len({problem.question for problem in tests}) == len(tests) == 4 * (15 + 5 * 40)
    training = training_problems(settings, 1, tests)
    assert len(training) == 12_800
    questions = {problem.question for problem in training}
    for problem in tests:
        assert problem.question not in questions
        for sign in "+*":
            if sign in problem.question:
                one, other = problem.question.rstrip("=").split(sign)
                assert f"{other}{sign}{one}=" not in questions
    assert training == training_problems(settings, 1, tests)
    assert training != training_problems(settings, 2, tests)


def test_a_batch_scores_answers_only() -> None:
    batch = problem_batch([Encoded((5, 6), (7, 1)), Encoded((5, 6, 8), (9, 9, 1))], 0)
    assert batch.ids.tolist() == [[5, 6, 7, 1, 0], [5, 6, 8, 9, 9]]
    assert batch.targets.tolist() == [[6, 7, 1, 0, 0], [6, 8, 9, 9, 1]]
    assert batch.scored.tolist() == [[False, True, True, False, False], [False, False, True, True, True]]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_the_problem_back_and_the_default_model_has_a_million_parameters(mode: str) -> None:
    settings = replace(DigitsSettings(), steps=8)
    problems = training_problems(settings, 1, [])
    texts = [problem.question + problem.answer for problem in problems]
    tokenizer = train_tokenizer(texts, settings=TrainingSettings(vocab_size=VOCAB_SIZE, digits=mode))
    for problem, encoded in zip(problems[:200], encode_problems(tokenizer, problems), strict=False):
        assert tokenizer.decode(encoded.question) == problem.question
        assert tokenizer.decode(encoded.answer) == problem.answer + "<|endoftext|>"
        assert len(encoded.question) + len(encoded.answer) <= digits.LONGEST_PROBLEM
    parameters = sum(p.numel() for p in small_decoder(settings, tokenizer.vocab_size, 1).parameters())
    assert 800_000 < parameters < 1_100_000


def test_the_experiment_runs_is_kept_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("plotly", reason="plotly (extra `report`) is not installed")
    numbers = run_digits(tmp_path, TINY, modes=("single", "groups3"), events=EventLog(None))
    assert {mode: len(runs) for mode, runs in numbers["runs"].items()} == {"single": 2, "groups3": 2}
    assert not (tmp_path / "work").exists()
    single, groups = numbers["runs"]["single"][0], numbers["runs"]["groups3"][0]
    assert single["parameters_outside_the_table"] == groups["parameters_outside_the_table"]
    assert single["tokens_per_problem"] > groups["tokens_per_problem"]

    def refused(*_: object) -> dict[str, object]:
        raise AssertionError("a finished run was trained again")

    monkeypatch.setattr(digits, "_run", refused)
    assert run_digits(tmp_path, TINY, modes=("single", "groups3")) == numbers
    found = write_digits_report(tmp_path, numbers)
    assert json.loads((tmp_path / "report.json").read_text()) == json.loads(json.dumps(found))
    assert found["conclusion"] in (tmp_path / "report.html").read_text()
    cells = [cell for cell in found["cells"] if cell["mode"] == "single"]
    assert len(cells) == 4 * (2 + 1) + 1
    assert (
        sum(cell["answers"] for cell in cells if cell["length"]) == cells[-1]["answers"] == 2 * len(numbers["problems"])
    )


def test_a_model_that_knows_the_answers_scores_them() -> None:
    """A decoder trained on four problems by hand must get those right and others wrong."""
    import torch

    torch.manual_seed(0)
    tests = [Encoded((5, 6), (7, 8, 1)), Encoded((6, 5), (8, 1)), Encoded((5, 5), (1,))]
    decoder = small_decoder(TINY, 16, 1)
    optimizer = torch.optim.Adam(decoder.parameters(), 0.01)
    batch = problem_batch(tests, 0)
    for _ in range(150):
        loss = torch.nn.functional.cross_entropy(
            decoder.logits(decoder(batch.ids))[batch.scored], batch.targets[batch.scored]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    wrong = Encoded((5, 6), (7, 8, 8, 1))
    assert exact_matches(decoder, [*tests, wrong], 1) == [True, True, True, False]


def test_wilson_intervals() -> None:
    low, high = wilson_interval(8, 10)
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)  # Newcombe 1998's method 3
    assert wilson_interval(0, 10)[0] == 0
    assert wilson_interval(10, 10)[1] == pytest.approx(1)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_a_difference_is_claimed_only_when_its_interval_leaves_zero_out() -> None:
    draw = np.random.default_rng(0)
    good, bad = draw.random((3, 200)) < 0.8, draw.random((3, 200)) < 0.4
    low, high = difference_interval(good, bad)
    assert 0.2 < low < 0.4 < high < 0.6
    same = difference_interval(good, draw.random((3, 200)) < 0.8)
    assert same[0] < 0 < same[1]

    def row(interval: tuple[float, float]) -> dict[str, object]:
        return {"one": "single", "other": "none", "difference": sum(interval) / 2, "interval": list(interval)}

    assert conclusion([row((-0.1, 0.1))], 3).startswith("No difference")
    assert (
        conclusion([row((0.1, 0.3))], 3) == "single solves more than none, by 20.0% of the problems (10.0% to 30.0%)."
    )
    assert conclusion([row((-0.3, -0.1)), row((-0.1, 0.1))], 3).startswith("none solves more than single, by 20.0%")
    assert conclusion([row((0.1, 0.3))], 1).startswith("No conclusion")


def test_a_summary_counts_right_answers() -> None:
    problems = [Problem("addition", 1, "1+1=", "2"), Problem("division", 2, "10/5=", "2")]
    run = {"vocab_size": 9, "parameters": 1, "tokens_per_problem": 5.0}
    numbers = {
        "settings": {"seeds": 2},
        "problems": [vars(problem) for problem in problems],
        "runs": {"single": [{**run, "right": [True, False]}, {**run, "right": [True, True]}]},
    }
    found = summary(numbers)
    assert found["modes"][0]["seeds"] == [0.5, 1.0]
    overall = found["cells"][-1]
    assert (overall["right"], overall["answers"], overall["share"]) == (3, 4, 0.75)
    division = next(c for c in found["cells"] if c["operation"] == "division" and c["length"] == 2)
    assert (division["right"], division["answers"]) == (1, 2)
