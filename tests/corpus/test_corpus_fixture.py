"""Sixty and more files with known truth, built by the runner: every code, every removal, exact accounts, and one result always.

Builds with other workers, orders, kills and a full disk must give the dataset id of the plain one.
"""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fixture_corpus import FAULTS, KEPT, FixtureCorpus, build_fixture

from caslon import runner
from caslon.corpus import pipeline
from caslon.corpus.collect import Limits, RawFile, raw_files
from caslon.corpus.document import REJECT_CODES, Document, Origin, Reject
from caslon.corpus.inspect import inspect
from caslon.corpus.lineage import explain, why
from caslon.corpus.phases import reading
from caslon.corpus.read import ReadSettings, read
from caslon.corpus.read.limited import LimitedReader
from caslon.corpus.registry import load_sources
from caslon.corpus.repair import repair
from caslon.corpus.replay import replay_segments
from caslon.corpus.settings import CorpusSettings
from caslon.corpus.shards import read_documents, read_rejects, read_segments
from caslon.corpus.verify import verify
from caslon.folders import StageFolder
from caslon.recipe import load_recipe
from caslon.stages.corpus import load_entries, open_store

ROOT = Path(__file__).parents[2]
BATCH_FILES = 9  # so that the fixture makes a dozen batches
BATCHES_OF_A_BUILD = 3 * 12
PROGRAM = f"""
import sys
from caslon.corpus import batches
batches.BATCH_FILES = {BATCH_FILES}
from caslon.cli import main
if __name__ == "__main__":
    sys.argv[0] = "caslon"
    main()
"""
STORAGE_EXIT_CODE = 4
# What only the whole corpus tells, and what the store says of files that are not there.
NOT_OF_ONE_FILE = {"exact_duplicate", "near_duplicate", "source_surplus", "fetch_failed", "robots_denied"}
SECONDS_PER_HOSTILE_FILE = 10


class Impatient(LimitedReader):
    """A reader that gives one file no time at all."""

    def read(self, raw: RawFile, settings: ReadSettings | None = None) -> Iterator[Document | Reject]:
        patience, self.seconds = self.seconds, 0.0 if FAULTS.get(raw.path) == "timeout" else self.seconds
        yield from super().read(raw, settings)
        self.seconds = patience


def broken_language(document: Document, settings: CorpusSettings, detector: str) -> Document | Reject:
    from caslon.corpus.language import language

    if FAULTS.get(document.origin.path) == "step_failed":
        raise ZeroDivisionError("a text no one thought of")
    return language(document, settings, detector=detector)


@pytest.fixture(scope="module")
def fixture(tmp_path_factory: pytest.TempPathFactory) -> FixtureCorpus:
    return build_fixture(tmp_path_factory.mktemp("fixture") / "corpus")


def build(fixture: FixtureCorpus, runs: str, *overrides: str) -> Path:
    with contextlib.chdir(fixture.folder):
        return (fixture.folder / runner.run(load_recipe(fixture.recipe, overrides), Path(runs))) / "corpus"


@pytest.fixture(scope="module")
def plain(fixture: FixtureCorpus) -> Path:
    """The corpus as one process builds it."""
    return build(fixture, "plain")


