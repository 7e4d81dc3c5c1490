"""Finished runs to a scaling law, loss = E + A/N^a + B/D^b, with bootstrap intervals, and back to losses and best sizes.

For given exponents the law is linear in E, A and B, so the fit searches exponents only: a grid, then ever finer ones around the
best point. No torch. `N` counts trained parameters, `D` tokens seen (arXiv:2203.15556, approach 3, there with a Huber loss).
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caslon.errors import UserError
from caslon.folders import MANIFEST, PARTIAL, StageFolder, write_atomic
from caslon.train.plan import TOKENS_PER_PARAMETER

FEWEST_RUNS = 5  # as many as the law has constants
EXPONENTS = (0.02, 1.5)
GRID = 33
REFINEMENTS = 14
DRAWS = 200
CONFIDENCE = 0.95
TRUSTED_FACTOR = 10.0  # beyond this many times the largest run a prediction is an extrapolation
FLOP_PER_PARAMETER_AND_TOKEN = 6
FILE = "scaling.json"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """One finished run."""

    parameters: float
    tokens: float
    loss: float
    name: str = ""


@dataclass(frozen=True)
class Law:
    """The constants of `loss = E + A/N^a + B/D^b`."""

    E: float
    A: float
    B: float
    a: float
    b: float

    def loss(self, parameters: float, tokens: float) -> float:
        """Return the loss that the law gives for a size and a number of tokens."""
        return float(self.E + self.A / parameters**self.a + self.B / tokens**self.b)


@dataclass(frozen=True)
class Fit:
    """A law with what it was fitted to, and the laws of resampled runs for its intervals."""

    law: Law
    draws: tuple[Law, ...]
    points: tuple[Point, ...]

    def interval(self, name: str) -> tuple[float, float]:
        """Return the 95 % interval of a constant."""
        return _interval([getattr(law, name) for law in self.draws])

    def predict(self, parameters: float, tokens: float) -> tuple[float, tuple[float, float]]:
        """Return the expected loss and its 95 % interval."""
        return self.law.loss(parameters, tokens), _interval([law.loss(parameters, tokens) for law in self.draws])

    def extrapolates(self, parameters: float, tokens: float) -> bool:
        """Return whether a size lies more than ten times outside what was seen, in either direction."""
        seen = (("parameters", parameters), ("tokens", tokens))
        for name, asked in seen:
            values = [getattr(point, name) for point in self.points]
            if not min(values) / TRUSTED_FACTOR <= asked <= max(values) * TRUSTED_FACTOR:
                return True
        return False

    def optimal(self, flop: float) -> tuple[float, float]:
        """Return the parameters and tokens of lowest loss for 6 N D operations (arXiv:2203.15556, equation 4)."""
        law, work = self.law, flop / FLOP_PER_PARAMETER_AND_TOKEN
        ratio = (law.a * law.A / (law.b * law.B)) ** (1 / (law.a + law.b))
        parameters = ratio * work ** (law.b / (law.a + law.b))
        return parameters, work / parameters

    def to_json(self) -> dict[str, Any]:
        """Return the fit as JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> "Fit":
        """Return the fit that `to_json` wrote."""
        laws = tuple(Law(**law) for law in data["draws"])
        return Fit(Law(**data["law"]), laws, tuple(Point(**point) for point in data["points"]))


def compute_optimal(flop: float) -> tuple[float, float]:
    """Return parameters and tokens by the rule of 20 tokens for each parameter: 6 N (20 N) operations."""
    parameters = math.sqrt(flop / (FLOP_PER_PARAMETER_AND_TOKEN * TOKENS_PER_PARAMETER))
    return parameters, TOKENS_PER_PARAMETER * parameters


def fit(points: Sequence[Point], *, draws: int = DRAWS, seed: int = 0) -> Fit:
    """Return the law that fits best in least squares; `UserError` with too few runs, or when all are alike."""
    if len(points) < FEWEST_RUNS:
        raise UserError(
            f"{len(points)} runs are too few to fit five constants",
            fix=f"give at least {FEWEST_RUNS} runs of different sizes and lengths",
        )
    for name in ("parameters", "tokens"):
        if len({getattr(point, name) for point in points}) < 2:
            raise UserError(f"all runs have the same number of {name}", fix="vary both the size and the length of runs")
    parameters, tokens, losses = (
        np.array([getattr(point, name) for point in points], dtype=float) for name in ("parameters", "tokens", "loss")
    )
    law = _fitted(parameters, tokens, losses)
    random = np.random.default_rng(seed)
    drawn: list[Law] = []
    while len(drawn) < draws:
        chosen = random.integers(len(points), size=len(points))
        if len(set(parameters[chosen])) > 1 and len(set(tokens[chosen])) > 1:
            drawn.append(_fitted(parameters[chosen], tokens[chosen], losses[chosen], near=law))
    return Fit(law, tuple(drawn), tuple(points))


