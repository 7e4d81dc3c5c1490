"""What the server looks after while answers run: time limits, keys that were revoked, an engine that stands still, loop lag."""

import asyncio
import logging
import sqlite3
import time

from anyio import to_thread

from caslon.server.errors import SERVER_ERROR, Refused
from caslon.server.models import Models
from caslon.server.service import Answer

log = logging.getLogger("caslon.server")

ROUND_SECONDS = 0.25


class Watch:
    """Goes round as long as the server runs."""

    def __init__(self, models: Models) -> None:
        self.models = models

    async def run(self) -> None:
        """Look after everything each quarter of a second. How late the loop wakes up is its lag."""
        while True:
            due = time.perf_counter() + ROUND_SECONDS
            await asyncio.sleep(ROUND_SECONDS)
            self.models.first.metrics.loop_lag.set(max(0.0, time.perf_counter() - due))
            try:
                await to_thread.run_sync(self.look)
            except Exception:  # the next round may go well, and without rounds no time limit would hold
                log.exception("a round of the watch failed")

    def look(self) -> None:
        """Look after everything once."""
        answers = []
        for service in self.models:
            answers += service.open_answers()
            if service.remote is None:
                stats = service.engine.stats()
                service.progress.note(stats.steps, bool(stats.running + stats.waiting))
        now = time.perf_counter()
        for answer in answers:
            self._check_time(answer, now)
        self._check_keys(answers)
        self.models.sweep()

    def _check_time(self, answer: Answer, now: float) -> None:
        limits = self.models.first.settings
        waited = now - answer.clock.received
        if not answer.is_running:
            if waited > limits.queue_timeout_seconds:
                answer.break_off(_too_late("no turn came in time; the server is busy", "queue_timeout"))
        elif waited > limits.request_timeout_seconds:
            answer.time_out()
        elif answer.clock.first is None and now - answer.clock.started > limits.first_token_timeout_seconds:
            answer.break_off(_too_late("no token came in time", "first_token_timeout"))

    def _check_keys(self, answers: list[Answer]) -> None:
        """Break off what runs for a key that lets in no more. A file that cannot be read ends it too."""
        used = {answer.call.key for answer in answers if answer.call is not None and answer.call.key is not None}
        if not used:
            return
        try:
            valid = self.models.first.admission.still_valid(list(used))
        except sqlite3.Error:
            log.exception("the keys cannot be read; what runs for them is broken off")
            valid = set()
        for answer in answers:
            if answer.call is not None and answer.call.key is not None and answer.call.key.id not in valid:
                message = "the API key was revoked or has expired"
                answer.break_off(Refused(401, message, code="invalid_api_key"))


def _too_late(message: str, code: str) -> Refused:
    return Refused(503, message, code=code, kind=SERVER_ERROR, headers={"retry-after": "5"})
