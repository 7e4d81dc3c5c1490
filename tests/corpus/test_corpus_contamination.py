import gzip
import json
import pickle
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from made_documents import document, prose

from caslon.corpus.contamination import Contamination, evaluation_texts
from caslon.corpus.document import Document, Reject
from caslon.errors import UserError

ITEM = "On what day of the week did the Great Fire of London begin in the year 1666, and where?"
OTHER = "Which of the five bridges over the river was the only one that stood within the walls of the city then?"


def contamination(folder: Path) -> Contamination:
    (folder / "items.jsonl").write_text(
        json.dumps({"question": ITEM, "choices": ["Sunday", "Monday"]}) + "\n", encoding="utf-8"
    )
    (folder / "other.csv.gz").write_bytes(gzip.compress(f'id,text\n1,"{OTHER}"\n'.encode()))
    return Contamination.load([folder / "items.jsonl", folder / "other.csv.gz"])


@pytest.mark.parametrize(("item", "file"), [(ITEM, "items.jsonl"), (OTHER, "other.csv.gz")])
@pytest.mark.parametrize("place", [0, 1, 500, 997])
def test_a_shared_run_is_found_wherever_it_stands(tmp_path: Path, item: str, file: str, place: int) -> None:
    words = prose(3, paragraphs=20, sentences=5).split()[:1000]
    run = " ".join(item.split()[2:15])
    text = " ".join([*words[:place], "beforehand", run.upper().replace(" ", " - "), *words[place:]])
    found = contamination(tmp_path).reject_if_shared(document(text))
    assert isinstance(found, Reject)
    assert (found.code, found.step, found.text) == ("contaminated", "contamination", text)
    assert found.metadata["shared_run"] == " ".join(run.lower().replace(",", "").replace("?", "").split())
    assert found.metadata["evaluation_file"].endswith(file)
    assert found.metadata["evaluation_file"] in found.reason


def test_twelve_words_are_not_enough(tmp_path: Path) -> None:
    made = document(f"He asked: {' '.join(ITEM.split()[:12])} start, {prose(1)}")
    assert contamination(tmp_path).reject_if_shared(made) is made


def test_nothing_is_done_when_nothing_is_configured() -> None:
    made = document(ITEM)
    assert Contamination.load([]).reject_if_shared(made) is made


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", ITEM), ("a.md", ITEM), ("a.json", json.dumps({"deep": [{"er": [ITEM]}]})), ("a.tsv", f"1\t{ITEM}"),
        ("lines.json", json.dumps([1]) + "\n" + json.dumps({"q": ITEM})),
    ],
)  # fmt: skip
def test_every_format_gives_its_texts(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content.encode()))
    assert ITEM in list(evaluation_texts(tmp_path / name))
    assert ITEM in list(evaluation_texts(tmp_path / f"{name}.gz"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "Too few words.", "no text of 13 words"), ("a.jsonl", '{"a": 1}\nnot json', "not JSON"),
        ("a.pdf", "x", "cannot be"),
    ],
)  # fmt: skip
def test_a_file_that_protects_nothing_is_a_mistake(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        Contamination.load([tmp_path / name])
    with pytest.raises(UserError, match="cannot read"):
        Contamination.load([tmp_path / "none.txt"])


def test_it_can_be_sent_to_another_process(tmp_path: Path) -> None:
    sent = pickle.loads(pickle.dumps(contamination(tmp_path)))
    assert isinstance(sent.reject_if_shared(document(ITEM)), Reject)


@given(st.lists(st.sampled_from("abcdefg"), max_size=60), st.integers(0, 50))
@hypothesis_settings(deadline=None)
def test_what_is_found_is_the_first_run_of_the_item(words: list[str], place: int) -> None:
    item = [f"word{number}" for number in range(15)]
    hashes = Contamination.of_texts({"made": [" ".join(item)]})
    text = [*words[:place], *item[1:14], *words[place:]]
    assert hashes.shared(" ".join(text)) == (" ".join(item[1:14]), "made")
    assert hashes.shared(" ".join(words)) is None


def test_real_evaluation_sets_load_and_find_themselves(real_data: Path) -> None:
    files = [real_data / "qa" / "bbq" / "Religion.jsonl.gz", real_data / "instruct" / "bfcl" / "simple_python.json.gz"]
    found = Contamination.load(files)
    for file in files:
        text = next(text for text in evaluation_texts(file) if len(text.split()) > 15)
        shared = found.shared(f"{prose(1)} {text} {prose(2)}")
        assert shared is not None
        assert shared[1] == str(file)
    clean: Document | Reject = found.reject_if_shared(document(prose(5, paragraphs=30)))
    assert isinstance(clean, Document)


def test_speed_is_at_least_5_megabytes_a_second(tmp_path: Path) -> None:
    looked_for = contamination(tmp_path)
    made = document(" ".join(prose(seed, paragraphs=20) for seed in range(60)))
    begun = time.process_time()
    assert looked_for.reject_if_shared(made) is made
    assert len(made.text) / (time.process_time() - begun) > 5e6 / 2
