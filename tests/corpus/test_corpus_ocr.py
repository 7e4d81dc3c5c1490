import random
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from held_out_documents import held_out_documents
from hypothesis import given, settings
from hypothesis import strategies as st
from made_documents import document, prose

from caslon.corpus.collect import RawFile
from caslon.corpus.document import Document
from caslon.corpus.lexicon import Lexicon
from caslon.corpus.ocr import repair_ocr, without_ocr_edits
from caslon.corpus.read import read
from caslon.corpus.repair import repair

WORDS = Lexicon.shipped()
MISREAD = {
    "o": ("0",), "l": ("1", "i"), "i": ("1", "l"), "s": ("5", "f"), "b": ("8",), "m": ("rn",), "d": ("cl",), "n": ("ii",),
    "w": ("vv",), "rn": ("m",), "cl": ("d",), "ii": ("n",),
}  # fmt: skip
NOISE = 0.03


def repaired(text: str) -> str:
    return repair_ocr(document(text), WORDS, apply=True).text


@pytest.mark.parametrize(
    ("misread", "meant"),
    [
        ("L0nd0n", "London"),
        ("the L0nd0n bridge, 1arge and 5ilver", "the London bridge, large and silver"),
        ("a b0ok of c0un5el", "a book of counsel"),
        ("he retumed to the govemment", "he returned to the government"),
        ("the chilcl of the worlcl", "the child of the world"),
        ("a vvorld of vvonder", "a world of wonder"),
        ("a fevv rnen with c10aks", "a few men with cloaks"),
        ("fhall poffefs fuch thoufands", "shall possess such thousands"),
        ("L0ND0N", "LONDON"),
    ],
)
def test_misread_words_are_put_right(misread: str, meant: str) -> None:
    assert repaired(misread) == meant


@pytest.mark.parametrize(
    "text",
    [
        "Chapter 1, 5 shillings, 8 o'clock",
        "born clerk Hawaii",
        "10l. 5s. 6d. £10 10s. l0s. 1st 2d 3dly 8vo 12mo 1666 1,500 No. 31 xviii XVIII. ciii M.DCC.L t17540116-4 B52 K013728.000",
        "see5 page5 5And 1In word1 A1 vol5 8d. 1s 5l 11th 1/2 5½ 182609140001 http://x0.org/b00k L1 10b",
        "the\nking",
        "a\n\nb 0 1 5 8 l i",
    ],
)
def test_what_is_no_misread_word_stays(text: str) -> None:
    assert repaired(text) == text


def test_lines_join_with_a_space_and_words_stay_apart() -> None:
    wrapped = "He was conducted by the officers to the palace in which the\nking received him with great civility."
    raw = RawFile("test", "a.txt", "", wrapped.encode(), "0" * 64, {})
    read_back = [item for item in read(raw) if isinstance(item, Document)]
    assert "the king received" in repair_ocr(repair(read_back[0]), WORDS, apply=True).text


def test_without_apply_suspects_are_only_counted() -> None:
    text = "The L0nd0n merchant and the c0un5el"
    found = repair_ocr(document(text), WORDS, apply=False)
    assert found.text == text
    assert found.metadata == {"ocr_suspects": 2}
    clean = document(prose(1))
    assert repair_ocr(clean, WORDS, apply=True) is clean


def test_every_edit_is_stored_with_its_place_and_can_be_undone() -> None:
    before = document("The L0nd0n chilcl.\n\nNothing here.\n\nA vvorld (of c0un5el)")
    after = repair_ocr(before, WORDS, apply=True)
    assert after.metadata["ocr_edits"] == [
        [0, 4, "L0nd0n", "London"],
        [0, 11, "chilcl", "child"],
        [2, 2, "vvorld", "world"],
        [2, 13, "c0un5el", "counsel"],
    ]
    assert [(block.start, block.end) for block in after.blocks] == [(block.start, block.end) for block in before.blocks]
    assert without_ocr_edits(after).blocks == before.blocks


def test_one_odd_word_in_a_long_text_is_a_name_and_stays() -> None:
    text = prose(2, paragraphs=20) + " The house of Mr. Haffell."
    kept = repair_ocr(document(text), Lexicon({**{w: WORDS.count(w) for w in WORDS.words}, "hassell": 64}), apply=True)
    assert kept.text == text
    assert kept.metadata == {"ocr_suspects": 1}


