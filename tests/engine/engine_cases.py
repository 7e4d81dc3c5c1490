"""Random models and prompts, and the slow truth about their answers."""

import random

import pytest
import torch

from caslon.engine.engine import Engine
from caslon.engine.native.library import KernelsMissing, library
from caslon.engine.scheduler import StepPlan
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder

CONTEXT = 192
FAMILIES = ("gpt2", "llama", "qwen3", "mixtral")
KERNELS = ("torch", "compiled")


def need_kernels(kernels: str) -> None:
    """Skip a test of compiled kernels where there are none."""
    if kernels == "compiled":
        try:
            library()
        except KernelsMissing as missing:
            pytest.skip(f"no compiled kernels: {missing}")


def make_decoder(family: str, vocab_size: int, seed: int = 1) -> Decoder:
    """Return a random decoder whose answers vary: wide weights, and a head of its own where the family allows it."""
    decoder = Decoder(
        DecoderConfig(
            family=family,
            vocab_size=vocab_size,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4 if family == "gpt2" else 2 if family == "llama" else 1,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=family == "gpt2",
        )
    )
    decoder.initialise(seed)
    with torch.no_grad():
        for parameter in decoder.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return decoder.eval()


def gib_for(decoder: Decoder, tokens: int) -> float:
    """Return the `kv_memory_gib` that holds so many tokens."""
    config = decoder.config
    return tokens * 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4 / 2**30


def random_prompts(vocab_size: int, lengths: tuple[int, ...], seed: int = 0) -> list[list[int]]:
    chooser = random.Random(seed)
    return [[chooser.randrange(vocab_size) for _ in range(length)] for length in lengths]


@torch.inference_mode()
def plain_greedy(decoder: Decoder, prompt: list[int], tokens: int) -> tuple[int, ...]:
    """Return the greedy continuation by recomputing everything for every token."""
    ids = list(prompt)
    for _ in range(tokens):
        ids.append(int(decoder.logits(decoder(torch.tensor([ids]))[0, -1]).argmax()))
    return tuple(ids[len(prompt) :])


class OnlyTheseInTurn:
    """A constraint that lets one token come at each place, and the end, if there is one, after the last."""

    def __init__(self, tokens: list[int], end: int | None) -> None:
        self.tokens = tokens
        self.end = end
        self.seen: list[int] = []

    @property
    def may_end(self) -> bool:
        return len(self.seen) == len(self.tokens)

    def mask(self, logits: torch.Tensor) -> None:
        allowed = self.end if self.may_end else self.tokens[len(self.seen)]
        kept = None if allowed is None else logits[allowed].clone()
        logits.fill_(-torch.inf)
        if kept is not None:
            logits[allowed] = kept

    def advance(self, token: int) -> None:
        self.seen.append(token)

    def rollback(self, tokens: int) -> None:
        del self.seen[-tokens:]


def preempt_often(engine: Engine, every: int = 3) -> None:
    """Take the blocks of the youngest running sequence away before each so many steps."""
    scheduler, plan = engine._scheduler, engine._scheduler.plan

    def plan_after_preempting() -> StepPlan:
        if scheduler.waiting.step % every == 0 and scheduler.running:
            scheduler._preempt(scheduler.running[-1])
        return plan()

    scheduler.plan = plan_after_preempting
