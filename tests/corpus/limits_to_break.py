"""Functions that break the reading process in every way; it imports them, so they stand in a module."""

import os
import signal
import time
from dataclasses import replace

from caslon.corpus.document import Document, Reject


def shouted(document: Document) -> Document | Reject:
    """Return the document in capitals, or do what its text asks for."""
    action = ACTIONS.get(document.text)
    if action is not None:
        action()
    return replace(document, blocks=tuple(replace(block, text=block.text.upper()) for block in document.blocks))


def _hang() -> None:
    time.sleep(600)


def _spin() -> None:
    while True:
        pass


def _grow() -> None:
    held = []
    while True:
        held.append(bytearray(16 << 20))


def _crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _leave() -> None:
    os._exit(3)


def _fail() -> None:
    raise ZeroDivisionError("a text no one thought of")


def _starve() -> None:
    """Work as one does who gets a tenth of the processor: two seconds for a fifth of one."""
    for _ in range(20):
        begun = time.process_time()
        while time.process_time() - begun < 0.01:
            pass
        time.sleep(0.09)


ACTIONS = {
    "starve": _starve,
    "hang": _hang,
    "spin": _spin,
    "grow": _grow,
    "crash": _crash,
    "leave": _leave,
    "fail": _fail,
}
