import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from caslon.commands.corpus_chat import app
from caslon.errors import UserError
from caslon.train.conversations import read_rows

RUN = CliRunner()


@pytest.fixture
def alpaca(tmp_path: Path) -> Path:
    records = [
        {"instruction": "Name a bridge.", "input": "", "output": "London Bridge."},
        {"instruction": "Name a bridge!", "input": "", "output": "London bridge"},
        {"instruction": "Write to", "input": "anne@example.org", "output": "Dear Anne, I hope that you are well."},
        {"instruction": "", "input": "", "output": "Nobody asked."},
        {"instruction": "Name a river that flows through London.", "input": "", "output": "The Thames."},
    ]
    path = tmp_path / "alpaca.json"
    path.write_text(json.dumps([*records, {"nothing": 1}]), encoding="utf-8")
    return path


def called(*arguments: object) -> dict[str, object]:
    result = RUN.invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    return {"exit": result.exit_code, **json.loads(result.stdout)}


def test_import_validate_and_export(alpaca: Path, tmp_path: Path) -> None:
    rows, good, out = tmp_path / "rows.jsonl", tmp_path / "good.jsonl", tmp_path / "out.json"
    imported = called("import", alpaca, "--out", rows, "--licence", "CC0-1.0")
    assert (imported["exit"], imported["rows"]) == (0, 5)
    assert imported["rejected"] == [{"row": 6, "id": "", "reason": "of no known form; its fields are nothing"}]
    checked = called("validate", rows, "--rejects", tmp_path / "bad.jsonl", "--speech-acts")
    assert checked["exit"] == 1
    assert [one["row"] for one in checked["rejected"]] == [2, 4]  # type: ignore[attr-defined]
    assert called("validate", rows, "--out", good, "--splits", tmp_path, "--shares", "0.5 0.25 0.25")["exit"] == 0
    assert sum(len(read_rows([tmp_path / f"{name}.jsonl"])[0]) for name in ("train", "validation", "test")) == 3
    assert len(read_rows([good])[0]) == 3
    exported = called("export", good, "--format", "alpaca", "--out", out)
    assert (exported["rows"], exported["left_out"], exported["lost_fields"]) == (3, [], {})
    originals = json.loads(alpaca.read_text(encoding="utf-8"))
    assert json.loads(out.read_text(encoding="utf-8")) == [originals[0], originals[2], originals[4]]


def test_masking_is_asked_for(alpaca: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    assert called("import", alpaca, "--out", out)["personal_data"] == {}
    assert "anne@example.org" in out.read_text(encoding="utf-8")
    found = called("import", alpaca, "--out", out, "--mask")["personal_data"]
    assert isinstance(found, dict)
    assert found["email"] >= 1
    assert "anne@example.org" not in out.read_text(encoding="utf-8")
    assert "[EMAIL_1]" in out.read_text(encoding="utf-8")


def test_plain_output_names_rows_and_reasons(alpaca: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    printed = RUN.invoke(app, ["import", str(alpaca), "--out", str(rows)], catch_exceptions=False).stdout
    assert f"5 rows written to {rows}" in printed
    assert "row 6: of no known form" in printed
    printed = RUN.invoke(app, ["validate", str(rows), "--speech-acts"], catch_exceptions=False).stdout
    assert "3 good rows" in printed
    assert "row 2: the same as row 1" in printed
    assert "row 4: messages[0]: the user message is empty" in printed
    assert "user acts (by rules)" in printed
    printed = RUN.invoke(app, ["export", str(rows), "--format", "slack", "--out", str(tmp_path / "s.zip")]).stdout
    assert "row 4: Slack strips blanks around a message" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "none.json", "--out", "x"], "cannot read"),
        (["import", "{alpaca}", "--out", "x", "--format", "openai"], "there are no rows"),
        (["validate", "{alpaca}", "--max-tokens", "5"], "needs a tokenizer"),
        (["validate", "{alpaca}", "--max-tokens", "5", "--max-characters", "5"], "one in characters"),
        (["validate", "{alpaca}", "--splits", "x", "--shares", "1 2"], "three shares"),
        (["export", "{alpaca}", "--out", "x", "--format", "xml"], "'xml' does not exist"),
    ],
)
def test_mistakes_are_named(alpaca: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RUN.invoke(app, [part.format(alpaca=alpaca) for part in arguments], catch_exceptions=False)