def _fitted(parameters: Floats, tokens: Floats, losses: Floats, near: Law | None = None) -> Law:
    low, high = EXPONENTS
    grid = np.linspace(low, high, GRID)
    centre = (near.a, near.b) if near else _best(parameters, tokens, losses, grid, grid)
    reach = (high - low) / (GRID - 1) * (4 if near else 1)
    for _ in range(REFINEMENTS):
        around = [np.clip(np.linspace(value - reach, value + reach, 5), low, high) for value in centre]
        centre = _best(parameters, tokens, losses, *around)
        reach /= 2
    a, b = centre
    constants, _ = _linear(parameters, tokens, losses, a, b)
    return Law(float(constants[0]), float(constants[1]), float(constants[2]), a, b)


def _best(parameters: Floats, tokens: Floats, losses: Floats, some: Floats, others: Floats) -> tuple[float, float]:
    """Return the pair of exponents that leaves the least error. All pairs are solved at once: [P, runs, 3] columns."""
    pairs = np.array([(a, b) for a in some for b in others])
    a, b = pairs[:, :1], pairs[:, 1:]
    columns = np.stack(
        [np.ones((len(pairs), len(losses))), (parameters / parameters.mean()) ** -a, (tokens / tokens.mean()) ** -b],
        axis=2,
    )
    solved = np.linalg.pinv(columns) @ losses  # [P, 3]
    errors = ((np.einsum("prc,pc->pr", columns, solved) - losses) ** 2).sum(axis=1)
    for place in np.flatnonzero((solved < 0).any(axis=1)):
        errors[place] = _linear(parameters, tokens, losses, *pairs[place])[1]
    best = pairs[int(np.argmin(errors))]
    return float(best[0]), float(best[1])


def _linear(parameters: Floats, tokens: Floats, losses: Floats, a: float, b: float) -> tuple[Floats, float]:
    """Return E, A and B (none below zero) for given exponents, and the sum of squared errors."""
    # Scaled to about one, so that the solution does not suffer from powers of millions.
    scale = np.array([1.0, parameters.mean() ** a, tokens.mean() ** b])
    columns = np.stack([np.ones_like(losses), parameters**-a, tokens**-b], axis=1) * scale
    kept = [0, 1, 2]
    while True:
        solved = np.zeros(3)
        solved[kept] = np.linalg.lstsq(columns[:, kept], losses, rcond=None)[0]
        if (solved >= 0).all() or len(kept) == 1:
            break
        kept.remove(int(np.argmin(solved)))
    solved = np.maximum(solved, 0.0)
    return solved * scale, float(((columns @ solved - losses) ** 2).sum())


def _interval(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def points_of_runs(folders: Sequence[Path]) -> list[Point]:
    """Return the size, length and validation loss of every finished pretraining below the given folders.

    A folder is a run, or one that holds runs. Losses of different tokenizers or texts cannot be compared: `UserError`.
    """
    found = [stage for folder in folders for stage in _pretrained(folder)]
    if len({stage.manifest.inputs["tokens"]["digest"] for stage in found}) > 1:
        raise UserError(
            "these runs learned from different tokens, so their losses cannot be compared",
            fix="give runs of one tokenizer and one corpus",
        )
    return [_point(stage) for stage in found]


def _point(stage: StageFolder) -> Point:
    totals = stage.manifest.totals
    return Point(totals["parameters"], totals["tokens"], totals["val_loss"], stage.path.parent.name)


def _pretrained(folder: Path) -> list[StageFolder]:
    if not folder.is_dir():
        raise UserError(f"no run at {folder}", fix="see what there is: caslon runs")
    paths = [*folder.glob(f"pretrain/{MANIFEST}"), *folder.glob(f"*/pretrain/{MANIFEST}")]
    stages = [StageFolder.open(path.parent) for path in sorted(paths) if PARTIAL not in path.parent.name]
    return [stage for stage in stages if "val_loss" in stage.manifest.totals]


def save(found: Fit, path: Path) -> None:
    """Keep a fit, for predictions."""
    write_atomic(path, json.dumps(found.to_json(), indent=2) + "\n")


def load(path: Path) -> Fit:
    """Return a fit that was kept; `UserError` when there is none."""
    if not path.is_file():
        raise UserError(f"no fitted law at {path}", fix="fit one first: caslon scale fit RUNS")
    return Fit.from_json(json.loads(path.read_text(encoding="utf-8")))
