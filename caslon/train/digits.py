"""Does it matter for arithmetic how a tokenizer cuts numbers? Four digit modes to exact-match shares with intervals.

The same small decoder learns the same problems in the same order for the same steps; only the tokenizer's digit mode differs
(compare arXiv:2402.14903, where grouping from the right did better at inference). Test problems, also with their operands
exchanged, never occur in training. Results of a finished run are kept, so that a stopped experiment goes on.
"""

import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from caslon.folders import digest_of, write_atomic
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.model.folder import save_model_folder
from caslon.observe.events import EventLog
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.tokenizer.train import TrainingSettings, train_tokenizer
from caslon.train.batches import Batch, random_order, row_numbers
from caslon.train.checkpoint import Checkpoints
from caslon.train.objectives import NextToken
from caslon.train.plan import Defaults, TrainPlan, make_plan
from caslon.train.precision import Compute, choose_compute
from caslon.train.settings import DeviceSettings, OptimizationSettings, UpkeepSettings
from caslon.train.trainer import Trainer

MODES = ("none", "single", "groups3", "groups3_right")
OPERATIONS = {"addition": "+", "subtraction": "-", "multiplication": "*", "division": "/"}
VOCAB_SIZE = 1_536  # holds the 1,110 strings of one to three digits that the group modes guarantee
LONGEST_PROBLEM = 32  # tokens: 6 + 1 + 6 + 1 + 12 digits and the end
TEST_SEED = 1_834
NEW_TOKENS = 14
EVALUATED_AT_ONCE = 512


@dataclass(frozen=True)
class DigitsSettings:
    """The size of the experiment; the defaults end within 30 minutes on two cores."""

    steps: int = 500
    batch: int = 128
    seeds: int = 3
    lengths: int = 6  # digits of the longer operand, one to this many
    tests_per_cell: int = 40  # problems of one operation and length
    learning_rate: float = 0.004
    width: int = 128
    layers: int = 4


@dataclass(frozen=True)
class Problem:
    """One problem; `length` is the number of digits of its longer operand."""

    operation: str
    length: int
    question: str
    answer: str


