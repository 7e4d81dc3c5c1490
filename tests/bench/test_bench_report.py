"""The report on the published results must say what is known of them; nothing of it is written by hand."""

import json
import re
from pathlib import Path

import pytest

from caslon.bench.lanes import FALLBACK, SINGLE, UNRELIABLE, lanes_of
from caslon.bench.published import published_results
from caslon.bench.report import write_report
from caslon.bench.sentences import on_change, on_law, on_leaders, on_sizes, signed
from caslon.bench.summary import Summary, summary_of

C1, C16, C4 = "latency-1024x256-c1", "serve-1024x256-c16", "longctx-8192x256-c4"
SCOUT, MINIMAX = "Llama-4-Scout-17B-16E", "MiniMax-M2.1"


@pytest.fixture(scope="module")
def summary() -> Summary:
    return summary_of(lanes_of(published_results()))


def leaders(summary: Summary, profile: str) -> list[tuple[str, str]]:
    return [(entry.model, entry.shape.split()[0]) for entry in summary.leaders(profile)]


@pytest.mark.promise(
    "bench", "the report derives leaders, scaling and status of the published results from their figures alone"
)
def test_leaders(summary: Summary) -> None:
    assert leaders(summary, C1) == [(MINIMAX, "8x"), (SCOUT, "8x"), (MINIMAX, "16x")]
    assert leaders(summary, C16) == [(SCOUT, "8x"), (MINIMAX, "8x"), (MINIMAX, "16x")]
    assert leaders(summary, C4) == [(SCOUT, "8x"), (MINIMAX, "8x"), (MINIMAX, "16x")]
    thirds = {profile: summary.best_of_models(profile)[2].model for profile in (C1, C16, C4)}
    assert thirds == {C1: "Mistral-Large-3-675B", C16: "Qwen3-235B-A22B", C4: "DeepSeek-V4-Flash"}


def test_leads_over_the_next_model(summary: Summary) -> None:
    text = "\n".join(on_leaders(summary))
    assert re.findall(r"On (\S+), (\S+) .*?, (\d+\.\d) % more tok/s than (\S+)", text) == [
        (C1, MINIMAX, "15.2", SCOUT),
        (C16, SCOUT, "1.5", MINIMAX),
        (C4, SCOUT, "6.6", MINIMAX),
    ]


@pytest.mark.parametrize(
    ("model", "devices", "changes"),
    [
        (SCOUT, (8, 16), ["−43.8 %", "−39.4 %", "−43.4 %"]),
        ("GLM-5.1-FP8", (8, 16), ["−27.9 %", "−15.3 %", "−18.9 %"]),
        (MINIMAX, (8, 16), ["−28.8 %", "−23.9 %", "−22.9 %"]),
        ("DeepSeek-V4-Flash", (4, 8), ["−9.7 %", "+0.8 %", "+10.9 %"]),
    ],
)
def test_more_devices(summary: Summary, model: str, devices: tuple[int, int], changes: list[str]) -> None:
    found = [change for change in summary.changes if change.model == model]
    assert [change.devices for change in found] == [devices] * 3
    assert [signed(change.output_throughput) for change in found] == changes


def test_sentences_on_sizes_and_times(summary: Summary) -> None:
    sizes = list(on_sizes(summary.changes))
    assert sizes[0] == f"8x is ahead of 16x in 9 of 9 pairs of 3 models ({SCOUT}, GLM-5.1-FP8, {MINIMAX})."
    assert sizes[1] == "4x is ahead of 8x in 1 of 3 pairs of 1 model (DeepSeek-V4-Flash)."
    [glm] = [on_change(change) for change in summary.changes if (change.model, change.profile) == ("GLM-5.1-FP8", C4)]
    assert "TTFT 1,317.81 → 1,309.63 ms (−0.6 %, faster)" in glm
    assert not any(model in " ".join(sizes) for model in ("Kimi", "Qwen", "Mistral"))


def test_tokens_per_device(summary: Summary) -> None:
    best = [(entry.model, entry.shape.split()[0], entry.per_device) for entry in summary.most_per_device(C16)]
    assert [(model, shape) for model, shape, _ in best] == [(SCOUT, "8x"), (MINIMAX, "8x"), ("DeepSeek-V4-Flash", "4x")]
    assert [f"{rate:.1f}" for _, _, rate in best] == ["172.3", "169.8", "134.8"]


def test_statuses(summary: Summary) -> None:
    found: dict[str, set[str]] = {}
    for label, status in summary.statuses.items():
        found.setdefault(status, set()).add(label)
    assert found[FALLBACK] == {"DeepSeek-V4-Pro 8x TP8"}
    assert found[UNRELIABLE] == {f"{SCOUT} (unsloth build) 8x"}
    assert found[SINGLE] == {"Kimi-K2.6 16x", "Qwen3-235B-A22B 16x", "Mistral-Large-3-675B 8x"}
    assert len(summary.statuses) == 13
    assert len(summary.ranked) == 12


@pytest.mark.promise(
    "bench", "throughput, TTFT and TPOT of a result must fit together, as those of all 36 published rows do"
)
def test_the_law_on_the_published_rows(summary: Summary) -> None:
    assert list(on_law(summary)) == [
        "In 36 rows, rate, TTFT and TPOT fit together: the law gives 0.999 to 1.040 "
        "(without its correction for the last wave 0.963 to 1.000)."
    ]
    assert all(abs(entry.law - 1) <= 0.005 for entry in summary.entries[C1] if entry.law is not None)


def test_files_of_a_report(tmp_path: Path) -> None:
    write_report(tmp_path, [])
    html, markdown = ((tmp_path / f"report.{kind}").read_text(encoding="utf-8") for kind in ("html", "md"))
    numbers = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    for sentence in ("8x is ahead of 16x in 9 of 9 pairs of 3 models", "leads with 1,378.30 tok/s"):
        assert sentence in html
        assert sentence in markdown
    assert numbers["published"]["leaders"][C16][0]["output_throughput"] == 1378.30
    assert numbers["own"] is None
    assert "| 16x TP8 DP2 EP |" in markdown
