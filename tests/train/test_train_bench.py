from dataclasses import replace

import pytest

from caslon.model.config import DecoderConfig
from caslon.train.bench import CLAIMS, PLAIN, VARIANTS, Measured, measure, verdicts

SHAPE = DecoderConfig.from_depth(2, family="gpt2", vocab_size=256, context=32, hidden_size=32)


@pytest.mark.parametrize("name", ["plain", "fused AdamW", "accumulation + checkpointing", "document masking"])
def test_an_option_is_measured(name):
    variant = next(variant for variant in VARIANTS if variant.name == name)
    found = measure(variant, SHAPE, batch=4, steps=2)
    assert found.failure == ""
    assert found.steps_per_second > 0


def measured(name: str, speed: float, peak: int) -> Measured:
    return Measured(replace(PLAIN, name=name), speed, peak, state_bytes=100)


@pytest.mark.promise("pretraining", "Published claims of speed and memory are called met or not met on this machine")
def test_claims_are_judged_by_the_plain_step():
    rows = {variant.name: measured(variant.name, 1.0, 500) for variant in VARIANTS}
    rows["compile"] = Measured(replace(PLAIN, name="compile"), failure="no compiler")
    rows["bf16 + compile"] = measured("bf16 + compile", 2.5, 500)
    rows["bf16"] = measured("bf16", 1.0, 300)
    rows["accumulation + checkpointing"] = measured("accumulation + checkpointing", 0.7, 190)
    found = {name: verdict for name, (_, verdict) in verdicts(list(rows.values())).items()}
    assert found == {
        "bf16 + compile": "met",
        "compile": "not measured",
        "fused AdamW": "not met",
        "bf16": "met",
        "accumulation + checkpointing": "met",
        "document masking": "met",
    }
    assert {claim.variant for claim in CLAIMS} <= {variant.name for variant in VARIANTS}
