import csv
import io
import json
import re

import pytest
from typer.testing import CliRunner

from caslon.cli import app
from caslon.errors import UserError
from caslon.observe.events import EventLog, Metrics, Timing
from caslon.report.published import PUBLISHED, published_blocks
from caslon.run_report import write_comparison, write_run_report
from tests.test_run_report import charts, write_stage


def write_run(runs, name, *, loss, digest="d", steps=20, batch=100):
    totals = {
        "parameters": 1000, "steps": steps, "tokens": steps * batch, "epochs": 5.5, "val_loss": loss, "val_bpb": loss / 2,
        "best_step": steps,
    }  # fmt: skip
    tokens = {"tokens": {"folder": "../tokenizer", "digest": digest * 64}}
    stage = write_stage(runs / name, "pretrain", totals, tokens)
    (runs / name / "recipe.toml").write_text(f'name = "{name}"\n')
    (stage / "model").mkdir()
    (stage / "model" / "caslon.json").write_text(json.dumps({"parent": "p" * 64}))
    with EventLog(stage / "events.jsonl") as events:
        for step in range(1, steps + 1):
            events.emit(Metrics(step, {"train/loss": loss * 8 / step, "train/tokens": step * batch}))
            events.emit(Timing(step, {"train/dt_ms": 10.0, "train/data_ms": 1.0, "train/mem_gb": 0.5}))
        events.emit(Metrics(steps, {"eval/val_loss": loss, "eval/val_bpb": loss / 2}))
        events.warn(f"{name} was warned")
    return runs / name


@pytest.mark.promise(
    "pretraining", "Several runs are compared on one page that needs no network: figures, curves, settings, warnings"
)
def test_runs_are_compared_over_tokens(tmp_path):
    folders = [write_run(tmp_path, "one", loss=2.0), write_run(tmp_path, "other", loss=1.5, batch=200)]
    path = write_comparison(folders, tmp_path / "comparison.html")
    html = path.read_text()
    drawn = charts(html)
    assert [trace["name"] for trace in drawn["Loss, training"]["data"]] == ["one", "other"]
    assert drawn["Loss, training"]["data"][1]["x"][:2] == [200, 400]
    assert "one was warned" in html
    assert not re.findall(r"""(?:src|href)=["']?http""", html)
    figures = json.loads(path.with_suffix(".json").read_text())["runs"]
    assert figures["other"]["val_bpb"] == 0.75


def test_losses_of_other_tokens_are_called_incomparable(tmp_path):
    folders = [write_run(tmp_path, "one", loss=2.0), write_run(tmp_path, "other", loss=1.5, digest="e")]
    assert "cannot be compared" in write_comparison(folders, tmp_path / "comparison.html").read_text()
    with pytest.raises(UserError, match="no two trainings"):
        write_comparison(folders[:1], tmp_path / "comparison.html")


@pytest.mark.promise(
    "pretraining", "A report sets the published figures beside ours and says whether they can be compared"
)
def test_published_figures_stand_beside_ours(tmp_path):
    run = write_run(tmp_path, "slm", loss=3.2)
    html = write_run_report(run).read_text()
    for text in ("3.441", "1.19 to 1.49", "no: other text, other tokens", "5.5", "expect over-fitting"):
        assert text in html
    assert published_blocks("quickstart", {}) == []
    assert PUBLISHED["regular"].val_loss > PUBLISHED["slm"].val_loss


@pytest.mark.promise(
    "pretraining", "caslon runs lists runs with status, loss, size, date and parent, filtered, as JSON or CSV"
)
def test_runs_are_listed_filtered_and_as_csv(tmp_path):
    for name, loss in (("london-one", 2.0), ("london-two", 1.5), ("paris", 1.0)):
        write_run(tmp_path, name, loss=loss)
    (tmp_path / "paris" / "tokenizer.partial").mkdir()
    call = lambda *words: CliRunner().invoke(app, ["runs", *words, "--runs", str(tmp_path)]).stdout  # noqa: E731
    rows = list(csv.DictReader(io.StringIO(call("london*", "--csv"))))
    assert sorted((row["name"], row["val_loss"]) for row in rows) == [("london-one", "2.0"), ("london-two", "1.5")]
    assert {row["parent"] for row in rows} == {"p" * 16}
    assert [row["name"] for row in json.loads(call("--status", "unfinished", "--json"))] == ["paris"]
    assert "1,000" in call()
