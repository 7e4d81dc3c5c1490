import json

import pytest
from typer.testing import CliRunner

from caslon.cli import app
from caslon.errors import UserError
from caslon.train import scaling
from caslon.train.scaling import Law, Point, compute_optimal, fit
from tests.test_run_report import write_stage

PLANTED = Law(E=1.69, A=406.4, B=410.7, a=0.34, b=0.28)  # arXiv:2203.15556
SIZES = (1e6, 3e6, 1e7, 3e7, 1e8)
LENGTHS = (2e7, 1e8, 5e8, 2e9)
GRID = [Point(n, d, PLANTED.loss(n, d), f"{n:g}-{d:g}") for n in SIZES for d in LENGTHS]


@pytest.fixture(scope="module")
def found() -> scaling.Fit:
    return fit(GRID, draws=20)


@pytest.mark.promise("pretraining", "A scaling fit finds planted constants again within two per cent")
@pytest.mark.parametrize("name", ["E", "A", "B", "a", "b"])
def test_planted_constants_are_found(found, name):
    assert getattr(found.law, name) == pytest.approx(getattr(PLANTED, name), rel=0.02)
    low, high = found.interval(name)
    assert low <= high
    assert low == pytest.approx(getattr(PLANTED, name), rel=0.05)


def test_noise_widens_the_interval_and_the_truth_stays_inside():
    shaken = [Point(p.parameters, p.tokens, p.loss * (1 + 0.002 * (-1) ** n), p.name) for n, p in enumerate(GRID)]
    noisy = fit(shaken, draws=50)
    loss, (low, high) = noisy.predict(3e7, 5e8)
    assert loss == pytest.approx(PLANTED.loss(3e7, 5e8), rel=0.01)
    assert 0 < high - low < 0.2


def test_too_little_is_refused():
    with pytest.raises(UserError, match="4 runs are too few"):
        fit(GRID[:4])
    with pytest.raises(UserError, match="all runs have the same number of parameters"):
        fit([Point(1e6, d * k, 3.0 / k) for d in LENGTHS for k in (1, 2)])


@pytest.mark.promise(
    "pretraining", "For 1e18 operations 20 tokens a parameter mean 91.3 M parameters and 1.826 B tokens"
)
def test_the_rule_of_twenty():
    parameters, tokens = compute_optimal(1e18)
    assert parameters / 1e6 == pytest.approx(91.3, abs=0.05)
    assert tokens / 1e9 == pytest.approx(1.826, abs=0.0005)


def test_the_optimum_of_a_law_is_one(found):
    parameters, tokens = found.optimal(1e18)
    best = found.law.loss(parameters, tokens)
    assert 6 * parameters * tokens == pytest.approx(1e18)
    for factor in (0.8, 1.25):
        assert found.law.loss(parameters * factor, tokens / factor) > best


@pytest.mark.promise("pretraining", "A prediction more than ten times beyond the runs is marked as extrapolation")
def test_extrapolation_is_marked(found):
    assert not found.extrapolates(1e9, 2e10)
    assert found.extrapolates(1.1e9, 1e9)
    assert found.extrapolates(1e8, 2.1e10)
    assert found.extrapolates(9e4, 1e9)


def test_the_commands(tmp_path):
    for point in GRID[:8]:
        stage = write_stage(
            tmp_path / "runs" / point.name.replace("+", ""),
            "pretrain",
            {"parameters": point.parameters, "tokens": point.tokens, "val_loss": point.loss},
            {"tokens": {"folder": "../tokenizer", "digest": "d" * 64}},
        )
        assert stage.is_dir()
    where = ["--runs", str(tmp_path / "runs")]
    call = CliRunner().invoke
    assert call(app, ["scale", "predict", "1e7", "1e8", *where]).exception is not None
    printed = json.loads(call(app, ["scale", "fit", str(tmp_path / "runs"), *where, "--json"]).stdout)
    assert len(printed["runs"]) == 8
    predicted = json.loads(call(app, ["scale", "predict", "3e6", "1e8", *where, "--json"]).stdout)
    assert predicted["loss"] == pytest.approx(PLANTED.loss(3e6, 1e8), rel=0.01)
    assert "extrapolation" in call(app, ["scale", "predict", "1e12", "1e8", *where]).stdout
    assert "91.3 M parameters, 1.826 B tokens" in call(app, ["scale", "optimal", "1e18", *where]).stdout


def test_runs_on_other_tokens_are_refused(tmp_path):
    for number in range(5):
        tokens = {"tokens": {"folder": "../tokenizer", "digest": str(number) * 64}}
        write_stage(tmp_path / str(number), "pretrain", {"parameters": 1, "tokens": 1, "val_loss": 1.0}, tokens)
    with pytest.raises(UserError, match="different tokens"):
        scaling.points_of_runs([tmp_path])
