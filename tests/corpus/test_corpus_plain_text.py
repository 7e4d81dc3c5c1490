import pytest

from caslon.corpus.plain_text import write_plain_text
from caslon.corpus.shards import read_documents, read_texts
from caslon.errors import UserError

TEXT = "".join(f"line {number}: naïve £5\r\n" for number in range(100))


def test_a_text_is_cut_in_its_order_and_nothing_is_changed(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(TEXT.encode())
    write_plain_text(file, tmp_path / "out", (0.9, 0.1))
    parts = [text for split in ("train", "validation", "test") for _, text in read_texts(tmp_path / "out", split)]
    assert parts == [TEXT[: int(0.9 * len(TEXT))], TEXT[int(0.9 * len(TEXT)) :]]
    (document,) = read_documents(tmp_path / "out", "validation")
    assert (document.blocks[0].start, document.blocks[0].end) == (len(parts[0]), len(TEXT))


def test_its_id_is_that_of_bytes_and_shares_not_of_the_name(tmp_path):
    thirds = (0.8, 0.1, 0.1)
    made = [("a", TEXT, (0.9, 0.1)), ("b", TEXT, (0.9, 0.1)), ("a", TEXT, thirds), ("a", "b" * 99, (0.9, 0.1))]
    ids = []
    for name, text, shares in made:
        (tmp_path / name).write_bytes(text.encode())
        ids.append(write_plain_text(tmp_path / name, tmp_path / "out", shares))
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


@pytest.mark.promise("pretraining", "tiny Shakespeare's 1,115,394 bytes are cut in 1,003,854 and 111,540")
def test_a_megabyte_is_cut_where_lessons_cut_it(tmp_path):
    (tmp_path / "a").write_bytes(b"To be, or not" * 85_799 + b"to b" + b"e" * 3)
    write_plain_text(tmp_path / "a", tmp_path / "out", (0.9, 0.1))
    sizes = [len(text) for split in ("train", "validation") for _, text in read_texts(tmp_path / "out", split)]
    assert sizes == [1_003_854, 111_540]


@pytest.mark.parametrize(
    ("data", "what"), [(b"", "none for the train"), (b"abc", "none for the"), (b"\xff" * 99, "not UTF-8")]
)
def test_a_text_that_cannot_be_used_is_refused(data, what, tmp_path):
    (tmp_path / "a").write_bytes(data)
    shares = (0.1, 0.9) if data == b"abc" else (0.9, 0.1)
    with pytest.raises(UserError, match=what):
        write_plain_text(tmp_path / "a", tmp_path, shares)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        write_plain_text(tmp_path / "none.txt", tmp_path, (0.9, 0.1))
