import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caslon.errors import UserError
from caslon.tokenizer import special
from caslon.tokenizer.bulk import BulkEncoder
from caslon.tokenizer.examine import HARD_TEXTS
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.tokenizer.train import train_tokenizer

MIXED = st.text(
    st.one_of(
        st.sampled_from(list(" \t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u2003\u2028\u3000'’stm.dreve_09£é<|>ß²Ⅷ߀")),
        st.characters(exclude_categories=["Cs"]),
    )
)


@pytest.fixture(scope="module")
def bulk(tokenizer: Tokenizer) -> BulkEncoder:
    return BulkEncoder(tokenizer)


@settings(max_examples=1000, deadline=None)
@given(text=st.one_of(st.text(st.characters(exclude_categories=["Cs"])), MIXED))
def test_every_text_comes_back_and_bulk_ids_are_the_same(tokenizer: Tokenizer, bulk: BulkEncoder, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
    assert bulk.encode(text).tolist() == ids
    assert not tokenizer.special_ids.intersection(ids)


@pytest.mark.parametrize("text", HARD_TEXTS, ids=range(len(HARD_TEXTS)))
def test_hard_texts(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode_batch([text, text]) == [tokenizer.encode(text)] * 2


def test_real_source_in_bulk(tokenizer: Tokenizer) -> None:
    sources = [Path(module.__file__ or "").read_text(encoding="utf-8") for module in (json, subprocess)]
    assert tokenizer.encode_batch(sources) == [tokenizer.encode(source) for source in sources]


def test_the_layout_is_special_then_bytes_then_learned(tokenizer: Tokenizer) -> None:
    assert [tokenizer.id_of(token) for token in special.SPECIAL_TOKENS] == list(range(32))
    assert sorted(tokenizer.token_bytes(id) for id in range(32, 288)) == [bytes([byte]) for byte in range(256)]
    assert all(len(tokenizer.token_bytes(id)) > 1 for id in range(288, tokenizer.vocab_size))


def test_roles(tokenizer: Tokenizer) -> None:
    roles = [tokenizer.start_of_text_id, tokenizer.end_of_text_id, tokenizer.pad_id, tokenizer.end_of_turn_id]
    assert [tokenizer.spelling_of(id) for id in roles if id is not None] == [
        "<|startoftext|>", "<|endoftext|>", "<|pad|>", "<|end|>",
    ]  # fmt: skip
    assert tokenizer.stop_ids == (tokenizer.id_of("<|endoftext|>"), tokenizer.id_of("<|end|>"))
    assert tokenizer.pad_id not in tokenizer.stop_ids


def test_special_spellings_only_count_when_allowed(tokenizer: Tokenizer) -> None:
    text = "a<|end|>b"
    assert tokenizer.id_of("<|end|>") in tokenizer.encode(text, allow_special=True)
    assert tokenizer.id_of("<|end|>") not in tokenizer.encode(text)
    ids = tokenizer.encode(text, allow_special=True)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ab"


def test_half_a_character_becomes_the_replacement_character(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("漢")
    assert tokenizer.decode(ids[:1]) == "\ufffd"


@pytest.mark.parametrize("text", ["\ud800", "ok \udfff"])
def test_half_a_surrogate_pair_is_refused_with_its_place(tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(UserError, match=f"character {len(text) - 1}"):
        tokenizer.encode(text)
    with pytest.raises(UserError, match="surrogate"):
        tokenizer.encode_batch([text])


@pytest.mark.parametrize("id", [-1, 420])
def test_ids_outside_the_vocabulary_are_refused(tokenizer: Tokenizer, id: int) -> None:
    with pytest.raises(UserError, match="not in the vocabulary"):
        tokenizer.decode([id])
    with pytest.raises(UserError, match="not in the vocabulary"):
        tokenizer.token_bytes(id)


def test_save_and_load(tokenizer: Tokenizer, tokenizer_folder: Path, tmp_path: Path) -> None:
    names = {path.name for path in tokenizer_folder.iterdir()}
    assert names == {
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "vocab.json",
        "merges.txt", "special_map.json", "caslon_tokenizer.json",
    }  # fmt: skip
    loaded = Tokenizer.load(tokenizer_folder)
    assert loaded.digest == tokenizer.digest
    assert loaded.stop_ids == tokenizer.stop_ids
    assert json.loads((tokenizer_folder / "tokenizer_config.json").read_text())["clean_up_tokenization_spaces"] is False
    loaded.save(tmp_path)
    for name in names:
        assert (tmp_path / name).read_bytes() == (tokenizer_folder / name).read_bytes(), name
    assert pickle.loads(pickle.dumps(loaded)).encode("the fox") == tokenizer.encode("the fox")


def test_missing_and_broken_folders(tokenizer_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(UserError, match="cannot be read"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((tokenizer_folder / "tokenizer.json").read_bytes())
    (tmp_path / "caslon_tokenizer.json").write_text('{"vocab_size": 30000}')
    with pytest.raises(UserError, match="says 30000 entries"):
        Tokenizer.load(tmp_path)


def test_transformers_reads_the_folder_alike(
    tokenizer: Tokenizer, tokenizer_folder: Path, training_texts: list[str]
) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tokenizer_folder)
    assert len(theirs) == tokenizer.vocab_size
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (0, 1, 2)
    plain = [text for text in HARD_TEXTS if "<|" not in text]
    for text in [*training_texts[:20], *plain]:
        ids = tokenizer.encode(text)
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids) == text


FOREIGN = {
    # eos is the end of a turn, as in Qwen; no start token; the end of text is a token of its own
    "chatml": (
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None},
        "<|endoftext|>", "<|endoftext|>", "<|endoftext|>", "<|im_end|>",
    ),
    "llama3": (
        ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"],
        {"eos_token": {"content": "<|eot_id|>"}, "bos_token": {"content": "<|begin_of_text|>"}},
        "<|begin_of_text|>", "<|end_of_text|>", "<|end_of_text|>", "<|eot_id|>",
    ),
    "gpt2": (["<|endoftext|>"], {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"},
             "<|endoftext|>", "<|endoftext|>", "<|endoftext|>", None),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_folders_name_their_own_tokens(tmp_path: Path, name: str) -> None:
    tokens, config, start, end, pad, turn = FOREIGN[name]
    _foreign_folder(tmp_path, tokens, {**config, "chat_template": "".join(tokens)})
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.spelling_of(tokenizer.start_of_text_id) == start
    assert tokenizer.spelling_of(tokenizer.end_of_text_id) == end
    assert tokenizer.spelling_of(tokenizer.pad_id) == pad
    assert (tokenizer.end_of_turn_id and tokenizer.spelling_of(tokenizer.end_of_turn_id)) == turn
    assert tokenizer.decode(tokenizer.encode("Ünï " + tokens[0])) == "Ünï " + tokens[0]
    assert not tokenizer.special_ids & set(tokenizer.encode("Ünï " + tokens[0]))


def test_stop_ids_include_the_generation_config(tmp_path: Path) -> None:
    _foreign_folder(tmp_path, ["<eos>", "<stop>"], {"eos_token": "<eos>"})
    tokens = Tokenizer.load(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [tokens.id_of("<stop>")]}))
    assert Tokenizer.load(tmp_path).stop_ids == (tokens.id_of("<eos>"), tokens.id_of("<stop>"))


def test_a_folder_that_asks_for_truncation_is_not_obeyed(tmp_path: Path, tokenizer_folder: Path) -> None:
    data = json.loads((tokenizer_folder / "tokenizer.json").read_text())
    data["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    assert len(Tokenizer.load(tmp_path).encode("a long text of many words")) > 3


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, caslon.tokenizer.tokenizer, caslon.tokenizer.train; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_vocabulary_over_two_bytes_is_held_in_four() -> None:
    from caslon.tokenizer.bulk import id_type

    assert id_type(1 << 16).itemsize == 2
    assert id_type((1 << 16) + 1).itemsize == 4


def _foreign_folder(folder: Path, tokens: list[str], config: dict[str, object]) -> None:
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers, trainers

    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    library.train_from_iterator(
        ["some text"], trainers.BpeTrainer(special_tokens=tokens, initial_alphabet=alphabet, show_progress=False)
    )
    library.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def test_training_is_the_same_every_time(training_texts: list[str], tokenizer: Tokenizer) -> None:
    assert train_tokenizer(iter(training_texts), vocab_size=420).tokenizer_json == tokenizer.tokenizer_json
