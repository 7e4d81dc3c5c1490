from pathlib import Path

import pytest
from made_documents import prose

from caslon.corpus.document import Block, Document, Origin
from caslon.corpus.leakage import Leakage, leakage
from caslon.corpus.segments import segments_of
from caslon.corpus.settings import SegmentSettings
from caslon.corpus.shards import DOCUMENT_SCHEMA, SEGMENT_SCHEMA, Segment, ShardWriter, document_row, segment_row
from caslon.corpus.workers import Workers
from caslon.errors import CaslonError
from caslon.observe.events import EventLog


def corpus(folder: Path, **texts: list[str]) -> Path:
    """A written corpus with these texts, by split; the group of a text is its first word."""
    for split in ("train", "validation", "test"):
        documents = ShardWriter(folder / "documents", split, DOCUMENT_SCHEMA)
        segments = ShardWriter(folder / "segments", split, SEGMENT_SCHEMA)
        for number, text in enumerate(texts.get(split, [])):
            origin = Origin("source", f"{split}-{number}.txt")
            document = Document(origin, (Block(text, 0, len(text)),), group=f"{split}-{number}")
            documents.write(document_row(document))
            for piece in segments_of(document, SegmentSettings()):
                if isinstance(piece, Segment):
                    segments.write(segment_row(piece))
        documents.close()
        segments.close()
    return folder


def check(folder: Path) -> Leakage:
    return leakage(folder, Workers(1), EventLog(None))


def words(start: int, count: int) -> str:
    return " ".join(f"word{number}" for number in range(start, start + count))


def test_texts_apart_share_nothing(tmp_path: Path) -> None:
    found = check(corpus(tmp_path, train=[words(0, 100)], validation=[words(1000, 100)], test=[words(2000, 90)]))
    assert found == Leakage(0, 0, 2, 0)
    assert list(found.warnings()) == []
    found.check(tmp_path)


def test_a_quotation_of_thirteen_words_is_counted_and_one_of_twelve_is_not(tmp_path: Path) -> None:
    thirteen = f"{words(5000, 60)} {words(20, 13)} {words(6000, 60)}"
    twelve = f"{words(7000, 60)} {words(20, 12)} {words(8000, 60)}"
    found = check(corpus(tmp_path, train=[words(0, 200)], validation=[thirteen], test=[twelve]))
    assert (found.held_out_segments, found.with_shared_runs) == (2, 1)
    assert found.shared_run_share == pytest.approx(0.5)
    assert "50.0% of the held-out segments share a run of 13 words" in next(found.warnings())


@pytest.mark.parametrize("texts_at_a_time", [1, 2])
def test_a_run_over_the_border_of_two_training_texts_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts_at_a_time: int
) -> None:
    monkeypatch.setattr("caslon.corpus.leakage.TEXTS_AT_A_TIME", texts_at_a_time)
    quotation = f"{words(5000, 60)} {words(34, 13)} {words(6000, 60)}"
    found = check(corpus(tmp_path, train=[words(0, 40), words(40, 40)], validation=[quotation]))
    assert (found.held_out_segments, found.with_shared_runs) == (1, 1)


def test_an_equal_segment_fails_the_build(tmp_path: Path) -> None:
    text = prose(1, 1, 8)
    found = check(corpus(tmp_path, train=[text], test=[text]))
    assert found.shared_segments == 1
    with pytest.raises(CaslonError, match="1 segments stand in two splits"):
        found.check(tmp_path)


def test_a_corpus_without_held_out_text_shares_nothing(tmp_path: Path) -> None:
    assert check(corpus(tmp_path, train=[words(0, 50)])) == Leakage(0, 0, 0, 0)
