"""Streamed text: whole characters only, stop strings held back, and in sum exactly the decoded text."""

import json
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from caslon.engine.request import SamplingParams
from caslon.engine.stream import TextStream
from caslon.tokenizer.tokenizer import Tokenizer


def streamed(tokenizer: Tokenizer, ids: list[int], **fields: Any) -> tuple[list[str], TextStream]:
    stream = TextStream(tokenizer, SamplingParams(max_tokens=1000, **fields))
    pieces = []
    for token in ids:
        pieces.append(stream.push(token, may_stop=True))
        if stream.stopped_by is not None:
            return pieces, stream
    return [*pieces, stream.finish()], stream


@settings(max_examples=60, deadline=None)
@given(data=st.data(), skip=st.booleans())
def test_pieces_join_to_the_decoded_text(tokenizer: Tokenizer, data: st.DataObject, skip: bool) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30))
    pieces, stream = streamed(tokenizer, ids, skip_special_tokens=skip)
    assert "".join(pieces) == stream.text == tokenizer.decode(ids, skip_special_tokens=skip)


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=30), stops=st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=3))
def test_stop_strings_cut_where_they_begin(tokenizer: Tokenizer, text: str, stops: list[str]) -> None:
    pieces, stream = streamed(tokenizer, tokenizer.encode(text), stop=tuple(stops))
    assert "".join(pieces) == stream.text
    assert text.startswith(stream.text)
    if any(stop in text for stop in stops):
        assert stream.stopped_by in stops
        assert not any(stop in stream.text for stop in stops)
        assert text[len(stream.text) :].startswith(str(stream.stopped_by))
    else:
        assert (stream.text, stream.stopped_by) == (text, None)


def test_a_character_waits_for_its_last_byte(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.id_of(symbol) for symbol in "ðŁĺĢ"]  # the four bytes of one emoji, one token each
    assert [len(tokenizer.token_bytes(token)) for token in ids] == [1, 1, 1, 1]
    assert streamed(tokenizer, ids)[0] == ["", "", "", "😀", ""]
    assert streamed(tokenizer, ids[:3])[0] == ["", "", "", "\N{REPLACEMENT CHARACTER}"]


def bytes_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return one token for each character, so that stop strings cross token borders."""
    return [token for character in text for token in tokenizer.encode(character)]


def test_what_may_begin_a_stop_string_is_held_back(tokenizer: Tokenizer) -> None:
    pieces, stream = streamed(tokenizer, bytes_of(tokenizer, "abENEND."), stop=("END",))
    assert pieces == ["a", "b", "", "", "EN", "", ""]
    assert (stream.text, stream.stopped_by) == ("abEN", "END")
    pieces, stream = streamed(tokenizer, bytes_of(tokenizer, "abEN"), stop=("END",))
    assert pieces == ["a", "b", "", "", "EN"]
    assert stream.stopped_by is None


def test_the_stop_string_can_be_kept(tokenizer: Tokenizer) -> None:
    _, stream = streamed(tokenizer, bytes_of(tokenizer, "one\n\ntwo"), stop=("\n\n", "w"), include_stop=True)
    assert (stream.text, stream.stopped_by) == ("one\n\n", "\n\n")


def test_stop_strings_wait_for_min_tokens(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer, SamplingParams(stop=("x",)))
    for token in bytes_of(tokenizer, "axa"):
        stream.push(token, may_stop=False)
    assert (stream.text, stream.stopped_by) == ("axa", None)


@pytest.fixture(scope="module")
def sentencepiece_like() -> Tokenizer:
    vocab = {"<unk>": 0, "</s>": 1, "▁": 2, "▁he": 3, "llo": 4, "▁you": 5, "<0xC3>": 6, "<0xA9>": 7}
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
    inner.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
            tokenizers.decoders.Strip(" ", 1, 0),
        ]
    )
    inner.add_special_tokens(["<unk>", "</s>"])
    return Tokenizer(json.dumps(json.loads(inner.to_str())), {"eos_token": "</s>"})


@settings(max_examples=40, deadline=None)
@given(ids=st.lists(st.integers(0, 7), max_size=12))
def test_tokenizers_that_are_not_byte_level(sentencepiece_like: Tokenizer, ids: list[int]) -> None:
    pieces, stream = streamed(sentencepiece_like, ids)
    assert "".join(pieces) == stream.text == sentencepiece_like.decode(ids, skip_special_tokens=True)


def test_the_first_space_of_sentencepiece_goes_and_later_ones_stay(sentencepiece_like: Tokenizer) -> None:
    assert streamed(sentencepiece_like, [3, 4, 5, 6, 7])[0] == ["he", "llo", " you", "", "", "é"]
