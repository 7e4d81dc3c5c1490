"""Finished batches to the corpus on disk: shards in the order of reading, with a digest of what the corpus says."""

import shutil
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from caslon.corpus.deciding import Splits
from caslon.corpus.phases.finishing import PHASE as FINISH_PHASE
from caslon.corpus.phases.reading import PHASE as READ_PHASE
from caslon.corpus.shards import (
    DOCUMENT_SCHEMA,
    READ_SCHEMA,
    REJECT_SCHEMA,
    SEGMENT_SCHEMA,
    SIGNAL_SCHEMA,
    SPLITS,
    ShardWriter,
)
from caslon.corpus.work import DocumentColumns, rows_path

KINDS = ("documents", "segments", "rejects", "signals", "read")


@dataclass
class Written:
    """What was written, counted."""

    documents: Counter[str] = field(default_factory=Counter)
    segments: Counter[str] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)
    text_bytes: Counter[str] = field(default_factory=Counter)
    rejects: Counter[str] = field(default_factory=Counter)
    digests: list[bytes] = field(default_factory=list)  # those of a batch's documents in one

    @property
    def dataset_id(self) -> str:
        """The digest of all documents, their cuts and splits, whatever the order in which they were read."""
        return dataset_id(self.digests)


def dataset_id(digests: list[bytes]) -> str:
    """Return the digest of a corpus from those of its documents (`split_digest`), in any order and joined in any way."""
    return sha256(np.sort(np.frombuffer(b"".join(digests), dtype="S32")).tobytes()).hexdigest()


def split_digest(split: str, identifier: str, digest: bytes) -> bytes:
    """Return what the dataset id knows of one document: its id, its split, and the digest of its text and cuts."""
    return sha256(f"{split}\0{identifier}\0{digest.hex()}".encode()).digest()


class CorpusWriter:
    """Writes batch after batch below a folder."""

    def __init__(self, folder: Path, work: Path) -> None:
        for name in KINDS:
            shutil.rmtree(folder / name, ignore_errors=True)
        self._work = work
        self._documents = {split: ShardWriter(folder / "documents", split, DOCUMENT_SCHEMA) for split in SPLITS}
        self._segments = {split: ShardWriter(folder / "segments", split, SEGMENT_SCHEMA) for split in SPLITS}
        self._rejects = ShardWriter(folder / "rejects", "rejects", REJECT_SCHEMA)
        self._signals = ShardWriter(folder / "signals", "signals", SIGNAL_SCHEMA)
        self._read = ShardWriter(folder / "read", "read", READ_SCHEMA)
        self._items = 0  # read before the batch at hand
        self.written = Written()

    def write(self, number: int, splits: "np.ndarray[tuple[int], np.dtype[np.uint8]]") -> None:
        """Write one batch; `splits` are those of its judged documents, by their order."""
        documents = self._table(FINISH_PHASE, number, "documents")
        segments = self._table(FINISH_PHASE, number, "segments")
        split_of_document = splits[documents["order"].to_numpy()]
        split_of_segment = splits[segments["order"].to_numpy()]
        for code, split in enumerate(SPLITS):
            self._write_documents(split, documents.filter(pa.array(split_of_document == code)))
            chosen = segments.filter(pa.array(split_of_segment == code))
            self._segments[split].write_table(chosen)
            self.written.segments[split] += len(chosen)
        rejects = self._table(FINISH_PHASE, number, "rejects")
        self._rejects.write_table(self._ordered(rejects))
        self.written.rejects.update(rejects["code"].to_pylist())
        self._signals.write_table(self._table(FINISH_PHASE, number, "signals"))
        read = self._table(READ_PHASE, number, "documents")
        self._read.write_table(self._ordered(read))
        self._items += len(read) + len(self._table(READ_PHASE, number, "rejects"))

    def close(self) -> Written:
        """Write what is left and return the counts."""
        for writer in (*self._documents.values(), *self._segments.values(), self._rejects, self._signals, self._read):
            writer.close()
        return self.written

    def _write_documents(self, split: str, rows: pa.Table) -> None:
        self._documents[split].write_table(rows)
        self.written.documents[split] += len(rows)
        self.written.characters[split] += pc.sum(rows["characters"]).as_py() or 0
        self.written.text_bytes[split] += pc.sum(pc.binary_length(rows["text"])).as_py() or 0
        documents = zip(rows["id"].to_pylist(), rows["digest"].to_pylist(), strict=True)
        self.written.digests.append(b"".join(split_digest(split, *document) for document in documents))

    def _ordered(self, rows: pa.Table) -> pa.Table:
        """Return rows with the place in their batch turned into the place among everything that was read."""
        order = pc.add(rows["place"], pa.scalar(self._items, pa.int64()))
        kept = rows.drop_columns(["order"]) if "order" in rows.column_names else rows
        return kept.append_column("order", order)

    def _table(self, phase: str, number: int, kind: str) -> pa.Table:
        return pq.read_table(rows_path(self._work, phase, number, kind), use_threads=False)


def write_corpus(folder: Path, judged: DocumentColumns, splits: Splits) -> Written:
    """Write all batches of a corpus and return what was written."""
    writer = CorpusWriter(folder, judged.work)
    for start, end, summary in zip(judged.starts, judged.starts[1:], judged.summaries, strict=False):
        writer.write(summary.number, splits.of_document[start:end])
    return writer.close()
