"""The names of weight formats to what a matrix in one of them costs. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from caslon.errors import UserError

WeightFormat = Literal["int8", "int4", "nf4"]
WEIGHT_FORMATS: tuple[WeightFormat, ...] = ("int8", "int4", "nf4")
SCALE_BYTES = 4  # float32
GROUPS: dict[WeightFormat, tuple[int, ...]] = {
    "int4": (128, 64, 32),
    "nf4": (64, 32),
}  # the first that divides is taken


def group_of(kind: WeightFormat, columns: int) -> int:
    """Return how many weights of a row share a scale; `UserError` where no group divides the row."""
    if kind == "int8":
        return columns
    for group in GROUPS[kind]:
        if columns % group == 0:
            return group
    raise UserError(
        f"{kind} cuts a row of weights into groups of {', '.join(map(str, GROUPS[kind]))}; none divides {columns}",
        where="weights",
        fix="use int8, or leave the weights as they are",
    )


@dataclass(frozen=True)
class MatrixBytes:
    """What a quantised matrix takes in memory."""

    values: int
    scales: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.values + self.scales


def matrix_bytes(kind: WeightFormat, rows: int, columns: int) -> MatrixBytes:
    """Return the bytes of a matrix of `rows` output and `columns` input channels."""
    values = rows * columns if kind == "int8" else rows * columns // 2
    return MatrixBytes(values, rows * (columns // group_of(kind, columns)) * SCALE_BYTES)
