"""What several processes share, add up and decide together, against the same in one."""

from typing import Any

import numpy as np
import pytest
import torch
from several_processes import in_processes
from torch import Tensor

from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.train.batches import Batch, Row, rows_to_batch
from caslon.train.distributed import ALONE, EndedElsewhere, Processes
from caslon.train.objectives import NextToken
from caslon.train.optimizer import orthogonalised
from caslon.train.precision import Compute

CPU = Compute(torch.device("cpu"), "fp32", "test")
CONTEXT, VOCABULARY = 16, 51
SHAPES: tuple[dict[str, Any], ...] = (
    {"family": "qwen3", "hidden_size": 16, "num_attention_heads": 2},
    {"family": "gpt2", "hidden_size": 18, "num_attention_heads": 2, "tie_word_embeddings": False},  # no even parts
    # So many experts that some are chosen in one process only; without the balance loss, which is not a sum over tokens.
    {
        "family": "mixtral",
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_local_experts": 40,
        "router_aux_loss_coef": 0.0,
    },
)


def config(shape: dict[str, Any]) -> DecoderConfig:
    return DecoderConfig.from_depth(2, vocab_size=VOCABULARY, context=CONTEXT, **shape)


def decoder(shape: dict[str, Any]) -> Decoder:
    made = Decoder(config(shape))
    made.initialise(3)
    return made


def batch(rows: int) -> Batch:
    """Return rows of unequal length, so that processes have different numbers of targets."""
    draws = np.random.default_rng(5)
    cut = [Row(draws.integers(1, VOCABULARY, CONTEXT + 1 - 4 * (row % 3)), [row]) for row in range(rows)]
    return rows_to_batch(cut, CONTEXT, 0, True)


def joined(processes: Processes, parallel: Any, name: str = "work") -> Any:
    return processes.collectives(name, parallel=parallel, cpu_offload=False, timeout_seconds=20)


def gradients(processes: Processes, shape: dict[str, Any]) -> tuple[dict[str, Tensor], float]:
    """Return the gradients of a batch in two micro-batches on each process, and their norm."""
    own = processes.spread(processes.build(lambda: decoder(shape), config(shape)), CPU)
    whole, objective = batch(8), NextToken()
    for micro in processes.share(whole)[0].split(2):
        (objective.loss(own, micro).sum / whole.target_count).backward()
    processes.add_gradients(own.parameters())
    found = {}
    for name, parameter in own.named_parameters():
        assert parameter.grad is not None
        grad = parameter.grad.full_tensor() if hasattr(parameter.grad, "full_tensor") else parameter.grad
        found[name] = grad.clone()
    return found, float(processes.clip(own.parameters(), 1e9))


def differences(processes: Processes, parallel: str) -> list[float]:
    """Return by how much each gradient and the norm differ from those of one process, over the norm."""
    found = []
    with joined(processes, parallel) as several:
        for shape in SHAPES:
            expected, expected_norm = gradients(ALONE, shape)
            got, norm = gradients(several, shape)
            assert list(got) == list(expected)
            found += [float((got[name] - expected[name]).abs().max()) / expected_norm for name in expected]
            found.append(abs(norm - expected_norm) / expected_norm)
    return found


@pytest.mark.promise("pretraining", "two processes have the gradients of one, as DDP and as FSDP, to 1e-6")
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_gradients_are_those_of_one_process_on_the_joined_batch(parallel: str) -> None:
    for found in in_processes(2, differences, parallel):
        assert max(found) < 1e-6


def small_things(processes: Processes) -> dict[str, Any]:
    with joined(processes, "ddp") as several:
        rank = several.rank
        whole, odd, one = batch(8), batch(3), batch(1)
        shares = [several.share(part) for part in (whole, odd, one)]
        found = {
            "sum": several.sum(float(rank), 0.5),
            "agree": [several.agree(False), several.agree(rank == 1), several.agree(True)],
            "rows": [(share.ids.tolist(), counts) for share, counts in shares],
            "seed": several.seed(7),
            "first": [several.first(lambda: {"step": 4}), several.first(lambda: None)],
        }
        try:
            several.first(lambda: 1 / 0)
        except ZeroDivisionError:
            found["failure"] = "own"
        except EndedElsewhere:
            found["failure"] = "heard of"
    return found


@pytest.mark.promise("pretraining", "data is shared out among processes without overlap, and dropout differs")
def test_processes_share_rows_add_up_and_decide_together() -> None:
    first, second = in_processes(2, small_things)
    assert first["sum"] == second["sum"] == [1.0, 1.0]
    assert first["agree"] == second["agree"] == [False, True, True]
    assert first["first"] == second["first"] == [{"step": 4}, None]
    assert (first["failure"], second["failure"]) == ("own", "heard of")
    assert first["seed"] == ALONE.seed(7) != second["seed"]
    for number, rows in enumerate((8, 3, 1)):
        counted = [ids for found in (first, second) for ids, counts in [found["rows"][number]] if counts]
        assert [row for rows_of_one in counted for row in rows_of_one] == batch(rows).ids.tolist()
    assert second["rows"][2] == (batch(1).ids.tolist(), False)  # nothing left: computed, not counted


def matrix_rows(processes: Processes, parallel: str) -> float:
    matrices = torch.randn(5, 7, 4, generator=torch.Generator().manual_seed(1))  # neither 5 nor 7 divides by 2
    with joined(processes, parallel) as several:
        part, parts = several.part
        mine = slice(part * 4, part * 4 + 4) if parts == 2 else slice(0, 7)
        found = several.each_matrix(orthogonalised, matrices[:, mine], 7)
        return float((found - orthogonalised(matrices)[:, mine]).abs().max())


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_each_matrix_is_computed_whole_by_one_process(parallel: str) -> None:
    assert max(in_processes(2, matrix_rows, parallel)) < 1e-6


def test_one_process_pays_nothing_for_the_others() -> None:
    whole = batch(4)
    assert ALONE.share(whole) == (whole, True)
    assert ALONE.sum(1.5) == [1.5]
    assert ALONE.first(lambda: "result") == "result"
    assert ALONE.seed(9) == 9
    with joined(ALONE, "fsdp") as alone:
        assert alone is ALONE
