import json
from pathlib import Path

import pytest

from caslon.errors import StorageError, UserError
from caslon.tokenizer.chat_files import ChatRows, TooLong, read_conversations, write_chat_files
from caslon.tokenizer.tokenizer import Tokenizer

LONG = "word " * 200
RECORDS = [
    {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "I <|end|>, sir."}]},
    {"messages": [{"role": "user", "content": LONG}, {"role": "assistant", "content": "Aye."}]},
    {
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "muted", "weight": 0},
            {"role": "user", "content": "b"},
            {"role": "assistant", "content": "learned"},
        ]
    },
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "chat.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return path


def test_rows_have_ids_mask_and_ranges_and_long_ones_are_listed(
    tokenizer: Tokenizer, file: Path, tmp_path: Path
) -> None:
    length = len(tokenizer.encode_chat(RECORDS[1]["messages"]).ids)
    meta = write_chat_files(tmp_path / "out", tokenizer, read_conversations([file]), context=length - 1)
    assert meta.too_long == (TooLong("chat.jsonl line 2", length),)
    rows = ChatRows.open(tmp_path / "out")
    assert rows.meta == meta
    assert [row["row"] for row in rows.table] == ["chat.jsonl line 1", "chat.jsonl line 3"]
    assert len(rows) == meta.rows == 2
    for number, record in ((0, RECORDS[0]), (1, RECORDS[2])):
        expected = tokenizer.encode_chat(record["messages"])
        assert rows[number].ids == expected.ids
        assert rows[number].ranges == expected.ranges
    assert rows[0].assistant_mask == tokenizer.encode_chat(RECORDS[0]["messages"]).assistant_mask
    learned = [id for id, on in zip(rows[1].ids, rows[1].assistant_mask, strict=True) if on]
    assert tokenizer.decode(learned) == "learned<|end|>"
    assert meta.learned_tokens == sum(rows[0].assistant_mask) + len(learned)
    assert meta.tokens == len(rows.ids)


def test_nothing_is_left_out_when_all_fits(tokenizer: Tokenizer, file: Path, tmp_path: Path) -> None:
    meta = write_chat_files(tmp_path / "out", tokenizer, read_conversations([file]), context=10_000)
    assert (meta.rows, meta.too_long) == (3, ())
    again = write_chat_files(tmp_path / "again", tokenizer, read_conversations([file]), context=10_000)
    assert again == meta


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("nonsense", "not JSON"),
        ('{"text": "x"}', "list of messages"),
        ('{"messages": [{"role": "wizard", "content": "x"}]}', "unknown role"),
        ('{"messages": []}', "no messages"),
    ],
)
def test_a_bad_row_is_named(tokenizer: Tokenizer, tmp_path: Path, line: str, what: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text("\n" + line + "\n")
    with pytest.raises(UserError, match=what) as caught:
        write_chat_files(tmp_path / "out", tokenizer, read_conversations([path]), context=100)
    assert "line 2" in (caught.value.where or "")
    assert not (tmp_path / "out" / "meta.json").exists()


def test_opening_what_is_not_there_or_damaged(tokenizer: Tokenizer, file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no chat token files"):
        ChatRows.open(tmp_path)
    write_chat_files(tmp_path / "out", tokenizer, read_conversations([file]), context=10_000)
    (tmp_path / "out" / "chat-mask.bin").write_bytes(b"")
    with pytest.raises(StorageError, match="cut short"):
        ChatRows.open(tmp_path / "out")
    assert len(ChatRows.open(_empty(tokenizer, tmp_path))) == 0


def _empty(tokenizer: Tokenizer, folder: Path) -> Path:
    write_chat_files(folder / "empty", tokenizer, [], context=10)
    return folder / "empty"