@pytest.fixture(scope="module")
def faulty(fixture: FixtureCorpus) -> Path:
    """The corpus when one file takes too long and another breaks a step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "LimitedReader", Impatient)
        patch.setattr("caslon.corpus.phases.judging.language", broken_language)
        return build(fixture, "faulty")


def settings_of(fixture: FixtureCorpus) -> CorpusSettings:
    settings = load_recipe(fixture.recipe).stage("corpus").settings
    return CorpusSettings.model_validate(settings.model_dump())


def address(origin: Origin) -> str:
    return f"{origin.path}!{origin.member}" if origin.member else origin.path


def outcomes(corpus: Path) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for document in read_documents(corpus):
        found.setdefault(address(document.origin), Counter())[KEPT] += 1
    for reject in read_rejects(corpus):
        found.setdefault(address(reject.origin), Counter())[reject.code] += 1
    return found


def dataset_id(corpus: Path) -> str:
    return str(json.loads((corpus / "dataset.json").read_text(encoding="utf-8"))["dataset_id"])


def content(corpus: Path) -> dict[str, str]:
    """Return the digests of the files that depend on the texts alone."""
    files = StageFolder.open(corpus).manifest.files
    return {name: entry.sha256 for name, entry in files.items() if name.endswith((".parquet", "dataset.json"))}


# --- truth -------------------------------------------------------------------------------------------------------------


def test_the_fixture_has_sixty_files_and_every_reject_code(fixture: FixtureCorpus) -> None:
    assert sum(path.is_file() for path in (fixture.folder / "raw").rglob("*")) >= 60
    codes = {code for counts in fixture.with_faults().values() for code in counts}
    assert codes == {*REJECT_CODES, KEPT}


def test_every_file_ends_as_it_must(fixture: FixtureCorpus, faulty: Path) -> None:
    assert outcomes(faulty) == fixture.with_faults()


def test_counts_by_code_are_the_truth(fixture: FixtureCorpus, faulty: Path) -> None:
    wanted = sum(fixture.with_faults().values(), Counter())
    kept = wanted.pop(KEPT)
    totals = json.loads((faulty / "dataset.json").read_text(encoding="utf-8"))
    assert totals["rejects"] == dict(wanted)
    assert totals["documents"] == kept


def test_every_removal_is_the_truth(fixture: FixtureCorpus, plain: Path) -> None:
    removals = Counter(removal.code for document in read_documents(plain) for removal in document.removals)
    assert removals == fixture.removals
    masked = [one for document in read_documents(plain) for one in document.removals if one.code == "masked"]
    assert all(removal.text == "" and removal.characters > 0 for removal in masked)


def test_nothing_masked_stands_anywhere_in_what_is_published(plain: Path) -> None:
    for document in read_documents(plain):
        assert "john.smith@example.com" not in json.dumps([document.text, document.metadata, str(document.removals)])


def test_everything_is_conserved(faulty: Path) -> None:
    found = verify(faulty)
    assert found.problems == []
    assert found.rejects == sum(1 for _ in read_rejects(faulty))


def test_why_gives_the_whole_text_and_the_reason_of_every_reject(fixture: FixtureCorpus, faulty: Path) -> None:
    unread = {"forgotten", "licence_denied", "too_large", "fetch_failed", "robots_denied", "empty", "encrypted"}
    whole = 0
    for reject in read_rejects(faulty):
        (found,) = (
            one for one in why(reject.id, faulty).rejects if one.code == reject.code and one.text == reject.text
        )
        assert found.reason
        path = fixture.folder / "raw" / reject.origin.path
        if reject.code in unread:
            assert not found.text.strip("\ufeff \t\n")
        elif path.suffix == ".txt" and reject.step not in ("read", "segments"):
            assert letters(found.text) == letters(path.read_text(encoding="utf-8"))
            whole += 1
    assert whole >= 14


def letters(text: str) -> str:
    return "".join(re.findall(r"\w", text))


def test_every_segment_is_made_again_from_its_raw_file(fixture: FixtureCorpus, plain: Path) -> None:
    settings = settings_of(fixture)
    entries = load_entries(settings, fixture.folder)
    store = open_store(settings, fixture.folder)
    assert sum(1 for _ in read_segments(plain)) > 100
    assert replay_segments(plain, entries, settings, fixture.folder, 10**6, store) == []


def test_explain_finds_every_segment(fixture: FixtureCorpus, plain: Path) -> None:
    entries = load_entries(settings_of(fixture), fixture.folder)
    for segment in list(read_segments(plain))[::5]:
        if segment.origin.source == "fetched":
            continue  # lies in the store
        found = explain(segment.id, plain, entries)
        assert found.final_passage == segment.text
        assert found.raw_passage.strip()


# --- hostile files -----------------------------------------------------------------------------------------------------


def test_every_hostile_file_takes_seconds_at_most(fixture: FixtureCorpus) -> None:
    """Processor time of this process, so that a busy machine does not count."""
    for path in fixture.hostile:
        (entry,) = load_sources(str(path), path.parent)
        begun = time.process_time()
        for raw in raw_files((entry,)):
            for item in read(raw):
                if isinstance(item, Document):
                    repair(item)
        assert time.process_time() - begun < SECONDS_PER_HOSTILE_FILE, path.name


def test_inspecting_a_file_gives_the_verdict_of_the_build(fixture: FixtureCorpus) -> None:
    settings = settings_of(fixture)
    entries = load_entries(settings, fixture.folder)
    looked_at = 0
    for name, wanted in fixture.truth.items():
        if "!" in name or NOT_OF_ONE_FILE & set(wanted) or not (fixture.folder / "raw" / name).is_file():
            continue
        found = inspect(fixture.folder / "raw" / name, settings, fixture.folder, entries)
        codes = Counter(document.verdict for document in found.documents)
        codes.update(piece.code for document in found.documents for piece in document.segments if piece.code)
        assert codes == wanted, name
        looked_at += 1
    assert looked_at > 60


# --- one result, whatever happens --------------------------------------------------------------------------------------


def command(fixture: FixtureCorpus, runs: str, *overrides: str) -> list[str]:
    sets = [part for override in overrides for part in ("--set", override)]
    return [sys.executable, "-c", PROGRAM, "corpus", "build", "recipe.toml", "--runs", runs, *sets]


def start(fixture: FixtureCorpus, runs: str, *overrides: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command(fixture, runs, *overrides),
        cwd=fixture.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> None:
    _, said = process.communicate()
    assert process.returncode == 0, said


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_any_number_of_workers_writes_the_same_bytes(fixture: FixtureCorpus, plain: Path, workers: int) -> None:
    runs = f"workers-{workers}"
    finish(start(fixture, runs, f"corpus.workers={workers}"))
    assert content(fixture.folder / runs / "fixture" / "corpus") == content(plain)


def test_the_order_of_files_changes_no_id(fixture: FixtureCorpus, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shuffled(entries: Sequence[Any], store: Any = None, limits: Limits | None = None) -> Iterator[RawFile]:
        found = list(raw_files(entries, store, limits))
        random.Random(3).shuffle(found)
        return iter(found)

    monkeypatch.setattr(pipeline, "raw_files", shuffled)
    corpus = build(fixture, "shuffled")
    assert dataset_id(corpus) == dataset_id(plain)
    assert verify(corpus).problems == []


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_a_build_that_is_killed_again_and_again_ends_the_same(fixture: FixtureCorpus, plain: Path, kills: int) -> None:
    runs = f"killed-{kills}"
    folder = fixture.folder / runs / "fixture"
    numbers = random.Random(kills)
    for kill in range(1, kills + 1):
        process = start(fixture, runs, "corpus.workers=2")
        wait_for_batches(folder, BATCHES_OF_A_BUILD * kill // kills - numbers.randrange(3), process)
        time.sleep(numbers.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(start(fixture, runs, "corpus.workers=2"))
    assert content(folder / "corpus") == content(plain)


def wait_for_batches(folder: Path, count: int, process: "subprocess.Popen[str]") -> None:
    while process.poll() is None and sum(1 for _ in folder.glob("corpus*/work/*-*.json")) < count:
        time.sleep(0.005)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own in memory; needs the right to mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True)
    if not made or made.returncode:
        pytest.skip("no disk can be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


def resize(place: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", place], check=True)


def test_a_full_disk_stops_the_build_and_a_rerun_goes_on(fixture: FixtureCorpus, plain: Path, small_disk: Path) -> None:
    for size in ("64k", "400k", "800k"):
        resize(small_disk, size)
        process = start(fixture, str(small_disk))
        _, said = process.communicate()
        assert process.returncode == STORAGE_EXIT_CODE, (size, said)
        assert "free some disk space" in said
    resize(small_disk, "256m")
    finish(start(fixture, str(small_disk)))
    assert content(small_disk / "fixture" / "corpus") == content(plain)
