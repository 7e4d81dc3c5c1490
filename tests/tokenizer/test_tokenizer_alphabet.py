"""Vocabularies of bytes and of characters: no training, ids one can name, exact or refused."""

import pytest

from caslon.errors import UserError
from caslon.tokenizer.alphabet import byte_tokenizer, character_tokenizer
from caslon.tokenizer.examine import HARD_TEXTS, examine
from caslon.tokenizer.tokenizer import Tokenizer

TEXT = "Cheap\u017fide, naïve £5\n\ttwo  spaces 漢字 \U0001f469\u200d\U0001f467"


@pytest.mark.promise("pretraining", "bytes and characters need no trained tokenizer and still write a tokenizer.json")
def test_a_byte_s_id_is_its_value_and_every_text_comes_back(tmp_path):
    byte_tokenizer().save(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.vocab_size == 257
    assert tokenizer.end_of_text_id == 256
    for text in (TEXT, *HARD_TEXTS):
        assert tokenizer.encode(text) == list(text.encode())
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert examine(tokenizer, [TEXT * 3]).passed


def test_characters_are_numbered_in_their_order_and_come_back(tmp_path):
    character_tokenizer([TEXT]).save(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    characters = sorted(set(TEXT))
    assert tokenizer.vocab_size == len(characters) + 1
    assert tokenizer.encode(TEXT) == [characters.index(character) for character in TEXT]
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert tokenizer.encode_batch([TEXT, ""]) == [tokenizer.encode(TEXT), []]
    assert [tokenizer.token_bytes(id).decode() for id in range(len(characters))] == characters
    assert examine(tokenizer, [TEXT]).passed


def test_a_character_outside_the_alphabet_is_refused_with_its_place():
    tokenizer = character_tokenizer(["abc"])
    for encode in (tokenizer.encode, lambda text: tokenizer.encode_batch([text])):
        with pytest.raises(UserError, match="'é' is none of the 3 characters") as caught:
            encode("abéc")
        assert caught.value.where == "character 2 of the text"
    assert tokenizer.encode("a<|endoftext|>", allow_special=True) == [0, 3]


def test_transformers_reads_both_with_the_same_ids(tmp_path):
    transformers = pytest.importorskip("transformers")
    for name, tokenizer in (("bytes", byte_tokenizer()), ("characters", character_tokenizer([TEXT]))):
        tokenizer.save(tmp_path / name)
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / name)
        assert theirs(TEXT)["input_ids"] == tokenizer.encode(TEXT)
        assert theirs.decode(tokenizer.encode(TEXT)) == TEXT
        assert theirs.eos_token_id == tokenizer.end_of_text_id


def test_special_tokens_and_sentinels_stand_behind_the_alphabet():
    tokenizer = byte_tokenizer(["<|mask|>", "<|own|>"], sentinels=2)
    assert [tokenizer.spelling_of(id) for id in range(256, 261)] == [
        "<|endoftext|>", "<|mask|>", "<|own|>", "<|extra_0|>", "<|extra_1|>",
    ]  # fmt: skip
    assert tokenizer.config["mask_token"] == "<|mask|>"
    for names in (["<|own|>", "<|own|>"], ["<|endoftext|>"], ["own"]):
        with pytest.raises(UserError):
            byte_tokenizer(names)
    with pytest.raises(UserError, match="no text"):
        character_tokenizer([])
