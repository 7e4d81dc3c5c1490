import json
import re
from pathlib import Path

import pytest

from caslon.errors import UserError
from caslon.folders import Manifest, content_digest, content_files
from caslon.observe.events import EventLog, Metrics, Resumed, Sample, Timing
from caslon.run_report import read_run, write_run_report

HOSTILE = "<script>alert('x')</script>"
SCORES = {
    "model": {"digest": "m" * 64, "tokenizer_digest": "t" * 64},
    "text": {"split": "test", "dataset_id": "d" * 64, "documents": 30, "bytes": 9000, "split_documents": 30, "split_bytes": 9000},
    "bits_per_byte": {
        "value": 1.5481, "interval": {"low": 1.5, "high": 1.6, "units": 30, "unit": "documents", "draws": 9, "confidence": 0.95},
        "nats": 9657.0, "tokens": 3000, "bytes": 9000, "perplexity": 25.0, "context_tokens": 256, "stride_tokens": 128,
        "metric_version": 1, "worst_documents": [],
    },
    "baselines": {
        "train_bytes": 100_000, "test_bytes": 9000,
        "rungs": [
            {"name": "uniform", "alone": 8.0, "given_train": None}, {"name": "5-gram", "alone": None, "given_train": 1.91},
            {"name": "6-gram", "alone": None, "given_train": 1.88}, {"name": "xz -9e", "alone": 1.66, "given_train": 1.47},
        ],
    },
    "samples": {"sweep": [{"temperature": 0.7, "texts": 1, "ended_share": 0.0, "distinct_trigrams": 0.9, "repeated_share": 0.1}]},
}  # fmt: skip
SAMPLES = [
    {
        "prompt": "def ",
        "text": HOSTILE,
        "temperature": 0.7,
        "top_p": 1.0,
        "seed": 1,
        "tokens": 9,
        "finish_reason": "length",
    }
]


def write_stage(run: Path, name: str, totals: dict, inputs: dict | None = None, files: dict | None = None) -> Path:
    folder = run / name
    folder.mkdir(parents=True)
    for file, value in (files or {}).items():
        (folder / file).write_text(json.dumps(value))
    entries = content_files(folder)
    manifest = Manifest(
        stage=name, stage_version=1, key="k" * 64, digest=content_digest(entries), seed=7, settings={"depth": 4},
        inputs=inputs or {}, sources={"/text.txt": "s" * 64}, files=entries, totals=totals, versions={"torch": "2.13.0"},
        device="CPU x86_64, 2 threads", started="2026-01-01T00:00:00+00:00", seconds=90.0, command=f"caslon run {HOSTILE}.toml",
    )  # fmt: skip
    (folder / "manifest.json").write_text(manifest.to_json())
    return folder


def write_log(folder: Path) -> None:
    with EventLog(folder / "events.jsonl") as events:
        for step in range(1, 41):
            events.emit(Metrics(step, {"train/loss": 8.0 / step, "train/lr": 1e-3, "train/grad_norm": 1.0}))
            events.emit(Timing(step, {"train/tokens_per_s": 1000.0}))
        events.emit(Metrics(30, {"eval/val_bpb": 99.0}))
        events.emit(Resumed(20))  # what came after step 20 was lost and is repeated
        for step in (20, 40):
            events.emit(Metrics(step, {"eval/val_bpb": 30.0 / step, "eval/val_loss": 2.0}))
            events.emit(Sample(step, "import ", f"text of step {step}"))
        events.warn("the disk is nearly full")


