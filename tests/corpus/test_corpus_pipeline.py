import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from made_documents import folder_of_texts, prose

from caslon.corpus import batches as batches_module
from caslon.corpus.batches import batches as batches_of
from caslon.corpus.collect import RawFile, raw_files
from caslon.corpus.document import Document, Reject
from caslon.corpus.phases.reading import ReadTask, read_batch
from caslon.corpus.pipeline import Totals, build, remove_work, stored_totals
from caslon.corpus.registry import load_sources
from caslon.corpus.settings import CorpusSettings
from caslon.corpus.shards import SPLITS, find_rejects, read_documents, read_rejects, read_segments
from caslon.corpus.steps import StepCounts
from caslon.corpus.work import finished
from caslon.errors import CaslonError, UserError
from caslon.observe.events import EventLog

ROOT = Path(__file__).parents[2]
SPLIT = (0.6, 0.2, 0.2)


def build_corpus(texts: Path, folder: Path, **values: object) -> Totals:
    folder.mkdir(parents=True, exist_ok=True)
    settings = CorpusSettings(sources=str(texts), **{"split": SPLIT, "workers": 1, **values})  # type: ignore[arg-type]
    totals = build(load_sources(settings.sources, texts), settings, 1, folder, EventLog(None))
    remove_work(folder)
    return totals


