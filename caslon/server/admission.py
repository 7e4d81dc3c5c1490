"""Who may come in and how far, and what is noted when they leave: keys, accounts and the audit log of one service.

Without a state folder everybody on this machine may come in and nothing is written.
"""

import logging
import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING

from caslon.errors import UserError
from caslon.server import keys
from caslon.server.accounts import Account, Accounts
from caslon.server.allowance import allowances_of
from caslon.server.audit import AuditLog, audit_fields
from caslon.server.calls import Call
from caslon.server.errors import SERVER_ERROR, Refused
from caslon.server.hooks import Hooks
from caslon.server.keys import Key, KeyStore
from caslon.server.records import Records
from caslon.server.settings import LOOPBACK_HOSTS, ServerSettings

if TYPE_CHECKING:
    from caslon.server.traces import Traces

log = logging.getLogger("caslon.server")


class Admission:
    """The door of one service. Every method may be called from any thread and may wait for the disk."""

    def __init__(self, settings: ServerSettings, model: str) -> None:
        self.model = model  # written down for a request that got no further than the door
        self._allowances = allowances_of(settings.limits)
        folder = settings.state
        self.keys = KeyStore(folder) if folder and keys.exists(folder) else None
        self.accounts = Accounts(folder, settings.limit_by) if folder else None
        self.audit = AuditLog(folder, settings.audit_bytes) if folder else None
        recorded = folder if settings.record_content else None
        self.records = Records(recorded, settings.retention_days, settings.redact) if recorded else None
        self.hooks = Hooks(settings.hooks) if settings.hooks else None
        self.traces = _traces(settings.traces, model) if settings.traces else None

    @property
    def is_open(self) -> bool:
        """Whether everybody may come in and nothing is written."""
        return all(part is None for part in self._parts)

    @property
    def wants_body(self) -> bool:
        """Whether somebody wants to see what was asked."""
        return self.records is not None or self.hooks is not None

    @property
    def _parts(self) -> "Sequence[KeyStore | Accounts | AuditLog | Records | Hooks | Traces | None]":
        return (self.hooks, self.traces, self.records, self.audit, self.accounts, self.keys)

    def close(self) -> None:
        """Close the files."""
        for part in self._parts:
            if part is not None:
                part.close()

    def authenticated(self, shown: str, address: str) -> Key | None:
        """Return the key that is shown, None where none is needed; `Refused` (401, 429) for a wrong one."""
        if self.keys is None:
            return None
        try:
            key = self.keys.found(shown)
        except sqlite3.Error:
            message = "the keys cannot be read, so nobody is let in"
            raise Refused(503, message, code="store_unavailable", kind=SERVER_ERROR) from None
        if key is None:
            if shown and self.accounts is not None:
                self.accounts.failed_key(address)
            raise Refused(401, "no valid API key was given", code="invalid_api_key")
        return key

    def enter(self, call: Call) -> None:
        """Take a request into the books; `Refused` (429) over a limit."""
        if self.accounts is not None:
            call.entry = self.accounts.enter(call.request_id, self._accounts_of(call))
            call.limits = call.entry.headers

    def tell(self, call: Call) -> None:
        """Look up what the caller has left, for a request that counts as none."""
        if self.accounts is not None:
            call.limits = self.accounts.told(self._accounts_of(call))

    def reserve(self, call: Call, tokens: int) -> None:
        """Set aside what a request may need; `Refused` (429) over a limit."""
        if self.accounts is not None and call.entry is not None:
            self.accounts.reserve(call.entry, tokens)

    def leave(self, call: Call) -> None:
        """Settle a request that is over and write its line. What fails here is logged: the answer has been given."""
        if call.closed:
            return
        call.closed = True
        for note in (self._settle, self._write_down, self._show):
            try:
                note(call)
            except Exception:  # the answer has been given; what was reserved for it stays charged
                log.exception("the end of request %s could not be noted", call.request_id)

    def _settle(self, call: Call) -> None:
        if self.accounts is not None and call.entry is not None:
            self.accounts.settle(call.entry, [f"key:{call.key.holder}"] if call.key else [], *call.tokens())

    def _write_down(self, call: Call) -> None:
        if self.audit is not None:
            self.audit.append(audit_fields(call, self.model))

    def _show(self, call: Call) -> None:
        if self.records is not None and call.answers:
            self.records.add(call)
        if self.traces is not None:
            self.traces.add(call)
        if self.hooks is not None:
            self.hooks.after(call)

    def still_valid(self, used: Sequence[Key]) -> set[str]:
        """Return the ids of the keys among these that still let in; `sqlite3.Error` where that cannot be told."""
        ids = {key.id for key in used}
        return ids if self.keys is None else self.keys.still_valid(ids)

    def _accounts_of(self, call: Call) -> list[Account]:
        found = [Account("all", self._allowances["all"])]
        if call.address:
            found.append(Account(f"address:{call.address}", self._allowances["address"]))
        if call.key is not None:
            found.append(Account(f"key:{call.key.holder}", call.key.allowance.over(self._allowances["key"])))
        return found


def _traces(target: str, model: str) -> "Traces":
    from caslon.server.traces import Traces  # needs the libraries of an extra

    return Traces(target, model)


def check_exposure(settings: ServerSettings) -> None:
    """Raise `UserError` when the model would be open to the network without a key, or a limit had no place to stand."""
    if settings.limits and settings.state is None:
        raise UserError("limits need a folder to stand in", where="limits", fix="give one: state (--state DIR)")
    if settings.record_content and settings.state is None:
        raise UserError(
            "records need a folder to stand in", where="record_content", fix="give one: state (--state DIR)"
        )
    with_keys = settings.state is not None and keys.exists(settings.state)
    if settings.host in LOOPBACK_HOSTS or with_keys or settings.no_auth:
        return
    raise UserError(
        f"refusing to serve on {settings.host} without an API key: anyone who reaches this machine could use the model",
        fix="make a key (caslon keys create --name NAME --state DIR) and serve with --state DIR, "
        "or listen on 127.0.0.1, or say --no-auth",
    )
