"""A program's own code around requests: what was asked before it is answered, what was answered after.

`before_request` runs in the request's way, sees the input alone, and may refuse it (`errors.HookRefusal`) or answer it
itself, as a cache or a filter does. `after_response` runs beside it in a thread of its own, sees what came out, and changes
nothing: what a model wrote is never charged to the one who asked.
"""

import importlib
import json
import logging
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from caslon.errors import UserError
from caslon.server.calls import Call

log = logging.getLogger("caslon.server")

MOST_WAITING = 1000


@dataclass(frozen=True)
class Asked:
    """What came in. `key` is the id of the key, never the key."""

    request_id: str
    endpoint: str
    key: str | None
    body: dict[str, Any]


@dataclass(frozen=True)
class Answered:
    """What went out: the status, and each answer's text and reason of ending."""

    status: int
    texts: tuple[str, ...]
    finish: tuple[str | None, ...]
    prompt_tokens: int
    completion_tokens: int


class Hooks:
    """Objects named as `package.module:name`, each with `before_request(asked)`, `after_response(asked, answered)` or both."""

    def __init__(self, names: Sequence[str]) -> None:
        self._hooks = [_loaded(name) for name in names]
        self._after = [hook.after_response for hook in self._hooks if hasattr(hook, "after_response")]
        self._queue: queue.Queue[tuple[Asked, Answered] | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._run, name="hooks", daemon=True)
        self._thread.start()

    def before(self, call: Call) -> dict[str, Any] | None:
        """Return the answer of the first hook that has one; `HookRefusal` from one that refuses."""
        asked = _asked(call)
        for hook in self._hooks:
            answer = hook.before_request(asked) if hasattr(hook, "before_request") else None
            if answer is not None:
                return dict(answer)
        return None

    def after(self, call: Call) -> None:
        """Let the hooks see a request that is over, without waiting for them."""
        completions = [answer.completion for answer in call.answers]
        texts = tuple(completion.text for completion in completions if completion is not None)
        finish = tuple(answer.finish_reason for answer in call.answers)
        try:
            self._queue.put_nowait((_asked(call), Answered(call.status, texts, finish, *call.tokens())))
        except queue.Full:
            log.warning("hooks are %d requests behind; request %s is not shown to them", MOST_WAITING, call.request_id)

    def close(self) -> None:
        """Let the hooks see what they have not seen yet, then stop."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            for hook in self._after:
                try:
                    hook(*item)
                except Exception:  # a monitor's fault is its own
                    log.exception("a hook failed after request %s", item[0].request_id)


def _asked(call: Call) -> Asked:
    try:
        body = json.loads(call.body or b"{}")
    except ValueError:
        body = {}
    key = call.key.id if call.key else None
    return Asked(call.request_id, call.endpoint, key, body if isinstance(body, dict) else {})


def _loaded(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"the hook '{name}' cannot be loaded: {error}", where="hooks",
                        fix="write package.module:name of an object that can be imported") from None  # fmt: skip
    return found() if isinstance(found, type) else found
