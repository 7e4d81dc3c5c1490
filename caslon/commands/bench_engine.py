"""How a comparison of programs is printed: one table of figures, and what must hold."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from caslon.commands.output import print_table, say

if TYPE_CHECKING:
    from caslon.peers.ceilings import Ceilings
    from caslon.peers.compare import Measured
    from caslon.peers.loads import Load


def print_comparison(
    loads: "Sequence[Load]",
    programs: "Sequence[Measured]",
    too_long: Sequence[str],
    parameters: int,
    ceilings: "Ceilings | None",
    reached: "Sequence[tuple[str, float, str]]",
) -> None:
    """Print the figures of all programs, ratios to the first one's, shares of the machine's ceilings, and the verdicts."""
    from caslon.peers.verdicts import ceiling_verdicts, verdicts
    from caslon.report.numbers import readable_bytes

    ours, *others = programs
    columns = [
        "",
        *(f"{program.program} {program.version}".strip() for program in programs),
        *(f"times {one.program}" for one in others),
    ]
    rows = [_row(load, programs) for load in loads]
    blank = [""] * len(others)
    rows += [
        ["computed in", *(program.dtype for program in programs), *blank],
        ["loading, s", *(_figure(program.load_seconds) for program in programs), *blank],
        ["peak memory", *(readable_bytes(one.peak_bytes) if one.peak_bytes else "–" for one in programs), *blank],
        [
            "same tokens",
            *(f"{one.same_tokens:.1%}" if one.same_tokens is not None else "–" for one in programs),
            *blank,
        ],
    ]
    print_table(columns, rows)
    for program in programs:
        if program.failure:
            say(f"{program.program} was not measured: {program.failure}")
    if too_long:
        say(f"longer than the model's context: {', '.join(too_long)}")
    if ceilings is not None:
        say(
            f"ceilings: {ceilings.flops / 1e9:,.0f} GFLOP/s of matrix products, {ceilings.bytes / 1e9:.1f} GB/s from memory"
        )
    if not ours.failure:
        found = [*verdicts(programs, parameters), *ceiling_verdicts(reached)]
        print_table(
            ("claim", "measured", ""),
            [(one.claim, one.measured, "holds" if one.holds else "does not hold") for one in found],
        )


def _row(load: "Load", programs: "Sequence[Measured]") -> list[str]:
    figures = [program.figures.get(load.name) for program in programs]
    ours, *theirs = figures
    ratios = []
    for figure in theirs:
        if ours is None or figure is None:
            ratios.append("–")
        else:
            ratios.append(f"{ours / figure if load.more_is_better else figure / ours:.2f}")
    return [f"{load.name}, {load.measure}", *(_figure(figure) for figure in figures), *ratios]


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}"
