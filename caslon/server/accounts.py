"""The accounts of keys, addresses and everybody: what is reserved before work starts, and what of it was really used.

They stand in one file that all processes of a service share and that a killed process leaves right: one transaction takes a
request in or refuses it, one settles it. A request of a process that died stays charged and stops counting as open.
"""

import contextlib
import datetime
import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from caslon.server.allowance import Allowance
from caslon.server.errors import SERVER_ERROR, Refused
from caslon.server.ledger import Ledger
from caslon.server.meters import METERS, CalendarMonth, Decision, FixedWindow, Meter, SlidingLog

ACCOUNTS_FILE = "accounts.db"
FAILED_KEYS_PER_MINUTE = 20
DAY_SECONDS = 86_400.0
REQUESTS, TOKENS = "requests", "tokens"
LIMIT_HEADERS = tuple(
    f"x-ratelimit-{what}-{of}" for of in (REQUESTS, TOKENS) for what in ("limit", "remaining", "reset")
)
TABLES = """
CREATE TABLE IF NOT EXISTS meters (
  holder TEXT, what TEXT, state TEXT NOT NULL, touched REAL NOT NULL, PRIMARY KEY (holder, what)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS open (request TEXT, holder TEXT, worker TEXT NOT NULL, PRIMARY KEY (holder, request)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS used (
  holder TEXT, day TEXT, requests INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
  PRIMARY KEY (holder, day)
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Account:
    """Whose account it is (`key:3f…`, `address:10.0.0.7`, `all`) and what it allows."""

    holder: str
    allowance: Allowance


@dataclass
class Entry:
    """A request as it stands in the books. `headers` tell its caller what is left."""

    request: str
    accounts: Sequence[Account]
    headers: dict[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    reserved_tokens: int = 0
    reserved_at: float = 0.0


@dataclass(frozen=True)
class Usage:
    """What a holder used on a day."""

    holder: str
    day: str
    requests: int
    prompt_tokens: int
    completion_tokens: int


class Accounts:
    """The books of one folder. Every call is one transaction; a file that fails refuses the request, never the limit."""

    def __init__(self, folder: Path, meter: str = "token_bucket", clock: Callable[[], float] = time.time) -> None:
        self._meter = METERS[meter]
        self._clock = clock
        self._ledger = Ledger(folder / ACCOUNTS_FILE, TABLES)
        self._clear_dead_workers()

    def close(self) -> None:
        """Leave the books to the others."""
        self._ledger.close()

    def told(self, accounts: Sequence[Account]) -> dict[str, str]:
        """Return the headers that tell a caller what is left, for a request that is not counted."""
        entry = Entry("", [account for account in accounts if account.allowance])
        if entry.accounts:
            with self._transaction() as now:
                self._tell(entry, now)
        return entry.headers

    def enter(self, request: str, accounts: Sequence[Account]) -> Entry:
        """Take a request in, or raise `Refused` (429). Nothing is written where no account has a limit."""
        entry = Entry(request, [account for account in accounts if account.allowance])
        if not entry.accounts:
            return entry
        with self._transaction() as now:
            self._tell(entry, now)
            taken = []
            for account in entry.accounts:
                self._open(request, account)
                for unit, meter in _request_meters(account, self._meter):
                    decision = self._take(account.holder, REQUESTS, meter, 1, now)
                    self._refuse(account, unit, meter.limit, decision, entry)
                    taken.append((meter.limit, decision))
        _describe(entry, REQUESTS, taken)
        entry.delay_seconds = max((decision.delay_seconds for _, decision in taken), default=0.0)
        return entry

    def reserve(self, entry: Entry, tokens: int) -> None:
        """Set tokens aside for a request, or raise `Refused` (429)."""
        if not any(_token_meters(account, self._meter) for account in entry.accounts):
            return
        taken = []
        with self._transaction() as now:
            for account in entry.accounts:
                for what, unit, meter in _token_meters(account, self._meter):
                    decision = self._take(account.holder, what, meter, tokens, now)
                    self._refuse(account, unit, meter.limit, decision, entry, tokens)
                    taken.append((meter.limit, decision))
        _describe(entry, TOKENS, taken)
        entry.reserved_tokens += tokens
        entry.reserved_at = now

    def settle(self, entry: Entry, holders: Sequence[str], prompt_tokens: int, completion_tokens: int) -> None:
        """Give back what a request reserved and did not use, close it, and note its use under each holder."""
        unused = max(0, entry.reserved_tokens - prompt_tokens - completion_tokens)
        if not entry.accounts and not holders:
            return
        with self._transaction() as now:
            for account in entry.accounts:
                for what, _, meter in _token_meters(account, self._meter) if unused else ():
                    state = meter.give_back(self._state(account.holder, what), unused, entry.reserved_at, now)
                    self._store(account.holder, what, state, now)
                if account.allowance.concurrent is not None:
                    closed = [account.holder, entry.request]
                    self._ledger.execute("DELETE FROM open WHERE holder = ? AND request = ?", closed)
            for holder in holders:
                self._note_use(holder, now, prompt_tokens, completion_tokens)

    def failed_key(self, address: str) -> None:
        """Note a wrong key from an address; `Refused` (429) when there were too many."""
        with self._transaction() as now:
            meter = SlidingLog(FAILED_KEYS_PER_MINUTE)
            decision = self._take(f"address:{address}", "failed keys", meter, 1, now)
        if not decision.allowed:
            raise Refused(
                429, "too many wrong keys from this address", code="too_many_failed_keys",
                kind="rate_limit_error", headers=_retry_after(decision.retry_seconds),
            )  # fmt: skip

    def usage(self) -> list[Usage]:
        """Return what every holder used, by day."""
        return [Usage(*row) for row in self._ledger.rows("SELECT * FROM used ORDER BY holder, day")]

    def _tell(self, entry: Entry, now: float) -> None:
        """Describe what is left before the request takes anything."""
        requests, tokens = [], []
        for account in entry.accounts:
            for _, meter in _request_meters(account, self._meter):
                requests.append((meter.limit, meter.decide(self._state(account.holder, REQUESTS), 0, now)))
            for what, _, meter in _token_meters(account, self._meter):
                tokens.append((meter.limit, meter.decide(self._state(account.holder, what), 0, now)))
        _describe(entry, REQUESTS, requests)
        _describe(entry, TOKENS, tokens)

    def _open(self, request: str, account: Account) -> None:
        limit = account.allowance.concurrent
        if limit is None:
            return
        question = "SELECT count(*) FROM open WHERE holder = ?"
        [count] = self._ledger.execute(question, [account.holder]).fetchone()
        if count >= limit:
            raise Refused(
                429, f"{count} requests of {_name(account.holder)} are open; at most {limit} are taken",
                code="too_many_open_requests", kind="rate_limit_error", headers=_retry_after(1),
            )  # fmt: skip
        self._ledger.execute("INSERT INTO open VALUES (?, ?, ?)", [request, account.holder, self._ledger.worker])

    def _take(self, holder: str, what: str, meter: Meter, cost: float, now: float) -> Decision:
        decision = meter.decide(self._state(holder, what), cost, now)
        if decision.allowed:
            self._store(holder, what, decision.state, now)
        return decision

    def _refuse(
        self, account: Account, unit: str, limit: float, decision: Decision, entry: Entry, tokens: int | None = None
    ) -> None:
        if decision.allowed:
            return
        asked = f"; this request may need {tokens:,}" if tokens is not None else ""
        message = (
            f"{_name(account.holder)} may use {limit:,.0f} {unit}, {max(0, decision.remaining):,.0f} are left{asked}"
        )
        code = "rate_limit_exceeded" if "minute" in unit else "budget_exceeded"
        headers = {**entry.headers, **_retry_after(decision.retry_seconds)}
        raise Refused(429, message, code=code, kind="rate_limit_error", headers=headers)

    def _state(self, holder: str, what: str) -> list[float]:
        row = self._ledger.execute("SELECT state FROM meters WHERE holder = ? AND what = ?", [holder, what]).fetchone()
        return json.loads(row[0]) if row else []

    def _store(self, holder: str, what: str, state: Sequence[float], now: float) -> None:
        self._ledger.execute(
            "INSERT OR REPLACE INTO meters VALUES (?, ?, ?, ?)", [holder, what, json.dumps(state), now]
        )

    def _note_use(self, holder: str, now: float, prompt_tokens: int, completion_tokens: int) -> None:
        day = datetime.datetime.fromtimestamp(now, datetime.UTC).date().isoformat()
        self._ledger.execute(
            "INSERT INTO used VALUES (?, ?, 1, ?, ?) ON CONFLICT DO UPDATE SET requests = requests + 1,"
            " prompt_tokens = prompt_tokens + excluded.prompt_tokens,"
            " completion_tokens = completion_tokens + excluded.completion_tokens",
            [holder, day, prompt_tokens, completion_tokens],
        )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[float]:
        """Give the time within a transaction that no other process can come between."""
        try:
            with self._ledger.transaction(self._clock) as now:
                yield now
        except sqlite3.Error:
            message = "the limits cannot be read or written, so no request is taken"
            raise Refused(503, message, code="store_unavailable", kind=SERVER_ERROR) from None

    def _clear_dead_workers(self) -> None:
        """Close the requests of processes that ended without doing so, and forget meters that are long full again."""
        with self._transaction() as now:
            for [worker] in self._ledger.execute("SELECT DISTINCT worker FROM open").fetchall():
                if not self._ledger.is_alive(worker):
                    self._ledger.execute("DELETE FROM open WHERE worker = ?", [worker])
            self._ledger.execute("DELETE FROM meters WHERE touched < ?", [now - 40 * DAY_SECONDS])


def _request_meters(account: Account, meter: Callable[[float], Meter]) -> list[tuple[str, Meter]]:
    """Return unit and meter of what an account limits in requests."""
    limit = account.allowance.requests_per_minute
    return [] if limit is None else [("requests per minute", meter(limit))]


def _token_meters(account: Account, meter: Callable[[float], Meter]) -> list[tuple[str, str, Meter]]:
    """Return name, unit and meter of what an account limits in tokens."""
    allowance = account.allowance
    found: list[tuple[str, str, Meter]] = []
    if allowance.tokens_per_minute is not None:
        found.append((TOKENS, "tokens per minute", meter(allowance.tokens_per_minute)))
    if allowance.tokens_per_day is not None:
        found.append(("day", "tokens a day", FixedWindow(allowance.tokens_per_day, DAY_SECONDS)))
    if allowance.tokens_per_month is not None:
        found.append(("month", "tokens a month", CalendarMonth(allowance.tokens_per_month)))
    return found


def _describe(entry: Entry, what: str, decisions: Sequence[tuple[float, Decision]]) -> None:
    """Tell the caller what is left of the limit that leaves least, whoever's it is and however long its window."""
    if not decisions:
        return
    limit, decision = min(decisions, key=lambda one: one[1].remaining)
    entry.headers[f"x-ratelimit-limit-{what}"] = str(math.floor(limit))
    entry.headers[f"x-ratelimit-remaining-{what}"] = str(max(0, math.floor(min(decision.remaining, limit))))
    entry.headers[f"x-ratelimit-reset-{what}"] = f"{max(0.0, decision.reset_seconds):.3f}s"


def _retry_after(seconds: float) -> dict[str, str]:
    return {"retry-after": str(max(1, math.ceil(seconds)))}


def _name(holder: str) -> str:
    kind, _, _ = holder.partition(":")
    return {"key": "this key", "address": "this address"}.get(kind, "the whole server")
