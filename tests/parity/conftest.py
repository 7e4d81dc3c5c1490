"""A small real tokenizer and decoders with random weights of every family."""

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location("model_fixtures", Path(__file__).parents[1] / "model" / "conftest.py")
assert _spec is not None and _spec.loader is not None
_fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_fixtures)
tokenizer, one_thread = _fixtures.tokenizer, _fixtures.one_thread
make_config, make_decoder = _fixtures.make_config, _fixtures.make_decoder
