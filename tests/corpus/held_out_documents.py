"""Clean documents of the real collection whose works the shipped word list has not seen."""

from collections.abc import Iterator
from pathlib import Path

from caslon.corpus.collect import raw_files
from caslon.corpus.document import Document
from caslon.corpus.lexicon_build import held_out
from caslon.corpus.read import read
from caslon.corpus.registry import load_sources
from caslon.corpus.repair import repair


def held_out_documents(folder: Path, characters: int, *sources: str) -> Iterator[Document]:
    """Yield repaired documents of held-out works until they have so many characters together."""
    size = 0
    for source in sources:
        for raw in raw_files(load_sources(str(folder / "london"), folder, only=(source,))):
            for item in read(raw):
                if isinstance(item, Document) and held_out(item.group) and not raw.metadata.get("ocr"):
                    found = repair(item, long_s="modern")
                    yield found
                    size += len(found.text)
            if size >= characters:
                return
