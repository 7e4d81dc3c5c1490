"""The same function over many tasks in several processes, with results in the order of the tasks.

The processes are this machine's (`local`) or those of a Ray cluster (`ray`), which may stand on several machines that share a
file system. Local processes end by themselves when their parent is killed, so that nothing is left behind. A cluster that is
started here listens on the loopback address only, asks for the token that Ray keeps in the user's home folder, serves no
dashboard page and sends no usage reports.
"""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from caslon.errors import CaslonError, UserError

Task = TypeVar("Task")
Result = TypeVar("Result")
TASKS_WAITING_PER_WORKER = 2  # bounds what lies in memory
RAY_RETRIES = 20  # of a task whose machine is lost
NO_USAGE_REPORTS = {"RAY_USAGE_STATS_ENABLED": "0"}  # as the next one read when ray is imported, and by what it starts
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # Ray takes the loopback address then, on Linux too
TOKEN_ASKED = {"RAY_AUTH_MODE": "token"}  # other users of this machine reach the loopback address as well
PRIVATE = NO_USAGE_REPORTS | LOOPBACK_ONLY | TOKEN_ASKED
CODE = Path(__file__).parents[2]  # where the workers of a cluster find this very package


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Pending(Protocol):
    def result(self) -> Any: ...

    def cancel(self) -> Any: ...


class Workers:
    """Processes that are started when first needed and serve any number of functions. With one worker: this process."""

    def __init__(self, count: int, backend: str = "local") -> None:
        self.count, self.backend = count, backend
        self._pool: ProcessPoolExecutor | _RayPool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def in_order(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yield `function(task)` for each task, in order. Few tasks wait at a time, so `tasks` may be long."""
        if self.count <= 1 and self.backend == "local":
            yield from map(function, tasks)
            return
        pool = self._started()
        waiting: deque[_Pending] = deque()
        try:
            for task in tasks:
                waiting.append(pool.submit(function, task))
                while len(waiting) >= self.count * (1 + TASKS_WAITING_PER_WORKER):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise CaslonError(
                "a worker process was killed, most likely because memory ran out",
                where=f"workers = {self.count}",
                fix="use fewer workers and run again: what is finished is not done again",
            ) from error
        finally:
            for pending in waiting:
                pending.cancel()

    def _started(self) -> "ProcessPoolExecutor | _RayPool":
        if self._pool is None:
            self._pool = _RayPool(self.count) if self.backend == "ray" else _local_pool(self.count)
        return self._pool


def in_order(
    function: Callable[[Task], Result], tasks: Iterable[Task], workers: int, backend: str = "local"
) -> Iterator[Result]:
    """Yield `function(task)` for each task in order, by processes that live as long as the iteration."""
    with Workers(workers, backend) as pool:
        yield from pool.in_order(function, tasks)


def _local_pool(count: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, mp_context=context, initializer=_end_with_parent)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _RayPool:
    """A Ray cluster behind the two calls of a process pool that are used here.

    Joins the cluster that RAY_ADDRESS names, else starts one on this machine. A task whose worker is lost is done again by
    another: tasks write to temporary files that are renamed when whole, so that doing one twice changes nothing.
    """

    def __init__(self, count: int) -> None:
        os.environ.update(NO_USAGE_REPORTS if os.environ.get("RAY_ADDRESS") else PRIVATE)
        try:
            import ray
        except ModuleNotFoundError:
            raise UserError(
                'backend = "ray" needs the library ray, which is not installed', fix='pip install "caslon[ray]"'
            ) from None
        self._ray = ray
        self._own = not ray.is_initialized()
        if self._own:
            self._join(count)
        self._call = ray.remote(max_retries=RAY_RETRIES)(_call)

    def _join(self, count: int) -> None:
        try:
            self._ray.init(log_to_driver=False, configure_logging=False, **_cluster(count))
        except Exception as error:  # Ray has no type of its own for a cluster that does not start or answer
            raise CaslonError(
                f"the Ray cluster did not start or answer: {error}",
                where=f"RAY_ADDRESS = {os.environ.get('RAY_ADDRESS', '(none: started here)')}",
                fix="look into /tmp/ray/session_latest/logs; Ray gives its processes half a minute to start",
            ) from error

    def submit(self, function: Callable[[Any], Any], task: Any) -> "_RayResult":
        return _RayResult(self._ray, self._call.remote(function, task))

    def shutdown(self, wait: bool = True, cancel_futures: bool = True) -> None:
        del wait, cancel_futures
        if self._own:
            self._ray.shutdown()


def _cluster(count: int) -> dict[str, Any]:
    """Return how `ray.init` joins the cluster of RAY_ADDRESS, or starts one that only this machine can reach."""
    places = [str(CODE), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(places), **NO_USAGE_REPORTS}}
    if address := os.environ.get("RAY_ADDRESS"):
        return {"address": address, "runtime_env": environment}
    return {"num_cpus": count, "include_dashboard": False, "runtime_env": environment}


class _RayResult:
    def __init__(self, ray: Any, reference: Any) -> None:
        self._ray, self._reference = ray, reference

    def result(self) -> Any:
        try:
            return self._ray.get(self._reference)
        except self._ray.exceptions.RayTaskError as error:
            raise (error.cause or error) from error

    def cancel(self) -> None:
        self._ray.cancel(self._reference)


def _call(function: Callable[[Any], Any], task: Any) -> Any:
    return function(task)
