import subprocess
import sys
import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from made_documents import document, prose

from caslon.corpus.boilerplate import line_hashes, paragraph_hashes, without_repeats
from caslon.corpus.document import BLOCK_SEPARATOR, Block, Document, Origin
from caslon.corpus.settings import BoilerplateSettings

SETTINGS = BoilerplateSettings()
FOOTER = "This page was printed from the archive of the Society of Antiquaries."
PARAGRAPH = prose(7, paragraphs=1, sentences=4)


def hashes(text: str) -> frozenset[int]:
    return frozenset(line_hashes(document(text), SETTINGS).tolist())


def test_a_line_is_known_by_its_letters_and_digits() -> None:
    assert hashes(FOOTER) == hashes(f"  {FOOTER.upper().replace(' ', '  ')}!\n{FOOTER}")
    assert len(hashes(FOOTER)) == 1
    assert hashes(FOOTER) == hashes(FOOTER.replace("This page", "“This page”"))
    assert hashes("Paid the porter of the hall for bread 12 shillings") != hashes(
        "Paid the porter of the hall for bread 13 shillings"
    )


def test_short_lines_and_lines_without_letters_are_passed_over() -> None:
    assert not hashes("ACT I.\nSCENE II. The palace.\n" + "-" * 80)
    assert len(hashes("x" * 39)) == 0
    assert len(hashes("x" * 40)) == 1


def test_only_paragraphs_of_200_characters_count() -> None:
    assert len(paragraph_hashes(document("a" * 199), SETTINGS)) == 0
    assert (
        len(paragraph_hashes(document("a" * 200 + BLOCK_SEPARATOR + "A" * 200 + BLOCK_SEPARATOR + "b" * 200), SETTINGS))
        == 2
    )


def test_repeated_lines_and_blocks_go_and_say_where_they_stood() -> None:
    text = (
        f"A first line of verse.\n{FOOTER}\nA last line of verse.{BLOCK_SEPARATOR}{PARAGRAPH}{BLOCK_SEPARATOR}The end."
    )
    paragraphs = frozenset(paragraph_hashes(document(PARAGRAPH), SETTINGS).tolist())
    found = without_repeats(document(text), hashes(FOOTER), paragraphs, SETTINGS)
    assert [block.text for block in found.blocks] == ["A first line of verse.", "A last line of verse.", "The end."]
    assert [(removal.code, removal.text) for removal in found.removals] == [
        ("duplicate_paragraph", PARAGRAPH),
        ("boilerplate_line", FOOTER),
    ]
    for removal in found.removals:
        assert text[removal.start : removal.end] == removal.text
    for block in found.blocks:
        assert text[block.start : block.end] == block.text


def test_code_is_never_touched_and_nothing_when_switched_off() -> None:
    code = document(FOOTER, tier="code")
    assert not len(line_hashes(code, SETTINGS))
    assert without_repeats(code, hashes(FOOTER), frozenset(), SETTINGS) is code
    off = BoilerplateSettings(enabled=False)
    assert not len(line_hashes(document(FOOTER), off))
    assert without_repeats(document(FOOTER), hashes(FOOTER), frozenset(), off).text == FOOTER


def test_hashes_are_the_same_in_another_process() -> None:
    program = (
        "from caslon.corpus.boilerplate import line_hashes\n"
        "from caslon.corpus.document import Block, Document, Origin\n"
        "from caslon.corpus.settings import BoilerplateSettings\n"
        f"text = {FOOTER!r}\n"
        "print(line_hashes(Document(Origin('s', 'p'), (Block(text, 0, len(text)),)), BoilerplateSettings())[0])"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert int(printed) == int(line_hashes(document(FOOTER), SETTINGS)[0]) == 11725433911119412017


@given(st.lists(st.text(max_size=300), max_size=5))
def test_any_text_loses_exactly_what_is_removed(texts: list[str]) -> None:
    made = Document(Origin("s", "p"), tuple(Block(text, 0, len(text)) for text in texts))
    settings = BoilerplateSettings(line_characters=1, paragraph_characters=40)
    lines = frozenset(line_hashes(made, settings).tolist())
    paragraphs = frozenset(paragraph_hashes(made, settings).tolist())
    left = without_repeats(made, lines, paragraphs, settings)
    assert not len(line_hashes(left, settings))
    kept = "".join(block.text for block in left.blocks) + "".join(removal.text for removal in left.removals)
    assert sorted(filter(str.isalnum, kept)) == sorted(filter(str.isalnum, "".join(texts)))


def test_speed_is_at_least_15_megabytes_a_second() -> None:
    text = "\n".join(
        BLOCK_SEPARATOR.join(prose(seed, paragraphs=20).replace(", ", ",\n") for seed in range(100)).split("\n")
    )
    made = document(text)
    begun = time.process_time()
    found = np.concatenate([line_hashes(made, SETTINGS), paragraph_hashes(made, SETTINGS)])
    seconds = time.process_time() - begun
    assert len(found)
    assert len(text) / seconds > 15e6 / 2  # half of what is asked for: other work shares the machine
