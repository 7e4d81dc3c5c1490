"""The page of promises: marks read from source, states read from a JUnit file."""

import ast
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

SOURCE = """
import pytest
pytestmark = [pytest.mark.slow]

@pytest.mark.promise("pretraining", "rates are exact")
@pytest.mark.parametrize("name", ["a", "b"])
def test_rates(name): ...

class TestRows:
    @pytest.mark.promise("pretraining", "a | in a row")
    def test_row(self): ...

@pytest.mark.promise("corpus", "read"
    " whole")
def test_read(): ...

def test_without(): ...
"""


@pytest.fixture(scope="module")
def promises() -> ModuleType:
    path = Path(__file__).parents[1] / "docs" / "promises.py"
    spec = importlib.util.spec_from_file_location("promises", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_marks_are_read_from_the_source(promises: ModuleType) -> None:
    found = list(promises.promises_of(ast.parse(SOURCE), "tests/test_x.py"))
    assert [(item.part, item.text, item.test) for item in found] == [
        ("pretraining", "rates are exact", "tests/test_x.py::test_rates"),
        ("pretraining", "a | in a row", "tests/test_x.py::TestRows::test_row"),
        ("corpus", "read whole", "tests/test_x.py::test_read"),
    ]
    assert all(item.slow for item in found)


def test_a_mark_that_must_be_computed_is_refused(promises: ModuleType) -> None:
    source = "@pytest.mark.promise('pretraining', TEXT)\ndef test_x(): ..."
    with pytest.raises(SystemExit, match="a promise has a part and a text"):
        list(promises.promises_of(ast.parse(source), "tests/test_x.py"))


def test_a_test_with_parameters_has_one_state(promises: ModuleType, tmp_path: Path) -> None:
    cases = [
        '<testcase classname="tests.test_promises" name="test_x[1]"/>',
        '<testcase classname="tests.test_promises" name="test_x[2]"><skipped message="no GPU"/></testcase>',
        '<testcase classname="tests.test_promises" name="test_y"><skipped message="no GPU"/></testcase>',
        '<testcase classname="tests.test_promises.TestZ" name="test_z"/>',
        '<testcase classname="tests.test_promises.TestZ" name="test_z[2]"><failure message="1 != 2"/></testcase>',
    ]
    results = tmp_path / "tests.xml"
    results.write_text(
        f'<testsuites><testsuite timestamp="2026-11-27T10:00:00">{"".join(cases)}</testsuite></testsuites>'
    )
    assert promises.states_of(results) == {
        "tests/test_promises.py::test_x": {"state": "passed", "reason": "", "date": "2026-11-27"},
        "tests/test_promises.py::test_y": {"state": "skipped", "reason": "no GPU", "date": "2026-11-27"},
        "tests/test_promises.py::TestZ::test_z": {"state": "failed", "reason": "", "date": "2026-11-27"},
    }


def test_the_page_shows_promise_test_and_state(promises: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_x.py").write_text(SOURCE)
    states = tmp_path / "promises.json"
    states.write_text(
        json.dumps({"tests/test_x.py::test_rates": {"state": "skipped", "reason": "no GPU", "date": "D"}})
    )
    page = promises.promises_page(tmp_path / "tests", states)
    assert "| rates are exact | `test_rates` | slow, skipped D: no GPU |" in page
    assert "| a \\| in a row | `TestRows::test_row` | slow, not run yet |" in page
