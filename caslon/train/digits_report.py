"""Results of the digits experiment to a table with intervals, a conclusion, and a page.

Shares of one cell have Wilson intervals over all its answers. Modes are compared on the same problems: a bootstrap draws seeds
and problems together, so the interval of a difference holds both the luck of a run and that of the problems.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caslon.report.page import Block, Chart, Charts, Page, Section, Series, Table, Text, Value, write_page
from caslon.report.shares import wilson_interval
from caslon.train.digits import MODES, OPERATIONS

DRAWS = 2_000
MEANING = {
    "none": "digits are learned like letters",
    "single": "one token a digit",
    "groups3": "up to three digits, from the left",
    "groups3_right": "up to three digits, from the right",
}
assert set(MEANING) == set(MODES)


def difference_interval(one: NDArray[np.bool_], other: NDArray[np.bool_], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean difference; both are `[seeds, problems]` of the same problems."""
    difference = one.astype(np.float64) - other.astype(np.float64)
    seeds, problems = difference.shape
    generator = np.random.Generator(np.random.PCG64(seed))
    means = np.empty(DRAWS)
    for draw in range(DRAWS):
        rows = generator.integers(0, seeds, seeds)
        columns = generator.integers(0, problems, problems)
        means[draw] = difference[np.ix_(rows, columns)].mean()
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def summary(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the shares by mode, operation and length with their intervals, the differences and the conclusion."""
    right = {mode: np.array([run["right"] for run in runs], dtype=bool) for mode, runs in numbers["runs"].items()}
    problems = numbers["problems"]
    lengths = sorted({problem["length"] for problem in problems})
    cells = []
    for mode, solved in right.items():
        for operation in OPERATIONS:
            for length in (*lengths, None):
                chosen = [
                    number
                    for number, problem in enumerate(problems)
                    if problem["operation"] == operation and length in (problem["length"], None)
                ]
                cells.append({"mode": mode, "operation": operation, "length": length, **_share(solved[:, chosen])})
        cells.append({"mode": mode, "operation": "all", "length": None, **_share(solved)})
    differences = [
        {
            "one": one,
            "other": other,
            "difference": float(right[one].mean() - right[other].mean()),
            "interval": list(difference_interval(right[one], right[other])),
        }
        for one, other in combinations(right, 2)
    ]
    modes = [
        {
            "mode": mode,
            "vocab_size": runs[0]["vocab_size"],
            "parameters": runs[0]["parameters"],
            "tokens_per_problem": float(np.mean([run["tokens_per_problem"] for run in runs])),
            "seeds": [float(np.mean(run["right"])) for run in runs],
        }
        for mode, runs in numbers["runs"].items()
    ]
    return {
        "settings": numbers["settings"],
        "modes": modes,
        "cells": cells,
        "differences": differences,
        "conclusion": conclusion(differences, numbers["settings"]["seeds"]),
    }


def _share(solved: NDArray[np.bool_]) -> dict[str, Any]:
    right, total = int(solved.sum()), int(solved.size)
    return {
        "right": right,
        "answers": total,
        "share": right / max(total, 1),
        "interval": list(wilson_interval(right, total)),
    }


def conclusion(differences: Sequence[Mapping[str, Any]], seeds: int) -> str:
    """Return in words which differences the intervals support; none is claimed whose interval holds zero."""
    if seeds < 2:
        return "No conclusion: one seed cannot tell the digit mode from the luck of a run."
    shown = []
    for row in differences:
        low, high = row["interval"]
        if low > 0 or high < 0:
            better, worse = (row["one"], row["other"]) if low > 0 else (row["other"], row["one"])
            small, large = sorted((abs(low), abs(high)))
            shown.append(
                f"{better} solves more than {worse}, by {abs(row['difference']):.1%} of the problems ({small:.1%} to {large:.1%})"
            )
    if not shown:
        return "No difference: every interval of a difference between two modes holds zero."
    rest = len(differences) - len(shown)
    tail = f" The other {rest} pairs show no difference." if rest else ""
    return "; ".join(shown) + "." + tail


def write_digits_report(folder: Path, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Write `report.html` and `report.json`; return the numbers of both."""
    found = summary(numbers)
    settings = found["settings"]
    page = Page(
        "Digits and arithmetic",
        f"{settings['steps']:,} steps of {settings['batch']} problems, {settings['seeds']} seeds, "
        f"operands of 1 to {settings['lengths']} digits",
        [_conclusion_section(found), _operation_section(found), _difference_section(found)],
        numbers=found,
    )
    write_page(folder / "report.html", page)
    return found


def _conclusion_section(found: Mapping[str, Any]) -> Section:
    overall = {cell["mode"]: cell for cell in found["cells"] if cell["operation"] == "all"}
    rows: list[list[Value]] = []
    for row in found["modes"]:
        cell = overall[row["mode"]]
        rows.append(
            [row["mode"], MEANING[row["mode"]], row["vocab_size"], row["parameters"], row["tokens_per_problem"],
             cell["share"], *cell["interval"], ", ".join(f"{share:.3f}" for share in row["seeds"])]
        )  # fmt: skip
    columns = ["mode", "meaning", "entries", "parameters", "tokens per problem", "exact", "from", "to", "each seed"]
    return Section("Conclusion", [Text(found["conclusion"]), Table(columns, rows)])


def _operation_section(found: Mapping[str, Any]) -> Section:
    charts, blocks = [], list[Block]()
    for operation in OPERATIONS:
        cells = [cell for cell in found["cells"] if cell["operation"] == operation]
        by_mode: dict[str, list[Mapping[str, Any]]] = {}
        for cell in cells:
            if cell["length"] is not None:
                by_mode.setdefault(cell["mode"], []).append(cell)
        series = [
            Series(mode, [cell["share"] for cell in line], [cell["length"] for cell in line])
            for mode, line in by_mode.items()
        ]
        charts.append(Chart(operation.capitalize(), series, x_label="digits", y_label="exact answers"))
        rows: list[list[Value]] = [
            [cell["mode"], "all" if cell["length"] is None else cell["length"], cell["right"], cell["answers"],
             cell["share"], *cell["interval"]]
            for cell in cells
        ]  # fmt: skip
        columns = ["mode", "digits", "right", "answers", "share", "from", "to"]
        blocks.append(Table(columns, rows, caption=operation))
    return Section("By operation and length", [Charts(charts), *blocks], "Intervals are Wilson's, 95 %.")


def _difference_section(found: Mapping[str, Any]) -> Section:
    rows: list[list[Value]] = [
        [row["one"], row["other"], row["difference"], *row["interval"]] for row in found["differences"]
    ]
    return Section(
        "Differences",
        [Table(["one", "other", "difference", "from", "to"], rows)],
        "Share of problems the first solves more than the second, on the same problems; bootstrap over seeds and problems, 95 %.",
    )
