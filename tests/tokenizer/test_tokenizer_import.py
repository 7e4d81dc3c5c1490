import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from caslon.errors import CaslonError, UserError
from caslon.tokenizer.examine import HARD_TEXTS, random_texts
from caslon.tokenizer.import_table import import_table, refuse_other_ids
from caslon.tokenizer.import_tiktoken import PATTERNS, read_ranks
from caslon.tokenizer.tokenizer import Tokenizer

# Where a user keeps published tables: `<folder>/cl100k_base.tiktoken`, `<folder>/gpt2/vocab.json` ...
TABLES = Path(os.environ.get("CASLON_TEST_TABLES", Path(__file__).parents[3] / "shared" / "tables"))
GPT2_TEXT = "Counselor, please adjust your Zoom filter to appear as a human, rather than as a cat"
GPT2_IDS = "31053 741 273 11 3387 4532 534 40305 8106 284 1656 355 257 1692 11 2138 621 355 257 3797"
CL100K_CASES = {
    "You're users chat message goes here.": "2675 2351 3932 6369 1984 5900 1618 13",
    "4523646 minus 67453156": "21098 15951 21 28382 220 25513 20823 3487",
}
TEXTS = [*HARD_TEXTS, *random_texts(5), "The prisoner's 1,234 watches\n\n  value £5 & 10s.\r\n", "don'ſt DON'T x/y//z"]


@pytest.fixture(scope="module")
def rank_file(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ranks") / "made.tiktoken"
    ordinary = [id for id in range(tokenizer.vocab_size) if id not in tokenizer.special_ids]
    lines = [f"{base64.b64encode(tokenizer.token_bytes(id)).decode()} {rank}" for rank, id in enumerate(ordinary)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_tiktoken_table_gives_the_ids_of_tiktoken(rank_file: Path, tmp_path: Path, pattern: str) -> None:
    tiktoken = pytest.importorskip("tiktoken", reason="tiktoken (extra `tokenizer`) is not installed")
    theirs = tiktoken.Encoding("x", pat_str=PATTERNS[pattern], mergeable_ranks=read_ranks(rank_file), special_tokens={})
    import_table(rank_file, "tiktoken", pattern=pattern).save(tmp_path)
    ours = Tokenizer.load(tmp_path)
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode_ordinary(text)
        assert ours.decode(ours.encode(text)) == text
    assert ours.record["imported"]["table"] == "made"
    assert set(ours.record["imported"]["files"]) == {"made.tiktoken"}


def test_a_known_name_says_pattern_and_special_tokens(rank_file: Path) -> None:
    found = import_table(rank_file, "tiktoken", name="cl100k_base")
    assert (found.end_of_text_id, found.vocab_size) == (100257, 100277)
    assert found.encode("<|endoftext|>", allow_special=True) == [100257]
    assert 100257 not in found.encode("<|endoftext|>")


def test_an_entry_that_merges_never_make_is_found_as_a_whole_word(rank_file: Path, tmp_path: Path) -> None:
    """tiktoken looks whole pieces up before it joins anything, so such an entry is used where it is a whole piece."""
    ranks = read_ranks(rank_file)
    path = tmp_path / "odd.tiktoken"
    ranks[b"zqxjk"] = max(ranks.values()) + 1
    path.write_text("".join(f"{base64.b64encode(data).decode()} {rank}\n" for data, rank in ranks.items()))
    found = import_table(path, "tiktoken", pattern="gpt2")
    assert found.encode("zqxjk") == [ranks[b"zqxjk"]]
    assert len(found.encode("zqxjkx")) > 1


@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
@pytest.mark.parametrize("exact", [True, False])
def test_a_sentencepiece_model_gives_the_ids_of_sentencepiece(
    training_texts: list[str], tmp_path: Path, algorithm: str, exact: bool
) -> None:
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece (extra `tokenizer`) is not installed")
    options: dict[str, Any] = {"byte_fallback": True}
    if exact:
        options |= {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    (tmp_path / "text.txt").write_text("\n".join(training_texts))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text.txt"), model_prefix=str(tmp_path / "made"), vocab_size=450, model_type=algorithm,
        minloglevel=5, hard_vocab_limit=False, **options,
    )  # fmt: skip
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "made.model"))
    ours = import_table(tmp_path / "made.model", "sentencepiece")
    ours.save(tmp_path / "out")
    texts = [*training_texts, *HARD_TEXTS, *random_texts(9, 300)]
    unequal = sum(ours.encode(text) != theirs.encode(text) for text in texts)
    assert unequal <= (0 if exact else 30)
    assert not exact or "unequal" not in ours.record["imported"]
    assert all(ours.encode(text) == theirs.encode(text) for text in (*training_texts, *HARD_TEXTS))
    assert ours.decode(ours.encode("the lazy dogs")) == "the lazy dogs"


