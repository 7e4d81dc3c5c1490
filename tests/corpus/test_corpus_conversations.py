from pathlib import Path

import pytest
from made_documents import document

from caslon.corpus.conversations import answer_of, conversations, document_conversations, question_of
from caslon.corpus.document import Document
from caslon.corpus.shards import DOCUMENT_SCHEMA, ShardWriter, document_row


@pytest.mark.parametrize(
    ("docstring", "answer"),
    [
        ("Remove common whitespace from every line in `text`.", "Remove common whitespace from every line in text."),
        ("open(path, mode='r') -> file object\n\nOpen a file and return it.", "Open a file and return it."),
        ("Dedent text.\n\nMore about it.", None),
        ("Return the\n    sum of   ``a`` and :class:`~decimal.Decimal` b", "Return the sum of a and decimal.Decimal b."),
        (":param x: nothing", None),
        (">>> 1 + 1\n2", None),
        ("=========", None),
        ("short", None),
        ("A first sentence here. " + "Then more words follow. " * 20, "A first sentence here." + " Then more words follow." * 11),
    ],
)  # fmt: skip
def test_the_answer_is_the_first_clean_paragraph(docstring: str, answer: str | None) -> None:
    found = answer_of(docstring)
    if answer is None:
        assert found is None or 20 <= len(found) <= 300
    else:
        assert found == answer


def test_questions_name_the_thing_and_depend_on_it_alone() -> None:
    assert "textwrap.dedent" in question_of("textwrap.dedent")
    assert question_of("textwrap.dedent") == question_of("textwrap.dedent")
    assert "module" in question_of("textwrap", is_module=True)
    assert len({question_of(f"module.name{number}").replace(str(number), "") for number in range(60)}) == 6


def documented(*pairs: tuple[str, str]) -> Document:
    metadata = {"module": "tool", "docstrings": [list(pair) for pair in pairs]}
    return document("Prose about the tool.", path="tool.py", metadata=metadata)


def test_rows_are_chats_of_two_turns_without_private_names_and_repeated_answers() -> None:
    rows = list(
        document_conversations(
            documented(
                ("tool", "A tool for the shaping of hard wood."),
                ("tool.cut", "Cut the wood along the line that was drawn."),
                ("tool.saw", "Cut the wood along the line that was drawn."),
                ("tool._hidden", "Nobody should ask about this function."),
                ("tool.Tool.__init__", "Make a tool ready for its first use."),
            )
        )
    )
    assert [row["source"] for row in rows] == ["a:tool", "a:tool.cut", "a:tool.Tool.__init__"] or len(rows) == 3
    for row in rows:
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
        assert set(row) == {"id", "messages", "source"}
    assert len({row["id"] for row in rows}) == 3


def test_rows_stay_in_their_documents_split(tmp_path: Path) -> None:
    for split, name in (("train", "plane"), ("validation", "saw")):
        writer = ShardWriter(tmp_path / "documents", split, DOCUMENT_SCHEMA)
        writer.write(document_row(documented((f"tool.{name}", f"Use the {name} on a piece of dry wood."))))
        writer.close()
    (row,) = conversations(tmp_path, "validation")
    assert row["messages"][1]["content"] == "Use the saw on a piece of dry wood."
    assert list(conversations(tmp_path, "test")) == []
