"""One command in several processes: torchrun starts it N times, the first carries it out, the others take part in what is shared.

Which process this is stands in torchrun's variables, so a command that nobody started several times pays nothing.
"""

import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from caslon.errors import Stopped

if TYPE_CHECKING:
    from caslon.train.distributed import Processes


def started_processes() -> "Processes | None":
    """Return the processes of a command that torchrun started several times."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return None
    from caslon.train.distributed import joined

    return joined()


def carried_out(command: Callable[[], int]) -> int:
    """Return the exit code of a command, which the first process carries out."""
    processes = started_processes()
    if processes is None:
        return command()
    if not processes.is_first:
        return _followed(processes)
    try:
        return command()
    finally:
        processes.tell(None)


def _followed(processes: "Processes") -> int:
    """Take part in what the first process shares until it ends, and leave it to that one to say how."""
    from caslon import runner
    from caslon.train.distributed import EndedElsewhere

    warnings.simplefilter("ignore")  # the first process gives the same ones
    try:
        runner.follow(processes)
    except (Stopped, EndedElsewhere) as error:
        return error.exit_code
    return 0
