"""Runs a function in several processes joined as torchrun joins them; each test file says which functions.

The processes are forked from a server that has imported torch once, so that a test waits a moment and not seconds.
"""

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

import caslon.train.sharded  # noqa: F401 - imported once, before the server forks
from caslon.train.distributed import Processes

SECONDS = 60


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def rank_environment(rank: int, world: int, port: int) -> dict[str, str]:
    """Return the variables torchrun sets."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def in_processes(world: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Return what `function(processes, *arguments)` returns in each of `world` processes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # for the server, which starts at the first call
    port, pipes, started = free_port(), [], []
    for rank in range(world):
        receiving, sending = context.Pipe(duplex=False)
        process = context.Process(target=_one, args=(rank, world, port, sending, function, arguments))
        process.start()
        pipes.append(receiving)
        started.append(process)
    answers = [pipe.recv() if pipe.poll(SECONDS) else (None, "gave no answer in time") for pipe in pipes]
    for process in started:
        process.join(5)
        process.kill()
    errors = [f"process {rank}: {error}" for rank, (_, error) in enumerate(answers) if error]
    assert not errors, "\n".join(errors)
    return [value for value, _ in answers]


def _one(
    rank: int, world: int, port: int, answer: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ.update(rank_environment(rank, world, port))
    torch.set_num_threads(1)
    try:
        answer.send((function(Processes.from_environment(), *arguments), None))
    except BaseException:
        answer.send((None, traceback.format_exc()))
