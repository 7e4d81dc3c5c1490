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

SECONDS = 120  # on a machine that is busy with other tests


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


def in_processes(world: int, function: Callable[..., Any], *arguments: Any, ended: int | None = None) -> list[Any]:
    """Return what `function(processes, *arguments)` returns in each of `world` processes.

    Where trouble is meant, `ended` is the process to wait for: of each the text of its error is returned, and the others are
    killed then.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # for the server, which starts at the first call
    port, pipes, started = free_port(), [], []
    for rank in range(world):
        receiving, sending = context.Pipe(duplex=False)
        process = context.Process(target=_one, args=(rank, world, port, sending, function, arguments))
        process.start()
        sending.close()
        pipes.append(receiving)
        started.append(process)
    if ended is not None:
        answers = [_answer(pipes[ended], SECONDS) if rank == ended else None for rank in range(world)]
        answers = [_answer(pipe, 0) if answer is None else answer for pipe, answer in zip(pipes, answers, strict=True)]
    else:
        answers = [_answer(pipe, SECONDS) for pipe in pipes]
    for process in started:
        process.join(5 if ended is None else 0)
        process.kill()
    if ended is not None:
        return [str(error or value) for value, error in answers]
    errors = [f"process {rank}: {error}" for rank, (_, error) in enumerate(answers) if error]
    assert not errors, "\n".join(errors)
    return [value for value, _ in answers]


def _answer(pipe: Connection, seconds: float) -> tuple[Any, str | None]:
    try:
        return pipe.recv() if pipe.poll(seconds) else (None, "gave no answer in time")
    except EOFError:
        return None, "ended without an answer"


def _one(
    rank: int, world: int, port: int, answer: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ.update(rank_environment(rank, world, port))
    torch.set_num_threads(1)
    try:
        answer.send((function(Processes.from_environment(), *arguments), None))
    except BaseException:
        answer.send((None, traceback.format_exc()))
