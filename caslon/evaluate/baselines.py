"""Training and test bytes to what models without a neural network make of them: the rungs a language model has to climb."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from caslon.evaluate.compressors import compressions
from caslon.evaluate.ngram import bits_per_byte, witten_bell


@dataclass(frozen=True)
class Baseline:
    """Bits per byte of the test text: without any training text, and (None where that makes no sense) with it."""

    name: str
    alone: float | None
    given_train: float | None


def baselines(
    train: bytes,
    test: bytes,
    *,
    ngram_orders: Sequence[int],
    compressors: Sequence[str],
    workers: int = 2,
    report: Callable[[str], None] = lambda _phase: None,
) -> list[Baseline]:
    """Return all rungs, uniform first. `report` hears what is being computed."""
    report("n-gram models and compressors")
    with ThreadPoolExecutor(1) as beside:  # sorting, too, releases the interpreter
        counted = beside.submit(witten_bell, train, test, ngram_orders) if train else None
        sizes = compressions(train, test, compressors, workers=workers) if compressors else []
        orders = counted.result() if counted else {}
    return [
        Baseline("uniform", 8.0, None),
        *(Baseline(f"{order}-gram", None, bits_per_byte(orders[order])) for order in sorted(orders)),
        *(Baseline(item.name, item.alone, item.given_train) for item in sizes),
    ]


def best(rungs: Sequence[Baseline]) -> Baseline:
    """Return the rung with the fewest bits per byte in any column."""
    return min(rungs, key=lambda rung: min(value for value in (rung.alone, rung.given_train) if value is not None))
