import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caslon.tokenizer import bulk, ranks
from caslon.tokenizer.bulk import BulkEncoder
from caslon.tokenizer.examine import HARD_TEXTS, random_texts
from caslon.tokenizer.lexicon import load_lexicon
from caslon.tokenizer.patterns import LLAMA3
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.tokenizer.train import TrainingSettings, train_tokenizer

tiktoken = pytest.importorskip("tiktoken", reason="tiktoken (extra `tokenizer`) is not installed")

PRE_TOKENIZERS = {
    "gpt2": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "single": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        ],
    },
    "llama3": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        ],
    },
}
STABLE = st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"])
TRICKY = st.sampled_from(list(" \t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u2003\u2028\u3000'’stmdrelvSTſßK0179½²Ⅷ٣é<|>₤字"))
TEXTS = st.lists(st.one_of(TRICKY, STABLE), max_size=60).map("".join)


def changed(tokenizer: Tokenizer, **parts: Any) -> Tokenizer:
    parsed = json.loads(tokenizer.tokenizer_json)
    model = parts.pop("model", {})
    return Tokenizer(json.dumps({**parsed, **parts, "model": {**parsed["model"], **model}}), tokenizer.config)


@pytest.fixture(scope="module", params=PRE_TOKENIZERS)
def cut_in_a_way(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> Tokenizer:
    return changed(tokenizer, pre_tokenizer=PRE_TOKENIZERS[request.param])


@settings(max_examples=1500, deadline=None)
@given(text=TEXTS)
def test_ranks_give_the_ids_of_the_library(cut_in_a_way: Tokenizer, text: str) -> None:
    encoder = _ranked(cut_in_a_way)
    if encoder.takes(text):
        assert encoder.encode(text) == cut_in_a_way.encode(text)


_RANKED: dict[str, ranks.RankedEncoder] = {}


def _ranked(tokenizer: Tokenizer) -> ranks.RankedEncoder:
    if tokenizer.digest not in _RANKED:
        found = ranks.ranked_encoder(tokenizer)
        assert found is not None
        _RANKED[tokenizer.digest] = found
    return _RANKED[tokenizer.digest]


def test_every_stable_character_is_cut_alike_beside_every_kind_of_neighbour(cut_in_a_way: Tokenizer) -> None:
    encoder = _ranked(cut_in_a_way)
    characters = [chr(code) for code in range(sys.maxunicode) if not 0xD800 <= code < 0xE000]
    stable = [character for character in characters if encoder.takes(character)]
    assert len(stable) > 35_000
    for text in (
        "".join(f"a{c}1{c} {c}'{c}!{c}\n" for c in stable[start : start + 2_000])
        for start in range(0, len(stable), 2_000)
    ):
        assert encoder.takes(text)
        assert encoder.encode(text) == cut_in_a_way.encode(text)


def test_ten_thousand_real_segments_in_every_pattern(real_data: Path) -> None:
    texts = [path.read_text("utf-8", "replace") for path in sorted((real_data / "london" / "sample").glob("*.txt"))]
    segments = [text[start : start + 137] for text in texts for start in range(0, len(text), 50)][:10_000]
    assert len(segments) == 10_000
    base = train_tokenizer(texts, vocab_size=3_000)
    for pre_tokenizer in PRE_TOKENIZERS.values():
        tokenizer = changed(base, pre_tokenizer=pre_tokenizer)
        encoder = BulkEncoder(tokenizer)
        assert encoder.use_ranks()
        assert _ranked(tokenizer).takes(segments[0])
        library = tokenizer._plain_encoder.encode_batch(segments, add_special_tokens=False)
        assert [encoder.encode(text).tolist() for text in segments] == [found.ids for found in library]


def test_random_unicode_and_hard_texts_through_every_way(cut_in_a_way: Tokenizer) -> None:
    with_ranks, without = BulkEncoder(cut_in_a_way), BulkEncoder(cut_in_a_way)
    assert with_ranks.use_ranks()
    for text in [*HARD_TEXTS, *random_texts(3)]:
        expected = cut_in_a_way.encode(text)
        assert with_ranks.encode(text).tolist() == expected
        assert without.encode(text).tolist() == expected


def test_much_text_turns_to_ranks_by_itself(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "RANKED_FROM_CHARACTERS", 20)
    encoder = BulkEncoder(tokenizer)
    for _ in range(4):
        assert encoder.encode("one little text").tolist() == tokenizer.encode("one little text")
    assert encoder._ranked is not None


@pytest.mark.parametrize(
    "parts",
    [
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
        {"model": {"dropout": 0.1}},
    ],
)
def test_what_is_not_proven_is_not_encoded_that_way(tokenizer: Tokenizer, parts: dict[str, Any]) -> None:
    assert ranks.ranked_encoder(changed(tokenizer, **parts)) is None


def test_an_entry_its_own_merges_do_not_make_refuses_the_ranks(tokenizer: Tokenizer) -> None:
    """`ab` is joined before `bc`, so `a bc` is never met and `abc` never made; tiktoken would make it from `ab c`."""
    parsed = json.loads(tokenizer.tokenizer_json)["model"]
    symbols = [token for token in parsed["vocab"] if len(token) == 1]
    vocabulary = {token: place for place, token in enumerate([*symbols, "QZ", "ZX", "QZX"])}
    merges = [["Q", "Z"], ["Z", "X"], ["Q", "ZX"]]
    bad = changed(tokenizer, model={"vocab": vocabulary, "merges": merges}, added_tokens=[])
    assert [bad.spelling_of(id) for id in bad.encode("QZX")] == ["QZ", "X"]
    assert ranks.ranked_encoder(bad) is None
    twice = changed(tokenizer, model={"vocab": vocabulary, "merges": [*merges, ["QZ", "X"]]}, added_tokens=[])
    assert ranks.ranked_encoder(twice) is None


def test_long_runs_are_left_to_the_library_and_take_no_time(tokenizer: Tokenizer) -> None:
    encoder = BulkEncoder(tokenizer)
    assert encoder.use_ranks()
    for text in (" " * 1_000_000, "a" * 1_000_000, "!" * 1_000_000, "x \n" * 300_000):
        began = time.process_time()
        ids = encoder.encode(text)
        assert time.process_time() - began < 10
        assert tokenizer.decode(ids.tolist()) == text


@pytest.mark.parametrize("digits", ["none", "single", "groups3"])
def test_a_trained_tokenizer_with_a_lexicon_can_be_encoded_by_ranks(training_texts: list[str], digits: str) -> None:
    """Guaranteed words are merges added after the learned ones, which the proof must cover too."""
    settings = TrainingSettings(vocab_size=3_000, digits=digits, lexicon=load_lexicon("london"))
    tokenizer = train_tokenizer(training_texts, settings=settings)
    encoder = ranks.ranked_encoder(tokenizer)
    assert encoder is not None
    for text in [*training_texts, *HARD_TEXTS, "Thou hast thy coachman at Westminster 1834"]:
        if encoder.takes(text):
            assert encoder.encode(text) == tokenizer.encode(text)


@pytest.mark.parametrize("algorithm", ["wordpiece", "unigram"])
def test_other_algorithms_are_left_to_the_library(training_texts: list[str], algorithm: str) -> None:
    tokenizer = train_tokenizer(training_texts, settings=TrainingSettings(vocab_size=900, algorithm=algorithm))
    encoder = BulkEncoder(tokenizer)
    assert not encoder.use_ranks()
    for text in [*training_texts[:10], *HARD_TEXTS]:
        assert encoder.encode(text).tolist() == tokenizer.encode(text)
