"""Shared by all tests: two threads at most, and where the optional real data lies."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two test workers share the cores; LOG.md has figures
DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data beside the checkout; the test is skipped where it is missing."""
    if not DATA.is_dir():
        pytest.skip("the real data (../shared/data) is not here")
    return DATA
