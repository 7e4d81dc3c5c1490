import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caslon.errors import UserError
from caslon.tokenizer.lexicon import Entry, Lexicon, load_lexicon
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.tokenizer.train import TrainingSettings, train_tokenizer

WORDS = ("thou", "court", "london", "i", "été")
LEXICON = Lexicon("own", tuple(Entry(word, "any", word, "test") for word in WORDS))


@pytest.fixture(scope="module")
def tagged(training_texts: list[str]) -> Tokenizer:
    chosen = TrainingSettings(vocab_size=500, lexicon=LEXICON, special_mode="tags")
    return train_tokenizer(training_texts, settings=chosen)


def spelled(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.spelling_of(id) for id in tokenizer.encode(text)]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        (" thou", ["<|thou|>"]),
        ("thou", ["<|apart|>", "<|thou|>"]),
        (" Thou", ["<|capital|>", "<|thou|>"]),
        ("THOU", ["<|apart|>", "<|upper|>", "<|thou|>"]),
        ("  thou", ["Ġ", "<|thou|>"]),
        ("Court.", ["<|apart|>", "<|capital|>", "<|court|>", "."]),
    ],
)
def test_marks_say_case_and_missing_space(tagged: Tokenizer, text: str, tokens: list[str]) -> None:
    assert spelled(tagged, text) == tokens
    assert tagged.decode(tagged.encode(text)) == text


@pytest.mark.parametrize(
    "text",
    ["thousand", "tHoU", "courts", "court-yard", "mid-court", "thou'rt", "_thou", "thou9", "the\u0301thou", "courte"],
)
def test_nothing_matches_inside_a_longer_word_or_in_mixed_case(tagged: Tokenizer, text: str) -> None:
    assert not any(token.startswith("<|") for token in spelled(tagged, text))
    assert tagged.decode(tagged.encode(text)) == text


@pytest.mark.parametrize("text", ["<|thou|>", "<|Thou|> <|apart|>", "<|capital|><|court|>"])
def test_a_text_that_spells_a_tag_is_its_own_escape(tagged: Tokenizer, text: str) -> None:
    assert tagged.decode(tagged.encode(text)) == text
    assert tagged.id_of("<|apart|>") not in tagged.encode("<|apart|>")


@settings(max_examples=300, deadline=None)
@given(
    text=st.lists(
        st.one_of(
            st.sampled_from(
                [*WORDS, "Thou", "COURT", "I", "ÉTÉ", "İ", "ſ", "K", " ", "-", "'", "<|thou|>", "<|end|>", "s"]
            ),
            st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
        )
    ).map("".join)
)
def test_every_text_comes_back(tagged: Tokenizer, text: str) -> None:
    ids = tagged.encode(text)
    assert tagged.decode(ids) == text
    assert not tagged.special_ids.intersection(ids)
    assert tagged.encode_batch([text]) == [ids]
    encoding = tagged.encoding(text, allow_special=False)
    assert encoding.ids == ids
    assert all(0 <= start <= end <= len(text) for start, end in encoding.offsets)
    assert tagged.decode(tagged.encode(text, allow_special=True)) == text


def test_special_spellings_come_before_tags(tagged: Tokenizer) -> None:
    assert tagged.encode("a<|end|> thou", allow_special=True)[-2:] == [
        tagged.id_of("<|end|>"),
        tagged.id_of("<|thou|>"),
    ]
    assert tagged.decode(tagged.encode(" Thou<|end|>", allow_special=True), skip_special_tokens=True) == " Thou"


def test_the_map_lists_every_form_and_the_folder_is_not_portable(tagged: Tokenizer, tmp_path: Path) -> None:
    tagged.save(tmp_path)
    found = json.loads((tmp_path / "special_map.json").read_text(encoding="utf-8"))
    assert (found["mode"], found["portable"]) == ("tags", False)
    thou = found["entries"][0]
    assert thou["forms"] == {form: tagged.encode(form) for form in ("thou", " thou", "Thou", " Thou", "THOU", " THOU")}
    assert thou["id"] == tagged.id_of("<|thou|>")
    assert json.loads((tmp_path / "caslon_tokenizer.json").read_text())["portable"] is False
    loaded = Tokenizer.load(tmp_path)
    assert loaded.encode("Thou at court") == pickle.loads(pickle.dumps(tagged)).encode("Thou at court")
    assert loaded.encode("Thou at court") == tagged.encode("Thou at court")
    assert not tagged.is_byte_level


def test_nothing_is_learned_for_tagged_words() -> None:
    texts = ["thou court thou court thou court"] * 50
    chosen = TrainingSettings(vocab_size=310, lexicon=load_lexicon("london"), special_mode="tags")
    with pytest.raises(UserError, match="148 tags"):
        train_tokenizer(texts, settings=chosen)
    few = TrainingSettings(vocab_size=310, lexicon=LEXICON, special_mode="tags")
    assert train_tokenizer(texts, settings=few).vocab_size == 288 + 3 + len(WORDS)


def test_a_word_whose_tag_is_a_special_token_is_refused(training_texts: list[str]) -> None:
    for word in ("end", "upper"):
        lexicon = Lexicon("own", (Entry(word, "any", word, ""),))
        with pytest.raises(UserError, match=f"'{word}' repeats"):
            train_tokenizer(training_texts, settings=TrainingSettings(lexicon=lexicon, special_mode="tags"))
        train_tokenizer(training_texts, settings=TrainingSettings(vocab_size=400, lexicon=lexicon))