@pytest.fixture
def whole(tmp_path) -> Path:
    run = tmp_path / "london"
    totals = {
        "documents": 1200, "text_bytes": 11_000_000, "rejects": {"too_short": 20, HOSTILE: 2},
        "splits": {"train": {"documents": 1100, "segments": 5000, "characters": 900, "text_bytes": 901}},
        "steps": {"read": {"documents_in": 1222, "documents_out": 1222, "documents_rejected": 0, "characters_in": 5}},
    }  # fmt: skip
    write_stage(run, "corpus", totals)
    write_stage(
        run,
        "tokenizer",
        {"vocab_size": 4096, "train_tokens": 3_000_000},
        {"text": {"folder": "../corpus", "digest": "c" * 64}},
    )
    model = write_stage(
        run, "pretrain", {"parameters": 4_213_760, "steps": 40, "tokens": 81_920, "peak_memory_bytes": 1 << 30}
    )
    (model / "model").mkdir()
    (model / "model" / "config.json").write_text("{}")
    write_log(model)
    answers = [{"question": "What does len do?", "answer": HOSTILE, "ended": True}] * 30
    write_stage(
        run,
        "finetune.sft",
        {"answers_ended_share": 0.93, "questions": 100},
        files={"answers.json": {"answers": answers}},
    )
    write_stage(run, "evaluate", {"test_bpb": 1.5481}, files={"scores.json": SCORES, "samples.json": SAMPLES})
    (run / "resolved.json").write_text(
        json.dumps({"stages": dict.fromkeys(["corpus", "tokenizer", "pretrain", "finetune.sft", "evaluate", "serve"])})
    )
    plan = [
        {"stage": "pretrain", "name": "steps", "value": 40, "unit": "steps", "origin": "setting"},
        {"stage": "pretrain", "name": "training time", "value": 60, "unit": "s", "origin": "estimate"},
        {"stage": "pretrain", "name": "peak memory", "value": 1 << 29, "unit": "bytes", "origin": "estimate"},
        {"stage": "pretrain", "name": "family", "value": "qwen3", "unit": "", "origin": "setting"},
        {"stage": "serve", "name": "port", "value": 8000, "unit": "", "origin": "setting"},
    ]  # fmt: skip
    (run / "plan.json").write_text(json.dumps(plan))
    (run / "recipe.toml").write_text('name = "london"\n')
    return run


def charts(html: str) -> dict[str, dict]:
    pattern = r'<h3>([^<]*)</h3>\s*<div class="chart[^>]*>\s*<script type="application/json">(.*?)</script>'
    return {title: json.loads(data) for title, data in re.findall(pattern, html, re.S)}


def test_the_page_tells_the_whole_run(whole):
    path = write_run_report(whole)
    html = path.read_text()
    for text in (
        "4,213,760",
        "1.548",
        "too_short",
        "What does len do?",
        "text of step 40",
        "caslon chat",
        "2.13.0",
        "1 min 30 s",
    ):
        assert text in html
    assert HOSTILE not in html
    assert "does not beat xz -9e given the training text (1.470)" in html
    assert "Not finished: serve." in html
    assert "pretrain: the disk is nearly full" in html
    assert html.count("What does len do?") == 20
    assert path == whole / "report.html"


def test_curves_hold_the_logged_values_and_the_baselines(whole):
    drawn = charts(write_run_report(whole).read_text())
    curve = drawn["Bits per byte"]
    assert (curve["data"][0]["x"], curve["data"][0]["y"]) == ([20, 40], [1.5, 0.75])  # 99.0 was before the resumption
    levels = {level["name"]: level["value"] for level in curve["layout"]["meta"]["levels"]}
    assert levels == {"6-gram, given training": 1.88, "xz -9e, given training": 1.47, "xz -9e alone": 1.66}
    assert drawn["Loss"]["data"][0]["x"] == list(range(1, 21))
    assert drawn["Rejects by reason"]["data"][0]["x"] == [20, 2]


def test_plan_stands_beside_what_came(whole):
    html = write_run_report(whole).read_text()
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", html, re.S)]
    assert ["pretrain", "steps", "40", "40", "1", "steps"] in rows
    assert ["pretrain", "training time", "60", "90", "1.5", "s"] in rows
    assert ["pretrain", "peak memory", "536,870,912", "1,073,741,824", "2", "bytes"] in rows
    assert ["serve", "port", "8,000", "", "setting"] in rows


def test_numbers_stand_in_json_too(whole):
    numbers = json.loads(write_run_report(whole).with_suffix(".json").read_text())
    assert numbers["stages"]["pretrain"]["totals"]["parameters"] == 4_213_760
    assert numbers["scores"] == SCORES
    assert numbers["seconds"] == 450.0
    assert numbers["missing"] == ["serve"]


def test_writing_again_gives_the_same_bytes(whole):
    first = write_run_report(whole).read_bytes()
    assert write_run_report(whole).read_bytes() == first


@pytest.mark.parametrize("names", [["corpus"], ["pretrain"], ["evaluate"], ["corpus", "finetune.sft"]])
def test_missing_stages_are_no_obstacle(whole, tmp_path, names):
    run = tmp_path / "part"
    run.mkdir()
    for name in names:
        (whole / name).rename(run / name)
    html = write_run_report(run).read_text()
    assert "How to repeat this" in html
    assert list(read_run(run).stages) == names


def test_an_unfinished_stage_is_not_read(whole):
    (whole / "evaluate").rename(whole / "evaluate.partial")
    assert "evaluate" not in read_run(whole).stages


def test_nothing_finished_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no stage of this run has finished"):
        write_run_report(tmp_path)
