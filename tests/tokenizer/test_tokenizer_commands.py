import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from caslon.commands import tokenizer_compare, tokenizer_use
from caslon.commands.tokenizer import app
from caslon.errors import CaslonError, UserError
from caslon.folders import StageFolder
from caslon.tokenizer.encode import TokenSplit
from caslon.tokenizer.tokenizer import Tokenizer

assert tokenizer_compare.app is tokenizer_use.app is app
MESSAGES = [{"role": "user", "content": "Who art thou?"}]


def run(*arguments: object, stdin: str = "") -> Any:
    """Return what a command prints; its error is raised, as `caslon` itself would meet it."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_inspect_one_and_several(tokenizer: Tokenizer, tokenizer_folder: Path, tmp_path: Path) -> None:
    ids = tokenizer.encode("lazy <|end|>")
    assert [piece["id"] for piece in json.loads(run("inspect", tokenizer_folder, "lazy <|end|>", "--json"))] == ids
    other = tmp_path / "other"
    tokenizer.save(other)
    shown = run("inspect", tokenizer_folder, "-", "--beside", other, "--allow-special", stdin="lazy <|end|>")
    assert "1 special" in shown
    assert "(special)" in shown
    assert "other id" in shown
    both = json.loads(run("inspect", tokenizer_folder, "lazy", "--beside", other, "--json"))
    assert [found["tokenizer"] for found in both] == [tokenizer_folder.name, "other"]
    assert both[0]["tokens"] == len(tokenizer.encode("lazy"))
    run("inspect", tokenizer_folder, "a < b & lazy", "--beside", other, "--html", tmp_path / "cut.html")
    html = (tmp_path / "cut.html").read_text()
    assert html.count("background:hsl(") == 2 * len(tokenizer.encode("a < b & lazy"))
    assert "coloured-tokens-" not in html
    assert "http" not in html.split("<body>")[1]
    with pytest.raises(UserError, match="not available"):
        run("inspect", tmp_path / "missing", "x")


def test_counts_are_what_the_model_gets(tokenizer: Tokenizer, tokenizer_folder: Path, tmp_path: Path) -> None:
    assert int(run("count", tokenizer_folder, "lazy dogs")) == len(tokenizer.encode("lazy dogs"))
    assert int(run("count", tokenizer_folder, stdin="[1, 2]")) == len(tokenizer.encode("[1, 2]"))
    chat = len(tokenizer.encode_chat(MESSAGES).ids)
    assert int(run("count", tokenizer_folder, json.dumps(MESSAGES))) == chat
    assert int(run("count", tokenizer_folder, json.dumps(MESSAGES), "--prompt")) == chat + 1
    tools = [{"name": "fare"}]
    (tmp_path / "tools.json").write_text(json.dumps(tools))
    found = json.loads(
        run("count", tokenizer_folder, json.dumps(MESSAGES), "--tools", tmp_path / "tools.json", "--json")
    )
    assert found == {"messages": 1, "tokens": len(tokenizer.encode_chat(MESSAGES, tools=tools).ids)}
    (tmp_path / "a.txt").write_text("naïve fox")
    (tmp_path / "b.jsonl").write_text(
        json.dumps({"messages": MESSAGES}) + "\n" + json.dumps({"messages": MESSAGES * 2})
    )
    (tmp_path / "c.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    files = [option for name in ("a.txt", "b.jsonl", "c.jsonl") for option in ("--file", tmp_path / name)]
    rows = json.loads(run("count", tokenizer_folder, *files, "--json"))
    assert (rows[0]["tokens"], rows[0]["bytes"], rows[0]["words"]) == (len(tokenizer.encode("naïve fox")), 10, 2)
    assert (rows[1]["rows"], rows[1]["longest"]) == (2, len(tokenizer.encode_chat(MESSAGES * 2).ids))
    assert rows[2]["tokens"] == len(tokenizer.encode("one")) + len(tokenizer.encode("two"))
    assert "longest" not in run("count", tokenizer_folder, "--file", tmp_path / "a.txt")


def test_chat_shows_text_ids_and_ranges(tokenizer: Tokenizer, tokenizer_folder: Path) -> None:
    messages = [*MESSAGES, {"role": "assistant", "content": "I.", "reasoning_content": "hm"}, *MESSAGES]
    found = json.loads(run("chat", tokenizer_folder, json.dumps(messages), "--json"))
    expected = tokenizer.encode_chat(messages)
    assert (found["ids"], found["assistant_mask"]) == (expected.ids, expected.assistant_mask)
    assert [tuple(pair) for pair in found["ranges"]] == expected.ranges
    shown = run("chat", tokenizer_folder, "--prompt", "--drop-earlier-thinking", stdin=json.dumps(messages))
    assert "<|think|>" not in shown
    assert shown.split("\n")[0].endswith("<|assistant|>")
    with pytest.raises(UserError, match="the context 3"):
        run("chat", tokenizer_folder, json.dumps(messages), "--context", 3)
    with pytest.raises(UserError, match="no conversation"):
        run("chat", tokenizer_folder, "hello")
    with pytest.raises(UserError, match="no messages"):
        run("chat", tokenizer_folder, "[]")
    with pytest.raises(UserError, match="unknown role"):
        run("chat", tokenizer_folder, '[{"role": "wizard", "content": "x"}]')


@pytest.fixture
def corpus_folder(corpus: StageFolder) -> Path:
    sizes = [
        ("train", 60, "documents"),
    ]
    totals = {"dataset_id": "x" * 64, "splits": {split: {name: count} for split, count, name in sizes}}
    (corpus.path / "manifest.json").write_text(replace(corpus.manifest, totals=totals).to_json())
    return corpus.path


def test_tokens_of_a_corpus_decode_to_it(
    tokenizer: Tokenizer, tokenizer_folder: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    shown = run("tokens", tokenizer_folder, corpus_folder, "--out", tmp_path / "documents", "--workers", 1, "--check")
    assert "every one of 70 documents decodes to its text" in shown
    assert "126 MB of ids for about 270 million characters, 0.233" in shown
    found = json.loads(
        run("tokens", tokenizer_folder, corpus_folder, "--out", tmp_path / "segments", "--unit", "segment",
            "--workers", 2, "--check", "--json")
    )  # fmt: skip
    assert found["units_checked"] == 210
    assert found["splits"]["train"]["documents"] == 60
    assert found["dataset_id"] == "x" * 64
    assert TokenSplit.open(tmp_path / "segments", "test").meta.unit == "segment"


def test_tokens_that_do_not_agree_with_the_manifest_fail(
    tokenizer_folder: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    manifest = corpus_folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"documents": 60', '"documents": 61'))
    with pytest.raises(CaslonError, match="holds 60 documents, its manifest says 61"):
        run("tokens", tokenizer_folder, corpus_folder, "--out", tmp_path / "out", "--workers", 1)
    with pytest.raises(UserError, match="one corpus folder"):
        run("tokens", tokenizer_folder, corpus_folder, corpus_folder, "--out", tmp_path / "two")


def test_tokens_of_conversations_list_what_is_too_long(tokenizer_folder: Path, tmp_path: Path) -> None:
    answer = {"role": "assistant", "content": "word " * 200}
    rows = [{"messages": [*MESSAGES, {"role": "assistant", "content": "I."}]}, {"messages": [*MESSAGES, answer]}]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = run("tokens", tokenizer_folder, tmp_path / "chat.jsonl", "--out", tmp_path / "out", "--context", 100)
    assert shown.startswith("1 rows, ")
    assert "left out: chat.jsonl line 2 has" in shown


def test_compare_and_import(tokenizer_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="plotly (extra `report`) is not installed")
    run("import", tokenizer_folder, "--format", "hf", "--name", "mine", "--out", tmp_path / "mine")
    (tmp_path / "text.txt").write_text("the lazy dogs, £5")
    out = tmp_path / "report"
    shown = run(
        "compare",
        tokenizer_folder,
        tmp_path / "mine",
        tmp_path / "gpt2",
        "--texts",
        tmp_path / "text.txt",
        "--out",
        out,
    )
    assert "gpt2: not available" in shown
    numbers = json.loads((out / "report.json").read_text())
    assert [row["name"] for row in numbers["tokenizers"]] == [tokenizer_folder.name, "mine"]
    assert numbers["tokenizers"][1]["imported"]["table"] == "mine"
    with pytest.raises(UserError, match="exists already"):
        run("import", tokenizer_folder, "--format", "hf", "--out", tmp_path / "mine")