def test_hf_folders_and_gpt2_files(tokenizer: Tokenizer, tokenizer_folder: Path, tmp_path: Path) -> None:
    whole = import_table(tokenizer_folder, "hf", name="mine")
    assert [whole.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]
    assert whole.record["imported"]["table"] == "mine"
    for names in (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")):
        folder = tmp_path / names[0]
        folder.mkdir()
        for source, target in zip(("vocab.json", "merges.txt"), names, strict=True):
            (folder / target).write_bytes((tokenizer_folder / source).read_bytes())
        found = import_table(folder, "hf")
        assert [found.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]


@pytest.mark.parametrize(
    ("name", "data", "format", "what"),
    [
        ("a.tiktoken", b"!!! 3\n", "tiktoken", "line 1"),
        ("a.tiktoken", b"YQ== 0\n", "tiktoken", "has no rank"),
        ("a.model", b"no protocol buffer", "sentencepiece", "not a SentencePiece model"),
        ("a.model", b"", "sentencepiece", "no pieces"),
        ("a.txt", b"", "hf", "no tokenizer.json"),
        ("a.txt", b"", "gguf", "unknown format"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, data: bytes, format: str, what: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=what):
        import_table(tmp_path / name, format, name="gpt2")


def test_a_table_without_a_pattern_or_a_file_is_refused(rank_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="how the table 'made' cuts text"):
        import_table(rank_file, "tiktoken")
    with pytest.raises(UserError, match="no such file") as caught:
        import_table(tmp_path / "gpt2", "hf")
    assert "local files only" in str(caught.value)


def test_other_ids_than_the_makers_library_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(CaslonError, match="cannot be carried over exactly: 'b'"):
        refuse_other_ids(tokenizer, lambda text: [1] if text == "b" else tokenizer.encode(text), "library", ["a", "b"])


def _published(name: str, files: tuple[str, ...]) -> Path:
    for file in files:
        if (TABLES / file).exists():
            return TABLES / file
    return pytest.skip(f"the published table {name} is not in {TABLES}")


def test_the_gpt2_table_gives_its_published_ids() -> None:
    path = _published("gpt2", ("gpt2/vocab.json", "gpt2/tokenizer.json", "gpt2.tiktoken", "r50k_base.tiktoken"))
    found = import_table(path, "tiktoken" if path.suffix == ".tiktoken" else "hf", name="gpt2")
    assert " ".join(map(str, found.encode(GPT2_TEXT))) == GPT2_IDS


@pytest.mark.parametrize("text", CL100K_CASES)
def test_the_cl100k_table_gives_its_published_ids(text: str) -> None:
    path = _published("cl100k_base", ("cl100k_base.tiktoken",))
    found = import_table(path, "tiktoken", name="cl100k_base")
    assert " ".join(map(str, found.encode(text))) == CL100K_CASES[text]


def test_the_record_is_written(rank_file: Path, tmp_path: Path) -> None:
    import_table(rank_file, "tiktoken", pattern="gpt2").save(tmp_path)
    record = json.loads((tmp_path / "caslon_tokenizer.json").read_text())
    assert record["imported"]["format"] == "tiktoken"
    assert record["vocab_size"] == Tokenizer.load(tmp_path).vocab_size
