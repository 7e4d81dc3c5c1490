"""What docs/guide/models.md says is true: its table of presets, and what its programs print."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from caslon.model.config import PRESETS, DecoderConfig
from caslon.model.size import parameter_counts

PAGE = (Path(__file__).parents[2] / "docs" / "guide" / "models.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)


def row(name: str) -> str:
    config = DecoderConfig.preset(name)
    heads = f"{config.num_attention_heads} ({config.num_key_value_heads})"
    numbers = (config.intermediate_size, config.max_position_embeddings, config.vocab_size)
    cells = [f"`{name}`", config.family, config.num_hidden_layers, f"{config.hidden_size:,}", heads]
    cells += [f"{number:,}" for number in numbers] + [f"{parameter_counts(config).stored:,}"]
    return f"| {' | '.join(map(str, cells))} |"


@pytest.mark.parametrize("name", PRESETS)
def test_the_table_of_presets_is_that_of_the_code(name: str) -> None:
    assert row(name) in PAGE


@pytest.mark.parametrize(("program", "output"), PROGRAMS)
def test_the_programs_print_what_stands_below_them(program: str, output: str) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(program, {})
    assert printed.getvalue() == output


def test_there_are_programs() -> None:
    assert len(PROGRAMS) == 2
