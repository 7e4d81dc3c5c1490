"""A mixture of experts in the whole training loop."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_train_trainer import digests
from tiny_run import CPU, CPU_BF16, PLAN, tiny_decoder, train

from caslon.model.decoder import Decoder
from caslon.model.folder import ModelFolder
from caslon.observe.events import EventLog, metric_values
from caslon.report.blocks import Chart
from caslon.report.curves import expert_maps
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.train.expert_map import expert_map
from caslon.train.optimizer import Optimizer, groups, orthogonalised

QUICK = replace(PLAN, steps=6, eval_every=3, schedule=replace(PLAN.schedule, steps=6))


def mixture(tokenizer: Tokenizer, **changes: object) -> Decoder:
    return tiny_decoder(tokenizer, family="mixtral", num_local_experts=4, **changes)


@pytest.mark.promise("pretraining", "training a mixture logs its balance loss, and each expert's share at evaluations")
@pytest.mark.parametrize("compute", [CPU, CPU_BF16])
def test_a_mixture_trains_and_tells_how_its_experts_are_used(
    compute: object, tokens_folder: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    train(tmp_path, tokens_folder, plan=QUICK, decoder=mixture(tokenizer), compute=compute)
    values = metric_values(tmp_path / "events.jsonl")
    assert [step for step, _ in values["train/aux_loss"]] == [1, 2, 3, 4, 5, 6]
    assert all(1.5 < loss < 4.0 for _, loss in values["train/aux_loss"])
    for layer in range(2):
        shares = [values[f"eval/val_expert_share.{layer}.{expert}"][-1][1] for expert in range(4)]
        assert sum(shares) == pytest.approx(1.0, abs=1e-5)
    assert values["train/dead_experts"] and values["eval/val_expert_entropy"]
    assert values["train/dropped"][-1][1] == 0
    loaded = ModelFolder.open(tmp_path / "checkpoints" / "step-000006").load()
    assert (loaded.config.num_local_experts, loaded.config.router_aux_loss_coef) == (4, 0.01)


def test_recomputed_activations_change_nothing_in_a_mixture(
    tokens_folder: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    for name, every in (("kept", 0), ("recomputed", 1)):
        decoder = mixture(tokenizer, router_jitter_noise=0.1, expert_capacity_factor=1.0)
        train(tmp_path / name, tokens_folder, plan=replace(QUICK, checkpoint_every=every), decoder=decoder)
    weights = "model.safetensors"
    assert digests(tmp_path / "kept", 6)[weights] == digests(tmp_path / "recomputed", 6)[weights]


@pytest.mark.promise("pretraining", "Muon updates each expert's matrices by themselves")
def test_muon_takes_each_expert_matrix_by_itself(tokenizer: Tokenizer) -> None:
    model = mixture(tokenizer)
    found = groups(model.named_parameters(), "muon")
    matrices = [name for name in found.matrices if ".experts." in name]
    assert len(matrices) == 2 * 4 * 3
    assert all(re.search(r"experts\.\d\.(gate|up|down)_proj\.weight$", name) for name in matrices)
    before = {name: found.matrices[name].detach().clone() for name in matrices}
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    Optimizer(model, "muon", weight_decay=0.0).step(1.0)
    for name in matrices:
        matrix = found.matrices[name]
        assert matrix.grad is not None
        alone = orthogonalised(matrix.grad[None])[0] * 0.2 * max(matrix.shape) ** 0.5
        torch.testing.assert_close(before[name] - matrix.detach(), alone, rtol=1e-3, atol=1e-4)


@pytest.mark.promise("pretraining", "the report shows which expert each token of a text was sent to")
def test_the_report_shows_which_expert_each_token_was_sent_to(tokenizer: Tokenizer, tmp_path: Path) -> None:
    decoder = mixture(tokenizer)
    with EventLog(tmp_path / "events.jsonl") as events:
        events.emit(expert_map(decoder, tokenizer, tokenizer.encode("the model reads a row"), 3))
    first, second = expert_maps(tmp_path / "events.jsonl")
    assert isinstance(first, Chart) and (first.title, first.kind) == ("Experts of layer 0", "heatmap")
    assert [series.name for series in first.series] == [f"expert {number}" for number in range(4)]
    for chance in zip(*(series.y for series in first.series), strict=True):
        assert sum(chance) == pytest.approx(1.0, abs=0.003)
    assert isinstance(second, Chart) and str(second.series[0].x[0]).startswith("1 ")
