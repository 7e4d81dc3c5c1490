from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_run import PLAN, tiny_decoder, tiny_trainer, train
from torch import nn

from caslon.errors import Stopped
from caslon.observe.events import EventLog
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.train.adamw_int8 import AdamWInt8, from_signed, from_unsigned, signed_codes, unsigned_codes

VALUES = torch.randn(5000, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 0, 5000)


def test_codes_keep_numbers_of_both_signs() -> None:
    back = from_signed(*signed_codes(VALUES), VALUES.shape)
    largest = torch.cat([part.abs().max().expand(len(part)) for part in VALUES.split(256)])
    assert ((back - VALUES).abs() <= largest / 127).all()
    assert torch.equal(back.sign()[back != 0], VALUES.sign()[back != 0])


def test_codes_of_squares_are_never_too_small() -> None:
    squares = VALUES.square()
    back = from_unsigned(*unsigned_codes(squares), squares.shape)
    assert (back >= squares * (1 - 1e-5)).all()
    zeros = torch.zeros(300)
    assert torch.equal(from_unsigned(*unsigned_codes(zeros), zeros.shape), zeros)


def updated(kind: type, steps: int, shape: tuple[int, int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    weight = nn.Parameter(torch.randn(shape, generator=generator))
    optimizer = kind([{"params": [weight], "weight_decay": 0.1}], lr=1e-2, betas=(0.9, 0.95), eps=1e-8)
    for _ in range(steps):
        weight.grad = torch.randn(shape, generator=generator) + 0.3
        optimizer.step()
    return weight.detach()


def test_small_tensors_are_updated_as_adamw_does() -> None:
    torch.testing.assert_close(updated(AdamWInt8, 5, (8, 8)), updated(torch.optim.AdamW, 5, (8, 8)))


def test_large_tensors_are_updated_nearly_so() -> None:
    start = torch.randn((64, 128), generator=torch.Generator().manual_seed(1))
    ours, theirs = (updated(kind, 20, (64, 128)) - start for kind in (AdamWInt8, torch.optim.AdamW))
    assert (ours - theirs).norm() < 0.05 * theirs.norm()


INT8 = replace(PLAN, optimizer="adamw", optimizer_state="int8", table_rate_ratio=1.0, head_rate_ratio=1.0)


@pytest.mark.promise(
    "pretraining", "AdamW with a state of 8 bits takes 2 bytes a parameter, learns as well, and resumes exactly"
)
def test_a_run_learns_and_resumes_with_moments_of_8_bits(tokens_folder: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(tokens_folder)
    losses = {}
    for state in ("fp32", "int8"):
        plan, decoder = replace(INT8, optimizer_state=state), tiny_decoder(tokenizer, hidden_size=64)
        losses[state] = train(tmp_path / state, tokens_folder, plan=plan, decoder=decoder).metrics["eval/val_loss"]
    assert losses["int8"] <= 1.02 * losses["fp32"]
    sizes = {state: (tmp_path / state / "checkpoints/last/optim.safetensors").stat().st_size for state in losses}
    assert sizes["int8"] < 0.4 * sizes["fp32"]
    with EventLog(None) as events:
        trainer = tiny_trainer(
            tmp_path / "parts", tokens_folder, events, plan=INT8, decoder=tiny_decoder(tokenizer, hidden_size=64)
        )
        trainer.stop.ask("the test")
        with pytest.raises(Stopped):
            trainer.run()
    train(tmp_path / "parts", tokens_folder, plan=INT8, decoder=tiny_decoder(tokenizer, hidden_size=64))
    one, other = (tmp_path / name / "checkpoints/last/MANIFEST.json" for name in ("int8", "parts"))
    assert one.read_bytes() == other.read_bytes()