def content(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of_texts(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def corpus(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Totals]:
    folder = tmp_path_factory.mktemp("corpus")
    return folder, build_corpus(texts, folder)


def test_every_text_ends_where_it_should(corpus: tuple[Path, Totals]) -> None:
    folder, totals = corpus
    codes = {reject.origin.path: reject.code for reject in read_rejects(folder)}
    assert codes.pop("empty.txt") == "empty"
    assert codes.pop("short.txt") == "too_short"
    assert codes.pop("spam.txt") == "repetitive"
    assert codes.pop("german.txt") == "wrong_language"
    assert sorted(codes.values()) == ["exact_duplicate", "near_duplicate"]
    assert set(codes) < {"copy.txt", "nearly.txt", "good-03.txt"}
    kept = [document.origin.path for document in read_documents(folder)]
    assert len(kept) == 24
    assert totals.rejects.total() == 6


def test_documents_and_characters_are_conserved_at_every_step(corpus: tuple[Path, Totals]) -> None:
    folder, totals = corpus
    for name, counts in totals.steps.items():
        assert counts.documents_in == counts.documents_out + counts.documents_rejected, name
        accounted = counts.characters_out + counts.characters_rejected + counts.characters_removed
        assert counts.characters_in == accounted + counts.characters_changed, name
    steps = list(totals.steps.values())
    for before, after in pairwise(steps):
        assert before.documents_out == after.documents_in
        assert before.characters_out == after.characters_in
    written = sum(len(document.text) for document in read_documents(folder))
    assert totals.steps["privacy"].characters_out == written == sum(totals.characters.values())
    dropped = sum(len(reject.text) for reject in read_rejects(folder) if reject.code != "short_segment")
    assert dropped == sum(counts.characters_rejected for name, counts in totals.steps.items() if name != "segments")


def test_totals_count_what_was_written(corpus: tuple[Path, Totals]) -> None:
    folder, totals = corpus
    for split in SPLITS:
        assert totals.documents[split] == sum(1 for _ in read_documents(folder, split)) > 0
        assert totals.segments[split] == sum(1 for _ in read_segments(folder, split)) > 0
    stored = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert stored["dataset_id"] == totals.dataset_id
    assert "seconds" not in json.dumps(stored)
    assert stored_totals(folder).to_json() == totals.to_json()


def test_copies_and_their_kept_text_share_a_group(corpus: tuple[Path, Totals]) -> None:
    folder, _ = corpus
    duplicates = [reject for reject in read_rejects(folder) if reject.code.endswith("duplicate")]
    kept = {document.id for document in read_documents(folder)}
    for reject in duplicates:
        assert reject.metadata["kept"] in kept
        assert reject.metadata["jaccard"] >= 0.8
        assert reject.metadata["kept_address"] in reject.reason


def test_one_and_two_workers_write_the_same_bytes(
    texts: Path, corpus: tuple[Path, Totals], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "BATCH_FILES", 7)
    build_corpus(texts, tmp_path / "two", workers=2)
    assert content(tmp_path / "two") == content(corpus[0])


def test_a_killed_build_goes_on_and_ends_the_same(texts: Path, corpus: tuple[Path, Totals], tmp_path: Path) -> None:
    """SIGKILL at random moments; what is done stays done, and the last call gives an uninterrupted build's bytes."""
    folder = tmp_path / "killed"
    folder.mkdir()
    program = (
        "import sys, pathlib\n"
        "sys.path.insert(0, sys.argv[3])\n"
        "from caslon.corpus import batches\n"
        "batches.BATCH_FILES = 3\n"
        "from test_corpus_pipeline import build_corpus\n"
        "build_corpus(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", program, str(texts), str(folder), str(Path(__file__).parent)]
    random_numbers = random.Random(3)
    for _ in range(3):
        process = subprocess.Popen(command, cwd=ROOT)
        wait_for_batches(folder, random_numbers.randrange(1, 9), process)
        time.sleep(random_numbers.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, cwd=ROOT, check=True)
    assert content(folder) == content(corpus[0])


def wait_for_batches(folder: Path, count: int, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None and len(list((folder / "work").glob("*.json"))) < count:
        time.sleep(0.005)


def test_the_order_of_files_changes_no_id(texts: Path, corpus: tuple[Path, Totals], tmp_path: Path) -> None:
    entries = load_sources(str(texts), texts)
    settings = CorpusSettings(sources=str(texts), split=SPLIT, workers=1)
    shuffled = list(raw_files(entries))
    random.Random(5).shuffle(shuffled)
    folder = tmp_path / "shuffled"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("caslon.corpus.pipeline.raw_files", lambda *_: iter(shuffled))
        totals = build(entries, settings, 1, folder, EventLog(None))
    assert totals.dataset_id == corpus[1].dataset_id


def test_finished_batches_are_not_done_again(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = CorpusSettings(sources=str(texts), split=SPLIT, workers=1)
    folder = tmp_path / "corpus"
    folder.mkdir()
    first = build(load_sources(str(texts), texts), settings, 1, folder, EventLog(None))

    def fail(*_: object) -> None:
        raise AssertionError("a finished batch was cleaned again")

    for phase in ("reading", "judging", "finishing"):
        monkeypatch.setattr(f"caslon.corpus.phases.{phase}.finish", fail)
    again = build(load_sources(str(texts), texts), settings, 1, folder, EventLog(None))
    assert again.to_json() == first.to_json()


def raw(text: str, name: str = "a.txt") -> RawFile:
    data = text.encode()
    return RawFile("source", name, "", data, hashlib.sha256(data).hexdigest(), {"tier": "general"})


def test_batches_are_bounded_by_files_and_bytes() -> None:
    files = [raw("x" * 100, f"{number}.txt") for number in range(600)]
    assert [len(batch.raw_files) for batch in batches_of(files)] == [256, 256, 88]
    assert [len(batch.raw_files) for batch in batches_of(files[:10], size_bytes=300)] == [3, 3, 3, 1]


def test_a_batch_of_other_files_is_not_taken_for_finished(tmp_path: Path) -> None:
    (one,) = batches_of([raw(prose(1))])
    (other,) = batches_of([raw(prose(2))])
    read_batch(one, ReadTask(CorpusSettings(), tmp_path, tmp_path, count_words=False))
    assert finished(tmp_path, "read", 0, one.digest) is not None
    assert finished(tmp_path, "read", 0, other.digest) is None


def test_a_document_that_breaks_a_step_is_a_reject_with_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = folder_of_texts(tmp_path / "texts")

    def broken(document: Document, settings: CorpusSettings, detector: str) -> Document | Reject:
        if document.origin.path == "good-05.txt":
            raise ZeroDivisionError("a text no one thought of")
        return document

    monkeypatch.setattr("caslon.corpus.phases.judging.language", broken)
    build_corpus(texts, tmp_path / "corpus")
    failed = [reject for reject in read_rejects(tmp_path / "corpus") if reject.code == "step_failed"]
    assert [reject.origin.path for reject in failed] == ["good-05.txt"]
    assert failed[0].step == "language"
    assert "ZeroDivisionError: a text no one thought of (at test_corpus_pipeline.py:" in failed[0].reason
    assert str(tmp_path) not in failed[0].reason
    assert failed[0].text.startswith("The ")
    assert find_rejects(tmp_path / "corpus", failed[0].id) == tuple(failed)


def test_a_reader_that_breaks_is_a_reject_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> object:
        raise OSError("the reader gave up")

    monkeypatch.setattr("caslon.corpus.phases.reading.LimitedReader.read", broken)
    (batch,) = batches_of([raw("some text")])
    summary = read_batch(batch, ReadTask(CorpusSettings(), tmp_path, tmp_path, count_words=False))
    assert (summary.documents, summary.facts["rejects"]) == (0, 1)
    assert summary.counts["read"].documents_rejected == 1


def test_too_many_rejects_stop_the_build_when_asked(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(CaslonError, match="documents were rejected"):
        build_corpus(texts, tmp_path, maximum_reject_share=0.05)


def test_a_corpus_of_one_text_is_the_users_mistake(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "one.txt").write_text(prose(1), encoding="utf-8")
    with pytest.raises(UserError, match="1 groups of documents cannot fill 3 splits"):
        build_corpus(texts, tmp_path / "corpus")


def test_counts_add_up() -> None:
    counts = StepCounts(documents_in=1, characters_in=5, seconds=0.5)
    counts.add(StepCounts(documents_in=2, characters_in=7, seconds=0.25))
    assert (counts.documents_in, counts.characters_in, counts.seconds) == (3, 12, 0.75)


def test_workers_end_with_a_killed_parent(texts: Path, tmp_path: Path) -> None:
    program = (
        "import sys, pathlib, multiprocessing\n"
        "from caslon.corpus.workers import in_order\n"
        "import time\n"
        "if __name__ == '__main__':\n"
        "    for _ in in_order(time.sleep, [0.01] * 4 + [60] * 4, 2):\n"
        "        pids = [child.pid for child in multiprocessing.active_children()]\n"
        "        pathlib.Path(sys.argv[1]).write_text(' '.join(map(str, pids)))\n"
    )
    script = tmp_path / "program.py"
    script.write_text(program, encoding="utf-8")
    note = tmp_path / "pids"
    process = subprocess.Popen([sys.executable, str(script), str(note)], cwd=ROOT)
    pids: list[int] = []  # read while the program lives: the kill may hit it in the middle of a later write
    while process.poll() is None and not pids:
        time.sleep(0.02)
        pids = [int(pid) for pid in note.read_text().split()] if note.is_file() else []
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert pids
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.is_file() and status.read_text().rsplit(")", 1)[1].split()[0] == "Z")
