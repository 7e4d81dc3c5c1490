"""Batches of texts to the bytes of their ids, in this process or in several, in the order they came.

Batches are dealt out in turn and collected in turn, so the result is the same for any number of processes.
"""

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection

import numpy as np

from caslon.errors import CaslonError
from caslon.tokenizer.bulk import BulkEncoder, id_type
from caslon.tokenizer.tokenizer import Tokenizer

Batch = tuple[list[str], list[str]]  # ids of units, their texts


@dataclass(frozen=True)
class Encoded:
    """A batch of units as the bytes a token file holds, with counts per unit."""

    data: bytes
    tokens: list[int]  # with the end-of-text id
    characters: list[int]
    text_bytes: list[int]


class Encoders:
    """Encodes batches in this process."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._encoder = BulkEncoder(tokenizer)
        self._end = end_bytes(tokenizer)

    def encode(self, batches: Iterable[Batch]) -> Iterator[tuple[list[str], Encoded]]:
        """Yield each batch's ids of units and encoded texts, in order."""
        for ids, texts in batches:
            yield ids, _encode_batch(self._encoder, texts, self._end)


class ProcessEncoders(Encoders):
    """Encodes batches in several processes."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self._connections = connections

    def encode(self, batches: Iterable[Batch]) -> Iterator[tuple[list[str], Encoded]]:
        """Yield each batch's ids of units and encoded texts, in order; `CaslonError` when a process ended early."""
        at_work: list[list[str] | None] = [None] * len(self._connections)
        turn = count()
        for ids, texts in batches:
            place = next(turn) % len(at_work)
            yield from self._finished(at_work, place)
            try:
                self._connections[place].send(texts)
            except OSError:
                raise _ended_early() from None
            at_work[place] = ids
        for _ in at_work:
            yield from self._finished(at_work, next(turn) % len(at_work))

    def _finished(self, at_work: list[list[str] | None], place: int) -> Iterator[tuple[list[str], Encoded]]:
        ids = at_work[place]
        if ids is None:
            return
        at_work[place] = None
        try:
            result = self._connections[place].recv()
        except (EOFError, OSError):
            raise _ended_early() from None
        if isinstance(result, CaslonError):
            raise result
        yield ids, result


def _ended_early() -> CaslonError:
    return CaslonError("an encoding process ended early", fix="run again; with less memory, fewer workers")


@contextmanager
def encoders(tokenizer: Tokenizer, workers: int) -> Iterator[Encoders]:
    """Give an encoder that uses `workers` processes (one: this one), and end them afterwards."""
    if workers <= 1:
        yield Encoders(tokenizer)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads hold
    pipes = [context.Pipe() for _ in range(workers)]
    processes = [context.Process(target=_work, args=(theirs, tokenizer), daemon=True) for _, theirs in pipes]
    for process in processes:
        process.start()
    for _, theirs in pipes:
        theirs.close()
    try:
        yield ProcessEncoders([ours for ours, _ in pipes])
    finally:
        for ours, _ in pipes:
            ours.close()  # the processes end when their pipe does
        for process in processes:
            process.join()


def _work(connection: Connection, tokenizer: Tokenizer) -> None:
    """Encode what comes through the pipe until it is closed."""
    encoder, end = BulkEncoder(tokenizer), end_bytes(tokenizer)
    while True:
        try:
            texts = connection.recv()
        except EOFError:
            return
        try:
            result: Encoded | CaslonError = _encode_batch(encoder, texts, end)
        except CaslonError as error:
            result = error
        try:
            connection.send(result)
        except OSError:  # the main process gave up
            return


def _encode_batch(encoder: BulkEncoder, texts: Sequence[str], end: bytes) -> Encoded:
    parts = [encoder.encode_bytes(text) + end for text in texts]
    return Encoded(
        data=b"".join(parts),
        tokens=[len(part) // len(end) for part in parts],
        characters=[len(text) for text in texts],
        text_bytes=[len(text.encode()) for text in texts],
    )


def end_bytes(tokenizer: Tokenizer) -> bytes:
    """Return the end-of-text id as a token file holds it."""
    return np.array([tokenizer.end_of_text_id], dtype=id_type(tokenizer.vocab_size)).tobytes()
