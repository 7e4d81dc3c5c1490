from dataclasses import replace

import torch

from caslon.model.config import DecoderConfig
from caslon.train.timed_steps import seconds_of_step
from tests.train.tiny_run import CPU, PLAN

SHAPE = DecoderConfig.from_depth(2, family="llama", vocab_size=320, context=64, hidden_size=32)


def test_a_step_is_timed_and_the_random_state_left_alone():
    before = torch.get_rng_state()
    plan = replace(PLAN, context=64, batch=4, micro_batch=4)
    seconds = seconds_of_step(SHAPE, plan, CPU, True)
    assert 0 < seconds < 5
    assert torch.equal(torch.get_rng_state(), before)
    assert seconds_of_step(SHAPE, plan, CPU, True) == seconds, "a second question is answered from memory"


def test_more_micro_batches_take_longer():
    single = seconds_of_step(SHAPE, replace(PLAN, context=64, batch=4, micro_batch=4, seed=1), CPU, True)
    many = seconds_of_step(SHAPE, replace(PLAN, context=64, batch=400, micro_batch=4, seed=1), CPU, True)
    assert many > 5 * single
