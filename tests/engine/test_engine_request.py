"""Parameters are checked by name, value and range; errors survive pickling between processes."""

import copy
import math
from typing import Any

import pytest

from caslon.engine.defaults import sampling_defaults, stop_ids
from caslon.engine.request import CacheTooSmall, ContextLengthExceeded, InvalidParameter, SamplingParams
from caslon.engine.settings import EngineSettings
from caslon.errors import UserError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", 2.5),
        ("max_tokens", True),
        ("min_tokens", -1),
        ("min_tokens", 17),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", math.nan),
        ("temperature", "0.5"),
        ("temperature", None),
        ("top_k", -2),
        ("top_p", 0),
        ("top_p", 1.01),
        ("min_p", 1.5),
        ("repetition_penalty", 0),
        ("presence_penalty", -2.5),
        ("frequency_penalty", 3),
        ("logit_bias", {5: 101}),
        ("logit_bias", {-1: 1}),
        ("logit_bias", dict.fromkeys(range(1025), 1.0)),
        ("stop", "text"),
        ("stop", ("",)),
        ("stop", ("x",) * 17),
        ("stop_token_ids", (-1,)),
        ("stop_token_ids", tuple(range(65))),
        ("seed", 2**64),
        ("logprobs", 21),
        ("prompt_logprobs", -1),
    ],
)
def test_a_bad_value_is_named_with_its_range(field: str, value: Any) -> None:
    with pytest.raises(InvalidParameter) as raised:
        SamplingParams(**{field: value})
    assert raised.value.field == field
    assert raised.value.code == "invalid_parameter"
    assert field in str(raised.value)
    assert "must be" in str(raised.value)


def test_unknown_tokens_are_refused() -> None:
    for fields in ({"logit_bias": {100: 1.0}}, {"stop_token_ids": (100,)}):
        params = SamplingParams(**fields)  # type: ignore[arg-type]
        params.check_vocabulary(101)
        with pytest.raises(InvalidParameter, match="100"):
            params.check_vocabulary(100)


def test_errors_can_be_copied() -> None:
    for error in (ContextLengthExceeded(5, 6, 7), CacheTooSmall(5, 6, 7), InvalidParameter("stop", 1, "text")):
        again = copy.deepcopy(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)
    assert all(str(number) in str(ContextLengthExceeded(9000, 100, 8192)) for number in (9000, 100, 8192))


def test_defaults_of_a_folder() -> None:
    config = {"temperature": 0.7, "top_k": None, "eos_token_id": [3, 4], "transformers_version": "5", "num_beams": 1}
    assert sampling_defaults(config) == {"temperature": 0.7}
    assert sampling_defaults({"do_sample": False, "temperature": 0.7}) == {"temperature": 0.0}
    assert stop_ids(config) == (3, 4)
    assert stop_ids({"eos_token_id": 3}) == (3,)
    assert stop_ids({}) == ()
    for key, value in (("num_beams", 4), ("penalty_alpha", 0.6), ("suppress_tokens", [1])):
        with pytest.raises(UserError, match=key):
            sampling_defaults({key: value})


def test_engine_settings_are_consistent() -> None:
    with pytest.raises(ValueError, match="power of two"):
        EngineSettings(block_tokens=12)
    with pytest.raises(ValueError, match="max_running"):
        EngineSettings(max_running=16, max_step_tokens=16)
    assert "threads" not in EngineSettings().output_settings()
