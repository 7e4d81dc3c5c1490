"""A recorded request asked again: the same model and the same engine give the same tokens, or the first difference is shown.

An answer that was drawn without a seed is asked for with the seed it was drawn with, which the record holds.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from caslon.client import Client
from caslon.errors import UserError
from caslon.server.records import Record

ENDPOINTS = ("/v1/completions", "/v1/chat/completions")
LEFT_OUT = ("stream", "stream_options", "n", "seed", "user", "metadata", "logprobs", "top_logprobs")


@dataclass(frozen=True)
class Difference:
    """Where an answer differs: its place among the answers, the token, what was recorded and what came."""

    answer: int
    token: int
    recorded: str | None
    found: str | None


@dataclass(frozen=True)
class Replay:
    """What came of it. Without the same fingerprint a difference is no fault."""

    same_fingerprint: bool
    answers: int
    tokens: int
    differences: tuple[Difference, ...]


def replayed(record: Record, client: Client) -> Replay:
    """Return what a server answers now to a recorded request; `UserError` for one that cannot be asked again."""
    if record.endpoint not in ENDPOINTS:
        raise UserError(
            f"requests to {record.endpoint} are not replayed", fix=f"only those to {' and '.join(ENDPOINTS)}"
        )
    if record.redacted:
        raise UserError("the record was redacted, so it cannot be asked again as it was")
    if any(answer.finish not in {"stop", "length"} for answer in record.answers) or not record.answers:
        raise UserError("the recorded answer did not come to its own end, so there is nothing to compare")
    differences, fingerprints = [], set()
    for place, answer in enumerate(record.answers):
        body = client.post_json(record.endpoint, _body(record, place))
        fingerprints.add(body.get("system_fingerprint"))
        difference = _difference(place, answer.tokens, _tokens(body["choices"][0]))
        differences += [difference] if difference else []
    tokens = sum(len(answer.tokens) for answer in record.answers)
    return Replay(fingerprints == {record.fingerprint}, len(record.answers), tokens, tuple(differences))


def _body(record: Record, place: int) -> dict[str, Any]:
    """Return the request for one of the recorded answers alone."""
    chat = record.endpoint == "/v1/chat/completions"
    body = {name: value for name, value in record.body.items() if name not in LEFT_OUT}
    body |= {"seed": record.answers[place].seed, "logprobs": True if chat else 0}
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        body["prompt"] = prompt[place // (record.body.get("n") or 1)]
    return body


def _tokens(choice: dict[str, Any]) -> list[str]:
    logprobs = choice["logprobs"] or {}
    if "content" in logprobs:
        return [entry["token"] for entry in logprobs["content"]]
    return list(logprobs.get("tokens", ()))


def _difference(answer: int, recorded: Sequence[str], found: Sequence[str]) -> Difference | None:
    for token, (before, now) in enumerate(itertools.zip_longest(recorded, found)):
        if before != now:
            return Difference(answer, token, before, now)
    return None
