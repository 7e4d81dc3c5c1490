"""What the corpus tests share: raw files out of nothing."""

import hashlib
from collections.abc import Callable

import pytest

from caslon.corpus.collect import RawFile

MakeRaw = Callable[..., RawFile]


@pytest.fixture
def make_raw() -> MakeRaw:
    """Return a function that wraps text or bytes as a collected file."""

    def make(content: str | bytes, name: str = "file.txt", **metadata: object) -> RawFile:
        data = content.encode() if isinstance(content, str) else content
        return RawFile("test", name, "", data, hashlib.sha256(data).hexdigest(), metadata)

    return make
