"""Turns the name of a load into its shape. The name says everything, so a name never means two things.

`latency-1024x256-c1`: prompts of 1,024 tokens, answers of exactly 256, one request at a time. `-n40` sets another number of
prompts, `-poisson2.5` and `-constant2` let requests arrive at a rate per second instead of one after another. The three
profiles of the contract are the ones that results are compared by; every other one is marked scaled.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from caslon.errors import UserError

Arrivals = Literal["closed", "poisson", "constant"]
USUAL_PROMPTS = {"latency": 20, "serve": 200, "longctx": 50}
_NAME = re.compile(
    r"(?P<kind>latency|serve|longctx)-(?P<input>\d+)x(?P<output>\d+)-c(?P<concurrency>\d+)"
    r"(?:-n(?P<prompts>\d+))?(?:-(?P<arrivals>poisson|constant)(?P<rate>\d+(?:\.\d+)?))?"
)


@dataclass(frozen=True)
class Profile:
    """A load: so many prompts of a length, answered with exactly so many tokens, at most `concurrency` at once.

    `request_rate` is in requests per second, infinite in a closed loop, where an answer's end starts the next request.
    """

    name: str
    input_tokens: int
    output_tokens: int
    concurrency: int
    prompts: int
    arrivals: Arrivals = "closed"
    request_rate: float = float("inf")

    @property
    def scaled(self) -> bool:
        """Whether this is another load than one of the contract."""
        return self not in CONTRACT


CONTRACT = (
    Profile("latency-1024x256-c1", 1024, 256, 1, 20),
    Profile("serve-1024x256-c16", 1024, 256, 16, 200),
    Profile("longctx-8192x256-c4", 8192, 256, 4, 50),
)
# The same three kinds of load for a small model on a small machine.
SCALED = ("latency-128x32-c1-n8", "serve-128x32-c4-n24", "longctx-512x32-c2-n8")


def profile_named(name: str) -> Profile:
    """Return the load a name stands for; `UserError` for a name that is none."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise UserError(
            f"'{name}' is no profile",
            fix=f"use {', '.join(profile.name for profile in CONTRACT)}, or a load of your own such as {SCALED[1]}",
        )
    sizes = {key: int(found[key]) for key in ("input", "output", "concurrency")}
    prompts = int(found["prompts"] or USUAL_PROMPTS[found["kind"]])
    rate = float(found["rate"] or "inf")
    if min(*sizes.values(), prompts, rate) <= 0:
        raise UserError(f"'{name}' is no profile: every number must be above 0")
    arrivals: Arrivals = "closed" if found["arrivals"] is None else found["arrivals"]  # type: ignore[assignment]
    return Profile(name, sizes["input"], sizes["output"], sizes["concurrency"], prompts, arrivals, rate)


def matrix_of(names: Sequence[str]) -> list[Profile]:
    """Return the loads of a matrix in order: those named, or the contract."""
    return [profile_named(name) for name in names] or list(CONTRACT)
