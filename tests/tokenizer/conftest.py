from pathlib import Path

import pytest

from caslon.corpus.document import BLOCK_SEPARATOR, Block, Document, Origin
from caslon.corpus.shards import DOCUMENT_SCHEMA, SEGMENT_SCHEMA, Segment, ShardWriter, document_row, segment_row
from caslon.folders import Manifest, StageFolder, content_digest, content_files
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.tokenizer.train import train_tokenizer

SENTENCE = "the quick brown fox, jumped over London's lazy dogs; def parse(text): return [line for line in text]\n"
WORDS = [
    *SENTENCE.split(" "),
    *(f"{one}{two}" for one in ("morn", "parish", "self.ca") for two in ("ing", "es", "ll(x)")),
]


def paragraph(number: int) -> str:
    return " ".join(WORDS[(number * 7 + place * place) % len(WORDS)] for place in range(40)) + f" {number} £5 naïve"


def texts(first: int, count: int) -> list[str]:
    return [
        BLOCK_SEPARATOR.join(paragraph(number * 3 + part) for part in range(3))
        for number in range(first, first + count)
    ]


@pytest.fixture(scope="session")
def training_texts() -> list[str]:
    return texts(0, 60)


@pytest.fixture(scope="session")
def tokenizer(training_texts: list[str]) -> Tokenizer:
    return train_tokenizer(training_texts, vocab_size=420)


@pytest.fixture(scope="session")
def tokenizer_folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> StageFolder:
    """A corpus stage folder with 60, 6 and 4 documents of three paragraphs."""
    folder = tmp_path_factory.mktemp("corpus")
    for split, first, count in (("train", 0, 60), ("validation", 60, 6), ("test", 66, 4)):
        documents = ShardWriter(folder / "documents", split, DOCUMENT_SCHEMA)
        segments = ShardWriter(folder / "segments", split, SEGMENT_SCHEMA)
        for number, text in enumerate(texts(first, count), start=first):
            document = _document(number, text)
            documents.write(document_row(document))
            for place, block in enumerate(document.blocks):
                segments.write(segment_row(_segment(document, place, block)))
        documents.close()
        segments.close()
    files = content_files(folder)
    manifest = Manifest(
        stage="corpus", stage_version=1, key="k", digest=content_digest(files), seed=1, settings={}, inputs={},
        sources={}, files=files, totals={}, versions={}, device="cpu", started="", seconds=0.0,
    )  # fmt: skip
    return StageFolder(folder, manifest)


def _document(number: int, text: str) -> Document:
    blocks, at = [], 0
    for part in text.split(BLOCK_SEPARATOR):
        blocks.append(Block(part, at, at + len(part)))
        at += len(part) + len(BLOCK_SEPARATOR)
    return Document(Origin("made", f"{number}.txt", sha256=str(number)), tuple(blocks))


def _segment(document: Document, place: int, block: Block) -> Segment:
    return Segment(
        f"{document.id}-{place}",
        block.text,
        document.id,
        block.start,
        block.end,
        block.start,
        block.end,
        document.origin,
    )
