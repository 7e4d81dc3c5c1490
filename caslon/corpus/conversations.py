"""Question and answer pairs from documented source code: "What does textwrap.dedent do?" and what its docstring says first.

The rows stay in the split of their document, so that a question from the test split was never trained on. Which wording a
question gets follows from a hash of the name, so the same corpus gives the same rows.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from caslon.corpus.document import Document
from caslon.corpus.segments import sentence_ends
from caslon.corpus.shards import read_documents

MINIMUM_CHARACTERS = 20
MAXIMUM_CHARACTERS = 300
QUESTIONS = (
    "What does {name} do?",
    "What is {name} for?",
    "Explain {name}.",
    "Can you tell me what {name} does?",
    "How would you describe {name}?",
    "What is the purpose of {name}?",
)
MODULE_QUESTIONS = (
    "What is the {name} module for?",
    "What does the module {name} do?",
    "Tell me about the {name} module.",
)
SIGNATURE = re.compile(r"^[\w.]+\s?\([^\n]*\)\s*(?:->|-{1,2}|:|=)?\s*")
MARKUP = re.compile(r":[a-z]+:`~?([^`<]+?)(?:\s<[^`]*)?`|``([^`]+)``|`([^`]+)`|\*\*([^*\n]+)\*\*")
FIELD = re.compile(r"^\s*(?::\w+|@\w+|Args:|Arguments:|Parameters|Returns:|Example|>>>|\$ |\* |- )", re.IGNORECASE)
HAS_LETTERS = re.compile(r"[A-Za-z]{3}.*[A-Za-z]{3}", re.DOTALL)


def conversations(corpus_folder: Path, split: str) -> Iterator[dict[str, Any]]:
    """Yield the rows `{"id", "messages", "source"}` of a split; a question is asked once."""
    asked: set[str] = set()
    for document in read_documents(corpus_folder, split):
        for row in document_conversations(document):
            question = row["messages"][0]["content"]
            if question not in asked:
                asked.add(question)
                yield row


def document_conversations(document: Document) -> Iterator[dict[str, Any]]:
    """Yield the rows that a document's docstrings give."""
    module = document.metadata.get("module", "")
    answers: set[str] = set()
    for name, docstring in document.metadata.get("docstrings", ()):
        answer = answer_of(docstring)
        if answer is None or answer in answers or _is_private(name):
            continue
        answers.add(answer)
        yield {
            "id": hashlib.sha256(f"{document.id}\0{name}".encode()).hexdigest()[:16],
            "messages": [
                {"role": "user", "content": question_of(name, is_module=name == module)},
                {"role": "assistant", "content": answer},
            ],
            "source": f"{document.origin.address}:{name}",
        }


def question_of(name: str, *, is_module: bool = False) -> str:
    """Return the question about a name; its wording depends on the name alone."""
    wordings = MODULE_QUESTIONS if is_module else QUESTIONS
    choice = hashlib.sha256(name.encode()).digest()[0] % len(wordings)
    return wordings[choice].format(name=name)


def answer_of(docstring: str) -> str | None:
    """Return what a docstring says first, as one clean paragraph of 20 to 300 characters, or None when it says nothing."""
    for paragraph in re.split(r"\n[ \t]*\n", docstring.strip())[:3]:
        text = _prose(paragraph)
        if FIELD.match(text) or not HAS_LETTERS.search(text):
            continue
        if len(text) > MAXIMUM_CHARACTERS:
            text = _first_sentences(text)
        if MINIMUM_CHARACTERS <= len(text) <= MAXIMUM_CHARACTERS and " " in text:
            return text if text[-1] in ".!?" else text.rstrip(":,;- ") + "."
    return None


def _prose(paragraph: str) -> str:
    text = " ".join(paragraph.split())
    text = SIGNATURE.sub("", text)
    text = MARKUP.sub(lambda match: next(group for group in match.groups() if group), text)
    return text[:1].upper() + text[1:] if text[:1].islower() and " " in text and not _is_name(text.split()[0]) else text


def _first_sentences(text: str) -> str:
    ends = [end for end in sentence_ends(text) if end <= MAXIMUM_CHARACTERS]
    return text[: ends[-1]] if ends else text


def _is_name(word: str) -> bool:
    return "_" in word or "." in word or "(" in word


def _is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.endswith("__") for part in name.split("."))
