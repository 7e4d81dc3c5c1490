import itertools
import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from caslon.tokenizer import special
from caslon.tokenizer.algorithms import ALGORITHMS
from caslon.tokenizer.examine import HARD_TEXTS, random_texts
from caslon.tokenizer.lexicon import Entry, Lexicon
from caslon.tokenizer.patterns import DIGITS
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.tokenizer.train import SPECIAL_MODES, TrainingSettings, train_tokenizer

WORDS = ("thou", "thousand", "lazy", "morn", "coachman")
LEXICON = Lexicon("own", tuple(Entry(word, "any", word, "test") for word in WORDS))
KINDS = list(itertools.product(ALGORITHMS, DIGITS, SPECIAL_MODES))
PIECES = [
    *WORDS,
    "Thou",
    "LAZY",
    "'tis",
    "##",
    "▁",
    "\ue000",
    "<|thou|>",
    "<|end|>",
    "<|extra_0|>",
    "1666",
    "12345",
    "007",
    " ",
    "\n",
]
TEXTS = st.lists(
    st.one_of(st.sampled_from(PIECES), st.text(st.characters(exclude_categories=["Cs"]), max_size=8)), max_size=8
).map("".join)


@pytest.fixture(scope="module")
def kinds(training_texts: list[str]) -> dict[tuple[str, str, str], Tokenizer]:
    return {
        kind: train_tokenizer(
            training_texts,
            settings=TrainingSettings(
                vocab_size=2_000, algorithm=kind[0], digits=kind[1], special_mode=kind[2], lexicon=LEXICON, sentinels=3
            ),
        )
        for kind in KINDS
    }


def check(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not tokenizer.special_ids.intersection(ids)


@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
def test_every_text_comes_back_in_every_combination(kinds: dict[tuple[str, str, str], Tokenizer], text: str) -> None:
    for tokenizer in kinds.values():
        check(tokenizer, text)


@pytest.mark.slow
@settings(max_examples=5_000, deadline=None)
@given(text=TEXTS)
def test_five_thousand_texts_come_back_in_every_combination(
    kinds: dict[tuple[str, str, str], Tokenizer], text: str
) -> None:
    for tokenizer in kinds.values():
        check(tokenizer, text)


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_hard_texts_come_back_and_bulk_agrees(
    kinds: dict[tuple[str, str, str], Tokenizer], kind: tuple[str, str, str]
) -> None:
    tokenizer = kinds[kind]
    texts = [*HARD_TEXTS, *random_texts(3, 100)]
    for text in texts:
        check(tokenizer, text)
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_the_layout_is_special_sentinels_bytes_learned(
    kinds: dict[tuple[str, str, str], Tokenizer], kind: tuple[str, str, str]
) -> None:
    tokenizer = kinds[kind]
    names = [*special.SPECIAL_TOKENS, "<|extra_0|>", "<|extra_1|>", "<|extra_2|>"]
    assert [tokenizer.spelling_of(id) for id in range(35)] == names
    assert sorted(tokenizer.token_bytes(id) for id in range(35, 35 + 256)) == [bytes([byte]) for byte in range(256)]
    assert tokenizer.vocab_size == tokenizer.record["vocab_size"] <= 2_000
    assert tokenizer.record["portable"] is (kind[2] == "words")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind[2] == "words"], ids="-".join)
def test_every_form_of_every_word_is_one_token(
    kinds: dict[tuple[str, str, str], Tokenizer], kind: tuple[str, str, str], tmp_path: Path
) -> None:
    tokenizer = kinds[kind]
    for entry in LEXICON.entries:
        assert [len(tokenizer.encode(form)) for form in entry.forms] == [1] * 4
        for form in entry.forms[2:]:
            assert len(tokenizer.encode(f"x,{form}.")) == len(tokenizer.encode("x,")) + 2
    tokenizer.save(tmp_path)
    found = json.loads((tmp_path / "special_map.json").read_text(encoding="utf-8"))
    assert found["entries"][0] == {
        "word": "thou", "category": "any", "canonical": "thou", "source": "test", "mode": "words",
        "forms": {form: tokenizer.encode(form)[0] for form in ("thou", "Thou", " thou", " Thou")},
    }  # fmt: skip
    assert found["portable"] is True


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind[2] == "words"], ids="-".join)
def test_other_readers_give_the_same_ids_and_text(
    kinds: dict[tuple[str, str, str], Tokenizer], kind: tuple[str, str, str], tmp_path: Path
) -> None:
    _same_elsewhere(kinds[kind], tmp_path, [text for text in (*HARD_TEXTS, *random_texts(4, 60)) if "<|" not in text])


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_other_readers_give_the_same_ids_for_ten_thousand_texts(
    kinds: dict[tuple[str, str, str], Tokenizer], algorithm: str, tmp_path: Path
) -> None:
    _same_elsewhere(kinds[algorithm, "none", "words"], tmp_path, random_texts(5, 10_000))


def _same_elsewhere(tokenizer: Tokenizer, folder: Path, texts: list[str]) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer.save(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert len(theirs) == tokenizer.vocab_size
    assert (theirs.model_max_length, theirs.mask_token) == (1_024, "<|mask|>")
    for text in texts:
        ids = tokenizer.encode(text)
        assert theirs(text)["input_ids"] == ids == library.encode(text).ids
        assert theirs.decode(ids) == text == library.decode(ids, skip_special_tokens=False)


def test_no_mark_of_word_pieces_shows(kinds: dict[tuple[str, str, str], Tokenizer]) -> None:
    tokenizer = kinds["wordpiece", "none", "words"]
    word = "unlearnedlongishword" * 20
    ids = tokenizer.encode(word)
    assert any(tokenizer.spelling_of(id).startswith("\ue000") for id in ids)
    assert tokenizer.decode(ids) == word
    assert "\ue000" not in "".join(tokenizer.token_bytes(id).decode("latin-1") for id in range(tokenizer.vocab_size))


def test_start_and_end_only_on_request(kinds: dict[tuple[str, str, str], Tokenizer]) -> None:
    for tokenizer in kinds.values():
        ids = tokenizer.encode("lazy dogs", add_special_tokens=True)
        assert ids == [tokenizer.start_of_text_id, *tokenizer.encode("lazy dogs"), tokenizer.end_of_text_id]
        assert tokenizer.decode(ids, skip_special_tokens=True) == "lazy dogs"


def test_the_record_says_what_repeats_and_names_every_file(
    kinds: dict[tuple[str, str, str], Tokenizer], tmp_path: Path
) -> None:
    assert [kinds[algorithm, "none", "words"].record["reproducible"] for algorithm in ALGORITHMS] == [
        True,
        False,
        False,
    ]
    kinds["bpe", "none", "words"].save(tmp_path)
    record = json.loads((tmp_path / "caslon_tokenizer.json").read_text())
    names = {path.name for path in tmp_path.iterdir()} - {"caslon_tokenizer.json"}
    assert set(record["files"]) == names
    assert record["digest"] == Tokenizer.load(tmp_path).digest
    assert record["lexicon"]["entries"] == len(WORDS)
