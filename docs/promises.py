"""Tests marked `promise` to the page of promises: what is promised, which test proves it, and how that test last ended.

    python docs/promises.py RESULTS.xml     take the states of the last run over from pytest's --junit-xml

The marks are read from the source, without importing a test, so that comparing the page with the tests takes a moment. The states
stand in docs/reference/promises.json; `make test-all` renews those of the tests it ran.
"""

import ast
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
STATES = ROOT / "docs" / "reference" / "promises.json"
INTRODUCTION = """# Promises

Each line is a promise of this project and the test that proves it. A test marked slow is run by `make test-all`; *skipped* says
what was missing where it ran last. The list is made from the marks `@pytest.mark.promise(part, text)` of the tests.
"""

State = Mapping[str, str]  # state, reason, date


@dataclass(frozen=True)
class Promise:
    """One promise and the test that proves it; `test` is pytest's name for it, without parameters."""

    part: str
    text: str
    test: str
    slow: bool


def promises_page(tests: Path = TESTS, states_file: Path = STATES) -> str:
    """Return the page of all promises, by part and file."""
    promises = sorted(promised(tests), key=lambda promise: (promise.part, promise.test.partition("::")[0]))
    states: Mapping[str, State] = json.loads(states_file.read_text()) if states_file.is_file() else {}
    lines = [INTRODUCTION]
    for part, of_part in groupby(promises, key=lambda promise: promise.part):
        lines.append(f"## {part}\n")
        for file, of_file in groupby(of_part, key=lambda promise: promise.test.partition("::")[0]):
            lines += [f"### {file}\n", "| promise | test | state |", "| --- | --- | --- |"]
            lines += [row(promise, states.get(promise.test)) for promise in of_file]
            lines.append("")
    return "\n".join(lines)


def row(promise: Promise, state: State | None) -> str:
    """Return a promise as a row of its table."""
    told = "not run yet" if state is None else f"{state['state']} {state['date']}"
    if state and state["reason"]:
        told += f": {state['reason']}"
    cells = (promise.text, f"`{promise.test.partition('::')[2]}`", f"slow, {told}" if promise.slow else told)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def promised(tests: Path) -> Iterator[Promise]:
    """Yield the promises of all test files, in the order of the files."""
    for path in sorted(tests.rglob("test_*.py")):
        source = path.read_text()
        if "mark.promise" in source:
            yield from promises_of(ast.parse(source), path.relative_to(tests.parent).as_posix())


def promises_of(module: ast.Module, file: str) -> Iterator[Promise]:
    """Yield the promises of one file's tests, those in classes too."""
    own = [
        node.value
        for node in module.body
        if isinstance(node, ast.Assign) and "pytestmark" in ast.unparse(node.targets[0])
    ]
    whole_file_slow = any("mark.slow" in ast.unparse(value) for value in own)
    for name, test, marks in tests_of(module.body, "", []):
        slow = whole_file_slow or any("mark.slow" in ast.unparse(mark) for mark in marks)
        for mark in marks:
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.promise":
                part, text = words(mark, f"{file}:{test.lineno}")
                yield Promise(part, text, f"{file}::{name}", slow)


def tests_of(
    body: Sequence[ast.stmt], prefix: str, marks: list[ast.expr]
) -> Iterator[tuple[str, ast.stmt, list[ast.expr]]]:
    """Yield name, definition and decorators of every test function, with those of its class."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from tests_of(node.body, f"{prefix}{node.name}::", marks + node.decorator_list)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            yield f"{prefix}{node.name}", node, marks + node.decorator_list


def words(mark: ast.Call, where: str) -> tuple[str, str]:
    """Return part and text of a mark; both must be written out, so that they can be read without running the test."""
    values = [argument.value for argument in mark.args if isinstance(argument, ast.Constant)]
    if len(values) != 2 or len(mark.args) != 2 or not all(isinstance(value, str) for value in values):
        raise SystemExit(f'{where}: a promise has a part and a text: @pytest.mark.promise("pretraining", "...")')
    return str(values[0]), str(values[1])


def states_of(results: Path) -> dict[str, State]:
    """Return how each test of a JUnit file ended; with parameters, a test has passed when one did and none failed."""
    states: dict[str, State] = {}
    for suite in ElementTree.parse(results).getroot().iter("testsuite"):  # noqa: S314  pytest wrote it a moment ago
        date = suite.get("timestamp", "")[:10]
        for case in suite.iter("testcase"):
            name, ended = test_name(case), state_of(case, date)
            states[name] = worse(states[name], ended) if name in states else ended
    return states


def test_name(case: ElementTree.Element) -> str:
    """Return pytest's name of a test, without parameters: its file is the longest beginning of the class name."""
    parts = case.get("classname", "").split(".")
    length = next((n for n in range(len(parts), 0, -1) if (ROOT / "/".join(parts[:n])).with_suffix(".py").is_file()), 0)
    file = "/".join(parts[:length]) + ".py"
    return "::".join([file, *parts[length:], case.get("name", "").partition("[")[0]])


def state_of(case: ElementTree.Element, date: str) -> State:
    """Return how one test ended."""
    if case.find("failure") is not None or case.find("error") is not None:
        return {"state": "failed", "reason": "", "date": date}
    skipped = case.find("skipped")
    if skipped is not None:
        return {"state": "skipped", "reason": skipped.get("message", "").removeprefix("Skipped: "), "date": date}
    return {"state": "passed", "reason": "", "date": date}


def worse(one: State, other: State) -> State:
    """Return the state of a test with parameters from those of two: failed before passed before skipped."""
    return min(one, other, key=lambda state: ("failed", "passed", "skipped").index(state["state"]))


def renew(results: Path) -> None:
    """Take the states of the promised tests in a JUnit file over into the committed ones."""
    before: dict[str, State] = json.loads(STATES.read_text()) if STATES.is_file() else {}
    after = before | states_of(results)
    kept = {promise.test: after[promise.test] for promise in promised(TESTS) if promise.test in after}
    STATES.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n")


if __name__ == "__main__":
    renew(Path(sys.argv[1]))
