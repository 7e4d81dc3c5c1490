"""The process of one program in a comparison: loads the model, then answers loads told on standard input, a JSON line each.

Each program has a process of its own, so that its memory is its own and no library changes another's threads.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from caslon.peers.peer import Setting, loaded

RSS_UNIT = 1 if sys.platform == "darwin" else 1024


def main() -> None:
    """Load, say so, then answer until standard input ends."""
    answers = _own_output()
    name, given = sys.argv[1], json.loads(sys.argv[2])
    setting = Setting(**{**given, "folder": Path(given["folder"])})
    began = time.perf_counter()
    peer = loaded(name, setting)
    _tell(answers, {"version": peer.version, "dtype": peer.dtype, "load_seconds": time.perf_counter() - began})
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.perf_counter()
        ids = peer.generate(asked["prompts"], asked["new_tokens"], asked["batch"])
        seconds = time.perf_counter() - began
        _tell(answers, {"seconds": seconds, "ids": ids, "peak_bytes": _peak_bytes()})


def _own_output() -> TextIO:
    """Return standard output as it was, and lead whatever libraries print to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _tell(answers: TextIO, value: dict[str, Any]) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()


def _peak_bytes() -> int:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) * RSS_UNIT


if __name__ == "__main__":
    main()
