"""What a comparison must show: floors that the engine has to reach, and goals that are aimed at, each with its figures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from caslon.peers.compare import Measured

READING_SPEED = 11.0  # tokens/s: about 500 words a minute
EDGE_SPEED, EDGE_BYTES = 1.0, 8 * 2**30
OVER_TRANSFORMERS = {"decode, batch 1": 1.3, "64 mixed requests": 2.0, "prefill 512": 0.95, "prefill 2,048": 0.95}
OVER_LLAMA_CPP = 0.6
OF_CEILINGS = {"matrix products": 0.85, "memory": 0.80}
SIZES = {10.8e6: {"float32": 100.0}, 108e6: {"float32": 20.0, "float32, weights int8": 40.0}}  # tokens/s by parameters
SIZE_TOLERANCE = 0.15  # a shape with so many parameters more or less counts as that size
ALONE = "decode, batch 1"


@dataclass(frozen=True)
class Verdict:
    """A claim, what was measured, and whether it holds."""

    claim: str
    measured: str
    holds: bool


def verdicts(programs: Sequence[Measured], parameters: int) -> Iterator[Verdict]:
    """Yield the verdicts on the first program (caslon) that the figures allow."""
    ours = programs[0]
    others = {program.program.partition(":")[0]: program for program in programs[1:]}
    yield from _ratios(ours, others)
    alone = ours.figures.get(ALONE)
    if alone is None:
        return
    for size, floors in SIZES.items():
        if ours.dtype in floors and abs(parameters / size - 1) <= SIZE_TOLERANCE:
            floor = floors[ours.dtype]
            yield Verdict(
                f"at least {floor:g} tokens/s alone at {size / 1e6:g} M parameters", f"{alone:.1f}", alone >= floor
            )
    yield Verdict(f"reading speed: {READING_SPEED:g} tokens/s", f"{alone:.1f}", alone >= READING_SPEED)
    if ours.peak_bytes is not None:
        small = ours.peak_bytes <= EDGE_BYTES
        measured = f"{alone:.1f}, {ours.peak_bytes / 2**30:.1f} GiB"
        yield Verdict("edge: above 1 token/s within 8 GiB", measured, alone > EDGE_SPEED and small)


def ceiling_verdicts(reached: Sequence[tuple[str, float, str]]) -> Iterator[Verdict]:
    """Yield what was reached of the machine's ceilings."""
    for load, share, ceiling in reached:
        floor = OF_CEILINGS[ceiling]
        yield Verdict(f"{load}: at least {floor:.0%} of the ceiling of {ceiling}", f"{share:.0%}", share >= floor)


def _ratios(ours: Measured, others: Mapping[str, Measured]) -> Iterator[Verdict]:
    for name, floors in (("transformers", OVER_TRANSFORMERS), ("llama.cpp", {ALONE: OVER_LLAMA_CPP})):
        for load, floor in floors.items():
            theirs = others[name].figures.get(load) if name in others else None
            if theirs and load in ours.figures:
                ratio = ours.figures[load] / theirs
                yield Verdict(f"{load}: at least {floor:g} times {name}", f"{ratio:.2f}", ratio >= floor)
