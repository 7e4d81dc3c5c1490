import json
import re
from pathlib import Path
from typing import Any

import pytest

from caslon.errors import CaslonError, UserError
from caslon.report.page import readable
from caslon.tokenizer.compare import Comparison, compare, entrants, read_words
from caslon.tokenizer.compare_report import MEASURES, write_comparison
from caslon.tokenizer.reference_texts import DIGIT_SAMPLES, parallel_texts, text_types
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.tokenizer.train import train_tokenizer

LANGUAGES = ["English", "French", "Spanish", "German", "Russian", "Arabic", "Hindi", "Japanese", "Chinese", "Swahili"]
TEXTS = [
    "The lazy dogs, £5 naïve.\n",
    "morning parishes  jumped over 1834 <|endoftext|>",
    "def parse(text): return text",
]


@pytest.fixture(scope="module")
def folders(tokenizer: Tokenizer, training_texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three own tokenizers: two exact ones of different size, and one that lowers the case and has no byte for anything."""
    folder = tmp_path_factory.mktemp("compared")
    tokenizer.save(folder / "a")
    train_tokenizer(training_texts, vocab_size=320).save(folder / "b")
    parsed = json.loads(tokenizer.tokenizer_json)
    lossy = {
        "type": "WordPiece", "unk_token": "<|unk|>", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
        "vocab": {**{token: number for number, token in enumerate(tokenizer.special_tokens)}, "the": 32, "lazy": 33},
    }  # fmt: skip
    parsed |= {
        "model": lossy,
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": False},
    }
    Tokenizer(json.dumps(parsed), {**tokenizer.config, "tokenizer_class": "x"}).save(folder / "c")
    return [folder / "a", folder / "b", folder / "c"]


@pytest.fixture(scope="module")
def found(folders: list[Path]) -> Comparison:
    return compare(entrants([*folders, folders[0].parent / "gpt2"]), TEXTS, words=["lazy", "quixotic"])


def test_the_figures_are_those_of_the_texts(found: Comparison, tokenizer: Tokenizer) -> None:
    row = found.tokenizers[0]
    tokens = sum(len(tokenizer.encode(text)) for text in TEXTS)
    characters, size = sum(map(len, TEXTS)), sum(len(text.encode()) for text in TEXTS)
    words = sum(len(text.split()) for text in TEXTS)
    assert (row["name"], row["tokens"], row["vocab_size"], row["special_tokens"]) == (
        "a",
        tokens,
        tokenizer.vocab_size,
        32,
    )
    assert row["tokens_per_character"] == tokens / characters
    assert row["bytes_per_token"] == size / tokens
    assert row["tokens_per_byte"] == tokens / size
    assert row["tokens_per_word"] == tokens / words
    assert (row["round_trip_share"], row["unknown_share"]) == (1, 0)
    used = {id for text in TEXTS for id in tokenizer.encode(text)}
    assert (row["used_entries"], row["used_share"]) == (len(used), len(used) / tokenizer.vocab_size)
    assert row["whole_word_rate"] == sum(len(tokenizer.encode(f" {word}")) == 1 for word in ("lazy", "quixotic")) / 2
    longest = max(len(tokenizer.token_bytes(id)) for id in range(32, tokenizer.vocab_size))
    assert len(row["longest_entries"][0].replace("␣", " ").encode()) == longest
    assert sum(count for _, count in row["entry_lengths"]) == tokenizer.vocab_size - 32
    assert row["rank_frequency"][0][0] == 1
    assert row["encode_megabytes_per_second"] > 0
    assert row["size_on_disk_bytes"] > 10_000
    assert row["digits"].keys() == set(DIGIT_SAMPLES)
    assert all("".join(cut).replace("␣", " ") == sample for sample, cut in row["digits"].items())


def test_ten_languages_and_the_tax(found: Comparison, tokenizer: Tokenizer) -> None:
    assert list(parallel_texts().texts) == LANGUAGES
    assert "Declaration of Human Rights" in parallel_texts().title
    row = found.tokenizers[0]
    english = len(tokenizer.encode(parallel_texts().texts["English"]))
    for language in LANGUAGES:
        figures = row["languages"][language]
        assert figures["tokens"] == len(tokenizer.encode(parallel_texts().texts[language]))
        assert figures["tax"] == figures["tokens"] / english
    assert row["languages"]["English"]["tax"] == 1
    assert row["languages"]["Hindi"]["tax"] > 2
    assert row["languages"]["Chinese"]["tokens_per_word"] is None
    assert (
        list(row["text_types"])
        == ["prose", "verse", "trial", "code", "mathematics", "table"]
        == list(text_types().texts)
    )


def test_unequal_baselines_are_flagged(found: Comparison) -> None:
    flags = "\n".join(found.flags)
    assert "c changes the text before it is cut (Lowercase)" in flags
    assert "c is lossy: 0.00% of the texts" in flags
    assert "c has unknown tokens" in flags
    assert "a is lossy" not in flags
    assert "different or unknown text" in flags


def test_a_missing_table_is_not_available_and_has_no_figures(found: Comparison, folders: list[Path]) -> None:
    assert [(row["name"], row["why"]) for row in found.not_available] == [
        ("gpt2", "not available: no tokenizer.json in this folder")
    ]
    assert [row["name"] for row in found.tokenizers] == ["a", "b", "c"]
    with pytest.raises(UserError, match="no tokenizer to compare"):
        compare(entrants([folders[0] / "missing"]), TEXTS)
    with pytest.raises(UserError, match="no text to compare on"):
        compare(entrants(folders), [""])


def _numbers(value: Any) -> list[float]:
    if isinstance(value, bool | str) or value is None:
        return []
    if isinstance(value, int | float):
        return [value]
    return [number for item in (value.values() if isinstance(value, dict) else value) for number in _numbers(item)]


def test_the_page_holds_the_numbers_of_the_json_and_asks_no_server(found: Comparison, tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="plotly (extra `report`) is not installed")
    write_comparison(tmp_path, found)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    numbers = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert numbers == json.loads(json.dumps(found.to_json()))
    cells = set(re.findall(r"<td[^>]*>([^<]*)</td>", html))
    for row in numbers["tokenizers"]:
        for key in MEASURES.values():
            assert readable(row[key]) in cells, key
        for group in ("languages", "text_types"):
            assert all(
                readable(number) in cells
                for figures in row[group].values()
                for number in _numbers(
                    {name: value for name, value in figures.items() if name not in ("characters", "bytes")}
                )
            )
    assert all(flag.split(" (")[0] in html for flag in found.flags)
    assert "gpt2 (not available)" in html
    page = html[: html.rindex("<script>")].rsplit("<script>", 1)[0]
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page)
    assert "default-src 'none'" in html
    assert html.count("background:hsl(") > 500
    assert "coloured-tokens-" not in html
    assert html.count('class="chart') == 6


def test_words_from_lists_and_lexicons(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("thou\n\n thee \n")
    (tmp_path / "words.json").write_text('{"entries": [{"canonical": "thou", "category": "x"}, {"canonical": "morn"}]}')
    (tmp_path / "plain.json").write_text('["thou", "morn"]')
    (tmp_path / "none.json").write_text("{}")
    assert read_words(tmp_path / "words.txt") == ["thou", "thee"]
    assert read_words(tmp_path / "words.json") == read_words(tmp_path / "plain.json") == ["thou", "morn"]
    with pytest.raises(CaslonError, match="no words"):
        read_words(tmp_path / "none.json")
    with pytest.raises(UserError, match="no such file"):
        read_words(tmp_path / "missing")


def test_equal_names_are_told_apart_by_path(folders: list[Path]) -> None:
    names = [entrant.name for entrant in entrants([folders[0], folders[0], folders[1]])]
    assert names == [str(folders[0]), str(folders[0]), "b"]
