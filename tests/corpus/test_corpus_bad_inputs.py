"""The real folder of bad inputs beside good texts, through a whole build: each file must end as its list says."""

import json
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from caslon.corpus.pipeline import build, remove_work
from caslon.corpus.registry import SourceEntry, load_sources
from caslon.corpus.settings import CorpusSettings
from caslon.corpus.shards import read_documents, read_rejects
from caslon.corpus.truth import truth
from caslon.observe.events import EventLog

ARCHIVE = "ecco-tcp-txt.tar.bz2"
ORIGINALS = ("K021003.000", "K111807.000")  # of which the duplicates are copies
GOOD_TEXTS = 12  # besides these
KEPT = "kept"
COPIES = {"exact_duplicate", "near_duplicate"}
SETTINGS = CorpusSettings.model_validate(
    {
        "sources": "texts", "roles": ("train", "duplicate", "negative"), "period": (1500, 1850), "long_s": "modern",
        "split": (0.6, 0.2, 0.2), "workers": 1,
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def texts(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bad files, the originals of the copies among them and some good texts, with their part of the inventory."""
    london = real_data / "london"
    if not (london / "bad").is_dir() or not (london / ARCHIVE).is_file():
        pytest.skip("the folder of bad inputs, or the archive with its originals, is not here")
    rows = json.loads((london / "sources.json").read_text(encoding="utf-8"))["files"]
    folder = tmp_path_factory.mktemp("texts")
    (folder / "bad").symlink_to(london / "bad")
    originals = [row for row in rows if row["archive"] == ARCHIVE and any(name in row["path"] for name in ORIGINALS)]
    others = [row for row in rows if row["archive"] == ARCHIVE and row["role"] == "train" and row not in originals]
    good = {
        row["path"]: row for row in (*originals, *sorted(others, key=lambda row: row["bytes"])[20 : 20 + GOOD_TEXTS])
    }
    with tarfile.open(london / ARCHIVE) as archive:
        for member in archive:
            if member.name in good:
                archive.extract(member, folder, filter="data")
    wanted = [{**row, "archive": None} for row in good.values()]
    wanted += [row for row in rows if row["path"].startswith("bad/")]
    (folder / "sources.json").write_text(json.dumps({"files": wanted}), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def entries(texts: Path) -> tuple[SourceEntry, ...]:
    return load_sources(str(texts), texts, roles=SETTINGS.roles, period=SETTINGS.period)


@pytest.fixture(scope="module")
def corpus(entries: tuple[SourceEntry, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    build(entries, SETTINGS, 1, folder, EventLog(None))
    remove_work(folder)
    return folder


@pytest.fixture(scope="module")
def outcomes(corpus: Path) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for document in read_documents(corpus):
        found.setdefault(document.origin.path, Counter())[KEPT] += 1
    for reject in read_rejects(corpus):
        if reject.code != "short_segment":
            found.setdefault(reject.origin.path, Counter())[reject.code] += 1
    return found


# What is done with each file whose list says "reject", "drop" or "salvage".
REJECTED = {
    "bytes-corrupted.txt": "decode_failed", "random-binary.txt": "unknown_type", "image-named.txt": "unknown_type",
    "empty.txt": "empty", "empty.xml": "empty", "only-whitespace.txt": "empty", "only-bom.txt": "empty",
    "error-404.txt": "error_page", "spam-repeated-line.txt": "repetitive", "digits-and-tables.txt": "low_meaningful_ratio",
    "one-long-token.txt": "garbled", "deep-nesting.xml": "unsafe_xml", "entity-expansion.xml": "unsafe_xml",
    "external-entity.xml": "unsafe_xml", "html-with-script.html": "no_text", "gutenberg-licence-only.txt": "no_text",
    "modern-technical-doc.md": "out_of_period", "deceptive-date.txt": "out_of_period",
}  # fmt: skip
SALVAGED = {
    "truncated-ecco.xml": "malformed_xml", "truncated-oldbailey.xml": "malformed_xml", "gzip-truncated.txt.gz": "truncated",
}  # fmt: skip
ORIGINAL_OF = {
    "utf16-with-bom.txt": "K021003", "mojibake.txt": "K021003", "exact-copy-other-name.txt": "K111807",
}  # fmt: skip
READ = (  # kept or left for a text that is like them
    "nul-bytes.txt", "crlf-and-form-feeds.txt", "ocr-noise-simulated.txt", "latin1-declared-utf8.xml", "sentences-shuffled.txt",
    "pdf-named.html",
)  # fmt: skip
UNNOTICED_ADVERTISEMENTS = 1  # of twelve lists of books


def test_every_bad_file_has_an_outcome(texts: Path, outcomes: dict[str, Counter[str]]) -> None:
    names = {f"bad/{path.name}" for path in (texts / "bad").iterdir()}
    assert len(names) == 42
    assert names <= set(outcomes)
    known = {*REJECTED, *SALVAGED, *ORIGINAL_OF, *READ}
    assert {name for name in names if not name.startswith("bad/advert-page")} == {f"bad/{name}" for name in known}


@pytest.mark.parametrize(("name", "code"), REJECTED.items())
def test_what_must_go_goes_with_its_code(outcomes: dict[str, Counter[str]], name: str, code: str) -> None:
    assert outcomes[f"bad/{name}"] == {code: 1}


@pytest.mark.parametrize(("name", "code"), SALVAGED.items())
def test_what_is_whole_in_a_damaged_file_is_read(outcomes: dict[str, Counter[str]], name: str, code: str) -> None:
    found = outcomes[f"bad/{name}"]
    assert found[code] == 1
    assert found[KEPT] or COPIES & set(found)


@pytest.mark.parametrize(("name", "original"), ORIGINAL_OF.items())
def test_one_of_two_copies_stays(outcomes: dict[str, Counter[str]], name: str, original: str) -> None:
    original_path = next(path for path in outcomes if original in path)
    assert COPIES & {*outcomes[f"bad/{name}"], *outcomes[original_path]}


@pytest.mark.parametrize("name", READ)
def test_what_can_be_read_is_read(outcomes: dict[str, Counter[str]], name: str) -> None:
    found = outcomes[f"bad/{name}"]
    assert sum(found.values()) == 1
    assert set(found) <= {KEPT, *COPIES}


def test_lists_of_books_are_advertisements(outcomes: dict[str, Counter[str]]) -> None:
    pages = [found for name, found in outcomes.items() if name.startswith("bad/advert-page")]
    assert len(pages) == 12
    assert sum(found == {"ad_dense": 1} for found in pages) >= 12 - UNNOTICED_ADVERTISEMENTS


def test_the_figures_beside_the_inventory(corpus: Path, entries: tuple[SourceEntry, ...]) -> None:
    found = truth(corpus, entries, SETTINGS.languages)
    assert found is not None
    assert found["train_kept"] == {
        "part": GOOD_TEXTS + len(ORIGINALS),
        "whole": GOOD_TEXTS + len(ORIGINALS),
        "share": 1.0,
    }
    assert found["train_lost"] == []
    by_kind = {kind: share["part"] for kind, share in found["duplicates_caught"]["by_kind"].items()}
    assert by_kind["byte-for-byte copy of another file"] == by_kind["good text in UTF-16 with BOM"] == 1
    assert by_kind["same sentences as another file in random order"] == 0  # the known limit of these filters
    negatives = found["negatives_caught"]
    assert negatives["whole"] == 35
    assert negatives["part"] >= 29
    assert found["filters"]["period"]["precision"]["share"] == 1.0
