"""Shared by all tests: two threads at most, and where the optional real data lies."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# What is submitted is tried on the same examples each time; on other machines every run draws new ones.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two test workers share the cores; LOG.md has figures
DATA = Path(__file__).parents[2] / "shared" / "data"
TEXTS = (DATA / "text", Path(__file__).parents[2] / "text")
TINY_SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data beside the checkout; the test is skipped where it is missing."""
    if not DATA.is_dir():
        pytest.skip("the real data (../shared/data) is not here")
    return DATA


@pytest.fixture(scope="session")
def tiny_shakespeare() -> Path:
    """The small corpus of exact figures: 1,115,394 bytes; the test is skipped where the file is missing."""
    for folder in TEXTS:
        path = folder / "tiny-shakespeare.txt"
        if path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            assert digest == TINY_SHAKESPEARE_SHA256, f"{path} is another text"
            return path
    pytest.skip("tiny Shakespeare (../text/tiny-shakespeare.txt) is not here")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what caslon remembers of a machine apart from the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
