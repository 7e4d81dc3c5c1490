from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_documents import document, prose

from caslon.corpus.document import Block, Document, Origin, Reject, Removal
from caslon.corpus.shards import (
    DOCUMENT_SCHEMA,
    REJECT_SCHEMA,
    ShardWriter,
    document_of_row,
    document_row,
    find_document,
    find_rejects,
    read_documents,
    read_rejects,
    read_texts,
    reject_of_row,
    reject_row,
    shard_paths,
)
from caslon.errors import UserError

FULL = Document(
    Origin("book", "a.tar", "b/c.xml", "t17540116-4", "ab" * 32),
    (Block("First\n\nhalf.", 5, 40), Block("Second.", 44, 60)),
    tier="historical",
    title="Ænigma",
    year=1754,
    licence="CC0-1.0",
    group="book:4",
    scores={"score": 91.5, "ad_density": 0.01},
    metadata={"encoding": "utf-8", "nested": {"list": [1, None]}},
    removals=(Removal("ad_block", "Price 1s.", 41, 43),),
)


def write(folder: Path, documents: list[Document], split: str = "train", **options: int) -> None:
    writer = ShardWriter(folder / "documents", split, DOCUMENT_SCHEMA, **options)
    for made in documents:
        writer.write(document_row(made))
    writer.close()


def test_a_document_comes_back_as_it_was(tmp_path: Path) -> None:
    write(tmp_path, [FULL, document(prose(1))])
    assert list(read_documents(tmp_path, "train")) == [FULL, document(prose(1))]
    assert next(read_texts(tmp_path, "train")) == (FULL.id, FULL.text)
    assert find_document(tmp_path, FULL.id) == (FULL, "train")
    assert find_document(tmp_path, "0" * 16) is None


def test_equal_rows_give_equal_bytes_in_shards_by_text_size(tmp_path: Path) -> None:
    documents = [document(prose(seed, 8), path=f"{seed}.txt") for seed in range(40)]
    for name in ("one", "other"):
        write(tmp_path / name, documents, shard_bytes=1)
    first, second = (shard_paths(tmp_path / name, "documents") for name in ("one", "other"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert list(read_documents(tmp_path / "one")) == documents


def test_shards_close_at_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caslon.corpus.shards.ROW_GROUP_BYTES", 10_000)
    documents = [document(prose(seed, 8), path=f"{seed}.txt") for seed in range(40)]
    write(tmp_path, documents, shard_bytes=50_000)
    assert len(shard_paths(tmp_path, "documents", "train")) > 2
    assert list(read_documents(tmp_path)) == documents


def test_splits_are_read_apart_and_in_order(tmp_path: Path) -> None:
    for split in ("test", "train", "validation"):
        write(tmp_path, [document(split)], split)
    assert [made.text for made in read_documents(tmp_path)] == ["train", "validation", "test"]
    assert [made.text for made in read_documents(tmp_path, "test")] == ["test"]


def test_mistakes_are_the_users(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no corpus here"):
        list(read_documents(tmp_path, "train"))
    write(tmp_path, [FULL])
    with pytest.raises(UserError, match="no split 'dev'"):
        list(read_documents(tmp_path, "dev"))


def test_rejects_are_found_by_the_documents_id(tmp_path: Path) -> None:
    reject = Reject(FULL.origin, "quality", "garbled", "why", "text\ud800", 3, 8, {"scores": {"score": 1.0}})
    writer = ShardWriter(tmp_path / "rejects", "rejects", REJECT_SCHEMA)
    writer.write(reject_row(reject))
    writer.close()
    (found,) = find_rejects(tmp_path, FULL.id)
    assert found.reason == "why" and found.text == "text\ufffd" and found.metadata == reject.metadata
    assert list(read_rejects(tmp_path)) == [found]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=5), st.text(max_size=20), st.none() | st.integers(-4000, 3000))
def test_any_document_survives_a_row(parts: list[str], title: str, year: int | None) -> None:
    blocks = tuple(Block(part, number, number + 1) for number, part in enumerate(parts))
    made = Document(Origin("s", "p"), blocks, title=title, year=year, metadata={"title": title})
    assert document_of_row(document_row(made)) == made
    reject = Reject(made.origin, "step", "empty", title, made.text, 0, 1, {"x": title})
    assert reject_of_row(reject_row(reject)) == reject
