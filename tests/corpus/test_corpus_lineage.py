import tarfile
from pathlib import Path

import pytest
from made_documents import folder_of_texts, prose

from caslon.corpus.lineage import explain, narrowed, why
from caslon.corpus.pipeline import build
from caslon.corpus.registry import SourceEntry, load_sources
from caslon.corpus.settings import CorpusSettings, SegmentSettings
from caslon.corpus.shards import read_documents, read_rejects, read_segments
from caslon.errors import StorageError, UserError
from caslon.observe.events import EventLog

REAL_DATA = Path(__file__).parents[3] / "shared/data/london"


def make(source: str, base: Path, folder: Path, **values: object) -> tuple[SourceEntry, ...]:
    folder.mkdir(parents=True)
    settings = CorpusSettings(sources=source, split=(0.6, 0.2, 0.2), workers=1, **values)  # type: ignore[arg-type]
    entries = load_sources(source, base, roles=settings.roles, only=settings.only)
    build(entries, settings, 1, folder, EventLog(None))
    return entries


def words(text: str) -> str:
    return " ".join(text.split())


def test_every_segment_leads_back_to_its_words_in_an_archive(tmp_path: Path) -> None:
    texts = folder_of_texts(tmp_path / "texts")
    with tarfile.open(tmp_path / "texts.tar.bz2", "w:bz2") as archive:
        archive.add(texts, arcname="inside")
    entries = make(str(tmp_path / "texts.tar.bz2"), tmp_path, tmp_path / "corpus")
    found = list(read_segments(tmp_path / "corpus"))
    for segment in found[::7]:
        lineage = explain(segment.id, tmp_path / "corpus", entries)
        assert (lineage.path, lineage.member) == ("texts.tar.bz2", segment.origin.member)
        raw = (texts / Path(segment.origin.member).name).read_text(encoding="utf-8")
        assert raw[lineage.start : lineage.end] == lineage.raw_passage
        assert words(lineage.raw_passage) == words(segment.text) == words(lineage.final_passage)


def test_a_cut_paragraph_is_narrowed_to_its_own_words(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for seed in range(6):
        wrapped = prose(seed, 1, 40).replace(", and", ",  and").replace(". The", ".  The")
        (texts / f"{seed}.txt").write_text(wrapped, encoding="utf-8")
    small = SegmentSettings(maximum_characters=400, minimum_characters=50)
    entries = make(str(texts), tmp_path, tmp_path / "corpus", segments=small)
    for segment in list(read_segments(tmp_path / "corpus"))[:30]:
        lineage = explain(segment.id, tmp_path / "corpus", entries)
        assert words(lineage.raw_passage) == words(segment.text)


def test_a_whole_document_can_be_explained(tmp_path: Path) -> None:
    texts = folder_of_texts(tmp_path / "texts", 8)
    entries = make(str(texts), tmp_path, tmp_path / "corpus")
    document = next(read_documents(tmp_path / "corpus"))
    lineage = explain(document.id, tmp_path / "corpus", entries)
    assert lineage.kind == "document"
    assert words(lineage.raw_passage) == words(document.text)
    assert lineage.to_json()["raw_sha256"] == document.origin.sha256


def test_why_gives_text_and_reason_of_every_reject(tmp_path: Path) -> None:
    make(str(folder_of_texts(tmp_path / "texts", 8)), tmp_path, tmp_path / "corpus")
    rejects = list(read_rejects(tmp_path / "corpus"))
    assert len(rejects) >= 6
    for reject in rejects:
        fate = why(reject.id, tmp_path / "corpus")
        assert not fate.kept
        assert [(found.code, found.text) for found in fate.rejects] == [(reject.code, reject.text)]
        assert fate.rejects[0].reason
    segment = next(read_segments(tmp_path / "corpus"))
    assert why(segment.id, tmp_path / "corpus").kept


def test_a_changed_or_missing_raw_file_is_noticed(tmp_path: Path) -> None:
    texts = folder_of_texts(tmp_path / "texts", 8)
    entries = make(str(texts), tmp_path, tmp_path / "corpus")
    segment = next(read_segments(tmp_path / "corpus"))
    (texts / segment.origin.path).write_text("something else", encoding="utf-8")
    with pytest.raises(StorageError, match="not the one the corpus was made from"):
        explain(segment.id, tmp_path / "corpus", entries)
    (texts / segment.origin.path).unlink()
    with pytest.raises(UserError, match="not there any more"):
        explain(segment.id, tmp_path / "corpus", entries)
    with pytest.raises(UserError, match="no document, segment or reject"):
        explain("f" * 16, tmp_path / "corpus", entries)


def test_narrowing_looks_through_tags_and_keeps_the_range_when_words_changed() -> None:
    raw = "<p>One two <hi>three</hi> four five six seven.</p><p>Eight nine ten eleven.</p>"
    start, end = narrowed(raw, 0, len(raw), "three four five six seven. Eight nine ten")
    assert raw[start:end] == "three</hi> four five six seven.</p><p>Eight nine ten"
    assert narrowed(raw, 3, 40, "nothing like it here") == (3, 40)


@pytest.mark.skipif(not (REAL_DATA / "sources.json").is_file(), reason="the London data are not beside the repository")
def test_passages_of_real_files_hold_the_same_words(tmp_path: Path) -> None:
    registry = str(REAL_DATA / "sources.json")
    entries = make(registry, REAL_DATA, tmp_path / "corpus", roles=("sample",), only=("sample",))
    found = list(read_segments(tmp_path / "corpus"))
    checked = found[:: max(1, len(found) // 40)]
    for segment in checked:
        lineage = explain(segment.id, tmp_path / "corpus", entries)
        first = "".join(char for char in segment.text.split()[0] if char.isalpha())
        assert lineage.raw_passage
        assert first in lineage.raw_passage.replace("∣", "").replace("ſ", "s") or "<" in lineage.raw_passage