def test_code_is_not_read_as_prose() -> None:
    source = document("L0nd0n = b00k", tier="code")
    assert repair_ocr(source, WORDS, apply=True) is source


@settings(max_examples=100, deadline=None)
@given(
    st.text(st.one_of(st.characters(exclude_categories=("Cs",)), st.sampled_from("rnclilv05 18'fsmd\n")), max_size=120)
)
def test_any_text_keeps_its_white_space_and_its_edits_can_be_undone(text: str) -> None:
    before = document(text)
    after = repair_ocr(before, WORDS, apply=True)
    assert without_ocr_edits(after).blocks == before.blocks
    assert re.findall(r"\s+", after.text) == re.findall(r"\s+", before.text)


def misread_text(text: str, numbers: random.Random) -> str:
    """Return the text with about 3 % of its characters misread."""
    rate = NOISE * len(text) / max(sum(char in MISREAD for char in text), 1)
    parts, position = [], 0
    while position < len(text):
        seen = text[position : position + 2]
        seen = seen if seen in MISREAD else text[position]
        parts.append(numbers.choice(MISREAD[seen]) if seen in MISREAD and numbers.random() < rate else seen)
        position += len(seen)
    return "".join(parts)


def distance(one: str, other: str) -> int:
    """Return Levenshtein's distance."""
    above = list(range(len(other) + 1))
    for row, left in enumerate(one, start=1):
        line = [row]
        for column, right in enumerate(other, start=1):
            line.append(min(above[column] + 1, line[-1] + 1, above[column - 1] + (left != right)))
        above = line
    return above[-1]


def precision_and_errors(clean: Iterator[Document]) -> tuple[float, float, float, int]:
    """Return the share of edits that are right, the character error rates before and after, and the number of edits."""
    numbers = random.Random(7)
    right = edits = before = after = characters = 0
    for good in clean:
        bad = replace(
            good, blocks=tuple(replace(block, text=misread_text(block.text, numbers)) for block in good.blocks)
        )
        words = (item.text.split() for item in (good, bad, repair_ocr(bad, WORDS, apply=True)))
        for meant, seen, now in zip(*words, strict=True):
            characters += len(meant) + 1
            if meant == seen == now:
                continue
            before += distance(meant, seen)
            after += distance(meant, now)
            edits += now != seen
            right += now != seen and now == meant
    return right / edits, before / characters, after / characters, edits


def test_edits_of_noisy_text_are_right_and_errors_become_fewer(real_data: Path) -> None:
    texts = (path.read_text("utf-8") for path in sorted((real_data / "london" / "sample").glob("ecco-tcp-txt*.txt")))
    clean = (repair(document(text), long_s="modern") for text in texts)
    precision, before, after, edits = precision_and_errors(clean)
    assert edits > 300
    assert 0.02 < before < 0.06
    assert precision >= 0.95
    assert after <= 0.75 * before


@pytest.mark.slow
def test_noise_in_print_of_the_eighteenth_century(real_data: Path) -> None:
    clean = held_out_documents(real_data, 1_000_000, "ecco-tcp-txt")
    precision, before, after, _ = precision_and_errors(document(good.text[:200_000]) for good in clean)
    assert precision >= 0.95
    assert after <= 0.75 * before


@pytest.mark.slow
def test_five_megabytes_of_clean_prose_keep_their_numerals_and_nearly_all_their_words(real_data: Path) -> None:
    sources = ("ecco-tcp-txt", "oldbailey-ordinary", "ecco-tcp-xml-1", "ecco-tcp-xml-2", "ecco-tcp-xml-3")
    characters = words = 0
    edits: list[tuple[str, str]] = []
    for good in held_out_documents(real_data, 5_000_000, *sources):
        characters += len(good.text)
        words += len(good.text.split())
        edits += [(row[2], row[3]) for row in repair_ocr(good, WORDS, apply=True).metadata.get("ocr_edits", ())]
    assert characters >= 5_000_000
    numerals = [before for before, _ in edits if sum(map(str.isdigit, before)) * 2 >= len(before)]
    assert numerals == []
    assert len(edits) <= words / 10_000
