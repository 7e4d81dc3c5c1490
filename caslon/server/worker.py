"""One replica: an order on standard input to a model served on a socket file, until its supervisor ends.

Started by `caslon.server.replicas` as a process of its own.
"""

import dataclasses
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from caslon.engine.settings import EngineSettings
from caslon.errors import CaslonError
from caslon.server.settings import ServerSettings


def main() -> int:
    """Serve until SIGTERM; returns the exit code."""
    from caslon.model.folder import ModelFolder
    from caslon.server.run import BACKLOG, Ready, serve_on

    order: dict[str, Any] = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides

    def say(ready: Ready) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stdout.write(json.dumps(dataclasses.asdict(ready)) + "\n")
        sys.stdout.flush()

    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(order["socket"])
            listener.listen(BACKLOG)
            serve_on(
                listener,
                ModelFolder.open(Path(order["folder"])),
                ServerSettings(**order["settings"]),
                EngineSettings(**order["engine"]),
                on_ready=say,
                behind_proxy=True,
            )
    except CaslonError as error:
        sys.stderr.write(f"caslon: a replica did not start: {error}\n")
        return error.exit_code
    return 0


def _end_with_supervisor() -> None:
    """Wait for the end of standard input, which comes when the supervisor is gone, however it went."""
    while sys.stdin.read(1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
