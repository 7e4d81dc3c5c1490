"""Writes one line of figures to the log every ten seconds while the engine is busy, in vLLM's words.

Programs that read vLLM's log read this one too.
"""

import logging
from collections.abc import Mapping

from caslon.engine.scheduler import Scheduler

SECONDS_BETWEEN_LINES = 10.0

_log = logging.getLogger("caslon.engine")


class Activity:
    """What was counted when the last line was written."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._before: dict[str, int] = {}

    def note(self, counts: Mapping[str, int], scheduler: Scheduler, now: float) -> None:
        """Take the counts after a step at `now` seconds; write a line when it is time. Idle time counts for nothing."""
        if self._since is None:
            self._since, self._before = now, dict(counts)
        seconds = now - self._since
        if seconds >= SECONDS_BETWEEN_LINES:
            _log.info("%s", self._line(counts, scheduler, seconds))
            self._since, self._before = now, dict(counts)
        if not scheduler.has_work:
            self._since = None

    def _line(self, counts: Mapping[str, int], scheduler: Scheduler, seconds: float) -> str:
        def gained(name: str) -> int:
            return counts.get(name, 0) - self._before.get(name, 0)

        pool = scheduler.pool
        return (
            f"Avg prompt throughput: {gained('computed_prompt_tokens') / seconds:.1f} tokens/s, "
            f"Avg generation throughput: {gained('chosen_tokens') / seconds:.1f} tokens/s, "
            f"Running: {len(scheduler.running)} reqs, Waiting: {len(scheduler.waiting)} reqs, "
            f"GPU KV cache usage: {100 * pool.used / pool.count:.1f}%, "
            f"Prefix cache hit rate: {100 * counts.get('cached_tokens', 0) / max(1, counts.get('prompt_tokens', 0)):.1f}%"
        )
