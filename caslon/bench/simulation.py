"""An answer of fixed times, and what may go wrong with it: what a simulated service sends, and when.

Times come from one row of the published results, so that a benchmark can be held against figures known before. Faults strike
every n-th request: answers that are too short, refusals (503), answers that stall, and garbage.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from caslon.bench.published import published_row
from caslon.errors import UserError

Fault = Literal["short", "refused", "stall", "garbage"]
FAULTS: tuple[Fault, ...] = get_args(Fault)
WORDS = ("the ", "quick ", "brown ", "fox ", "jumps ", "over ", "the ", "lazy ", "dog; ")
GARBAGE = "�"


@dataclass(frozen=True)
class Simulation:
    """How a simulated service answers: seconds to the first token and per token after, and every how many requests a fault."""

    ttft_seconds: float
    tpot_seconds: float
    faults: Mapping[Fault, int] = field(default_factory=dict)

    def fault_of(self, number: int) -> Fault | None:
        """Return what goes wrong with the request of that number, counted from 1."""
        return next((fault for fault, every in self.faults.items() if number % every == 0), None)

    def answer(self, number: int, tokens: int) -> Iterator[tuple[float, str]]:
        """Yield the seconds to wait for each token and its text. A stalled answer waits for ever after half of them."""
        fault = self.fault_of(number)
        for index in range(tokens // 2 if fault == "short" else tokens):
            if fault == "stall" and index == tokens // 2:
                yield float("inf"), ""
            text = GARBAGE if fault == "garbage" else WORDS[index % len(WORDS)]
            yield (self.tpot_seconds if index else self.ttft_seconds), text


def simulation_of(row: str, *, speed: float = 1.0, faults: Mapping[Fault, int] | None = None) -> Simulation:
    """Return the simulation of a published row, `speed` times as fast."""
    data: Mapping[str, Any] = published_row(row).data
    return Simulation(data["mean_ttft_ms"] / 1000 / speed, data["mean_tpot_ms"] / 1000 / speed, faults or {})


def parsed_faults(texts: list[str]) -> dict[Fault, int]:
    """Return faults from texts such as `short:5` (every fifth request); `UserError` for another form."""
    faults: dict[Fault, int] = {}
    for text in texts:
        name, _, every = text.partition(":")
        if name not in FAULTS or not every.isdigit() or int(every) < 1:
            raise UserError(
                f"'{text}' is no fault", fix=f"write FAULT:EVERY, such as short:5; faults: {', '.join(FAULTS)}"
            )
        faults[name] = int(every)
    return faults