def draw_problem(draw: random.Random, operation: str, length: int) -> Problem:
    """Return a random problem: results are whole and not negative, divisions have no rest."""
    low, high = (10 ** (length - 1), 10**length - 1) if length > 1 else (0, 9)
    first, second = draw.randint(low, high), draw.randint(low, high)
    if operation == "subtraction":
        first, second = max(first, second), min(first, second)
    if operation == "division":
        second = draw.randint(1, 10 ** draw.randint(1, length) - 1)
        quotient = draw.randint(-(-low // second), max(high // second, 1))
        first = second * quotient
    value = {
        "addition": first + second,
        "subtraction": first - second,
        "multiplication": first * second,
        "division": first // max(second, 1),
    }[operation]
    return Problem(operation, length, f"{first}{OPERATIONS[operation]}{second}=", str(value))


def test_problems(settings: DigitsSettings) -> list[Problem]:
    """Return the test set: distinct problems by operation and length, at most a third of the one-digit ones there are."""
    draw = random.Random(TEST_SEED)  # noqa: S311 (test material)
    found: dict[str, Problem] = {}
    for operation in OPERATIONS:
        for length in range(1, settings.lengths + 1):
            wanted = settings.tests_per_cell if length > 1 else min(settings.tests_per_cell, 15)
            cell: dict[str, Problem] = {}
            while len(cell) < wanted:
                problem = draw_problem(draw, operation, length)
                cell[problem.question] = problem
            found |= cell
    return list(found.values())


def training_problems(settings: DigitsSettings, seed: int, held_out: Sequence[Problem]) -> list[Problem]:
    """Return as many problems as a run sees, none of the test set, operations and lengths equally often."""
    draw = random.Random(seed)  # noqa: S311
    forbidden = {question for problem in held_out for question in _orders(problem.question)}
    found: list[Problem] = []
    cells = [(operation, length) for operation in OPERATIONS for length in range(1, settings.lengths + 1)]
    while len(found) < settings.steps * settings.batch:
        problem = draw_problem(draw, *draw.choice(cells))
        if problem.question not in forbidden:
            found.append(problem)
    return found


def _orders(question: str) -> tuple[str, ...]:
    """Return a question, and with its operands exchanged where that is the same sum or product."""
    for sign in "+*":
        if sign in question:
            first, second = question.rstrip("=").split(sign)
            return question, f"{second}{sign}{first}="
    return (question,)


@dataclass(frozen=True)
class Encoded:
    """A problem as ids; the answer and the end are learned."""

    question: tuple[int, ...]
    answer: tuple[int, ...]  # with the end-of-text id


def encode_problems(tokenizer: Tokenizer, problems: Sequence[Problem]) -> list[Encoded]:
    """Return the problems as ids, question and answer each by itself as when the model is asked."""
    questions = tokenizer.encode_batch([problem.question for problem in problems])
    answers = tokenizer.encode_batch([problem.answer for problem in problems])
    end = tokenizer.end_of_text_id
    return [Encoded(tuple(one), (*other, end)) for one, other in zip(questions, answers, strict=True)]


@dataclass(frozen=True)
class ProblemBatches:
    """One problem a row, filled up to the longest row of the batch; every problem once an epoch."""

    problems: Sequence[Encoded]
    pad_id: int
    seed: int

    @property
    def rows_per_epoch(self) -> int:
        """How many rows show every problem once."""
        return len(self.problems)

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return random_order(len(self.problems), self.seed)

    def batch(self, step: int, rows: int) -> Batch:
        """Return the `rows` problems of the 0-based `step`."""
        places = row_numbers(step, rows)
        numbers = [int(self._order[place % len(self.problems)]) for place in places]
        return problem_batch([self.problems[number] for number in numbers], self.pad_id, tuple(numbers))


def problem_batch(problems: Sequence[Encoded], pad_id: int, sources: tuple[int, ...] = ()) -> Batch:
    """Return problems as one batch in which only answers are scored."""
    width = max(len(problem.question) + len(problem.answer) for problem in problems)
    ids = np.full((len(problems), width), pad_id, dtype=np.int64)
    scored = np.zeros((len(problems), width), dtype=bool)
    for row, problem in enumerate(problems):
        begin, end = len(problem.question), len(problem.question) + len(problem.answer)
        ids[row, :end] = problem.question + problem.answer
        scored[row, begin:end] = True
    positions = np.broadcast_to(np.arange(width - 1), (len(problems), width - 1))
    return Batch(
        ids=torch.from_numpy(ids[:, :-1].copy()),
        targets=torch.from_numpy(ids[:, 1:].copy()),
        scored=torch.from_numpy(scored[:, 1:].copy()),
        positions=torch.from_numpy(positions.copy()),
        document_ids=None,
        sources=sources,
    )


def run_digits(
    folder: Path, settings: DigitsSettings, *, modes: Sequence[str] = MODES, events: EventLog | None = None
) -> dict[str, Any]:
    """Train and test every mode and seed; return the numbers of the experiment. Finished runs are taken from `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    events = events or EventLog(None)
    held_out = test_problems(settings)
    compute = choose_compute(DeviceSettings(device="cpu", precision="fp32"))
    runs: dict[str, list[dict[str, Any]]] = {mode: [] for mode in modes}
    total = settings.seeds * len(modes)
    for seed in range(1, settings.seeds + 1):
        problems = training_problems(settings, seed, held_out)
        for mode in modes:
            done = sum(map(len, runs.values()))
            events.progress("digits", done, total, "runs", f"{mode}, seed {seed}")
            run = partial(_run, folder / "work" / f"{mode}-{seed}", settings, mode, seed, problems, held_out, compute)
            runs[mode].append(_kept(folder, settings, mode, seed, run))
    events.progress("digits", total, total, "runs")
    shutil.rmtree(folder / "work", ignore_errors=True)
    return {
        "settings": asdict(settings),
        "modes": list(modes),
        "problems": [asdict(problem) for problem in held_out],
        "runs": runs,
    }


def _kept(
    folder: Path, settings: DigitsSettings, mode: str, seed: int, work: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    key = digest_of({"settings": asdict(settings), "mode": mode, "seed": seed})[:16]
    path = folder / "runs" / f"{mode}-{seed}-{key}.json"
    if path.is_file():
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return kept
    found = work()
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, json.dumps(found))
    return found


def _run(
    folder: Path,
    settings: DigitsSettings,
    mode: str,
    seed: int,
    problems: Sequence[Problem],
    held_out: Sequence[Problem],
    compute: Compute,
) -> dict[str, Any]:
    texts = [problem.question + problem.answer for problem in problems]
    tokenizer = train_tokenizer(texts, settings=TrainingSettings(vocab_size=VOCAB_SIZE, digits=mode))
    decoder = small_decoder(settings, tokenizer.vocab_size, seed)
    encoded = encode_problems(tokenizer, problems)
    plan = _plan(settings, seed)
    trainer = Trainer(
        plan,
        decoder,
        NextToken(),
        ProblemBatches(encoded, tokenizer.pad_id, seed),
        checkpoints=Checkpoints(folder / "checkpoints", plan.keep, lambda _: None),
        events=EventLog(None),
        compute=compute,
        save_model=lambda model, path, facts: save_model_folder(path, model, tokenizer, sidecar=facts),
    )
    trainer.run()
    tests = encode_problems(tokenizer, held_out)
    right = exact_matches(decoder, tests, tokenizer.end_of_text_id)
    shutil.rmtree(folder)
    return {
        "mode": mode,
        "seed": seed,
        "parameters": sum(parameter.numel() for parameter in decoder.parameters()),
        "parameters_outside_the_table": sum(parameter.numel() for parameter in decoder.parameters())
        - tokenizer.vocab_size * settings.width,
        "vocab_size": tokenizer.vocab_size,
        "train_loss": trainer.last_metrics.get("eval/train_loss"),
        "tokens_per_problem": sum(len(p.question) + len(p.answer) for p in tests) / len(tests),
        "right": right,
    }


def small_decoder(settings: DigitsSettings, vocab_size: int, seed: int) -> Decoder:
    """Return the untrained decoder, about a million parameters: the same layers for every mode, a table row for each entry."""
    config = DecoderConfig.from_depth(
        settings.layers, family="qwen3", vocab_size=vocab_size, context=LONGEST_PROBLEM, hidden_size=settings.width
    )
    decoder = Decoder(config)
    decoder.initialise(seed)
    return decoder


def _plan(settings: DigitsSettings, seed: int) -> TrainPlan:
    optimization = OptimizationSettings(
        steps=settings.steps,
        batch=settings.batch,
        context=LONGEST_PROBLEM,
        optimizer="muon",
        learning_rate=settings.learning_rate,
        weight_decay=0.01,
        min_rate_ratio=0.05,
    )
    upkeep = UpkeepSettings(eval_every=settings.steps, keep=1)
    defaults = Defaults(
        context=LONGEST_PROBLEM,
        batch=settings.batch,
        learning_rate=settings.learning_rate,
        steps=lambda _: settings.steps,
        steps_why="the experiment's",
        why="the experiment's",
        warmup_share=0.05,
    )
    plan, _ = make_plan(optimization, upkeep, defaults, seed=seed)
    return plan


@torch.no_grad()
def exact_matches(decoder: Decoder, tests: Sequence[Encoded], end_id: int) -> list[bool]:
    """Return for each problem whether the greedy answer is exactly the right one, its end included."""
    decoder.eval()
    right = [False] * len(tests)
    by_length: dict[int, list[int]] = {}
    for number, test in enumerate(tests):
        by_length.setdefault(len(test.question), []).append(number)
    for numbers in by_length.values():
        for start in range(0, len(numbers), EVALUATED_AT_ONCE):
            part = numbers[start : start + EVALUATED_AT_ONCE]
            written = _greedy(decoder, [tests[number].question for number in part], end_id)
            for number, answer in zip(part, written, strict=True):
                right[number] = answer == tests[number].answer
    return right


def _greedy(decoder: Decoder, questions: Sequence[tuple[int, ...]], end_id: int) -> list[tuple[int, ...]]:
    ids = torch.tensor(questions)  # [B, T]
    begin = ids.size(1)
    for _ in range(NEW_TOKENS):
        best = decoder.logits(decoder(ids)[:, -1]).argmax(dim=-1, keepdim=True)
        ids = torch.cat((ids, best), dim=1)
        if bool((ids[:, begin:] == end_id).any(dim=1).all()) or ids.size(1) > LONGEST_PROBLEM - 1:
            break
    rows = [tuple(row) for row in ids[:, begin:].tolist()]
    return [row[: row.index(end_id) + 1] if end_id in row else row for row in rows]
