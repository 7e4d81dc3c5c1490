import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caslon.errors import UserError
from caslon.tokenizer.examine import examine
from caslon.tokenizer.inspect import count_chat, count_text, pieces
from caslon.tokenizer.texts import texts_of_files
from caslon.tokenizer.tokenizer import Tokenizer


def test_pieces_show_what_cannot_be_seen(tokenizer: Tokenizer) -> None:
    found = pieces(tokenizer, " x\n漢<|end|>", allow_special=True)
    assert b"".join(piece.bytes for piece in found).decode() == " x\n漢<|end|>"
    shown = [piece.shown for piece in found]
    assert "␣" in shown[0]
    assert "⏎" in shown
    assert "<E6>" in shown
    assert [piece.shown for piece in found if piece.special] == ["<|end|>"]
    assert json.loads(json.dumps([piece.to_json() for piece in found]))[-1]["special"] is True


def test_counts(tokenizer: Tokenizer) -> None:
    text = "naïve fox <|end|>"
    assert count_text(tokenizer, text).tokens == len(tokenizer.encode(text))
    assert count_text(tokenizer, text).bytes == len(text) + 1
    messages = [{"role": "user", "content": "hi"}]
    assert count_chat(tokenizer, messages) == len(tokenizer.encode("hi")) + 4


def test_texts_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("one\r\n£".encode())
    (tmp_path / "b.jsonl").write_text('{"text": "two"}\n{"text": "three"}\n')
    pq.write_table(pa.table({"text": ["four"]}), tmp_path / "c.parquet")
    paths = [tmp_path / name for name in ("a.txt", "b.jsonl", "c.parquet")]
    assert list(texts_of_files(paths)) == ["one\r\n£", "two", "three", "four"]


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("a.txt", b"\xff", "not UTF-8"),
        ("a.jsonl", b'{"text": "x"}\n{"no": 1}\n', "line 2"),
        ("a.jsonl", b"not json\n", "line 1"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, data: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=what):
        list(texts_of_files([tmp_path / name]))
    with pytest.raises(UserError, match="no such file"):
        list(texts_of_files([tmp_path / "missing.txt"]))


class Lossy(Tokenizer):
    def decode(self, ids: object, *, skip_special_tokens: bool = False) -> str:
        return super().decode(ids, skip_special_tokens=skip_special_tokens).replace("£", "?")


def test_a_lossy_tokenizer_fails_the_examination(tokenizer: Tokenizer) -> None:
    good = examine(tokenizer, ["fine text, £3"])
    assert good.passed
    assert good.held_out.text_bytes == 14
    assert good.held_out.words == 3
    lossy = Lossy(tokenizer.tokenizer_json, tokenizer.config, tokenizer.chat_template)
    found = examine(lossy, ["fine text, £3"])
    assert not found.passed
    assert (found.failures[0].decoded, found.failures[0].position) == ("fine text, ?3", 11)
