"""How much a key, an address or everybody together may ask for, as it is written on the command line and in a recipe."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from caslon.errors import UserError
from caslon.settings import nearest

HOLDERS = ("key", "address", "all")


@dataclass(frozen=True)
class Allowance:
    """Limits; None is no limit. Tokens are those of prompt and answer together; days and months are UTC's."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    concurrent: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None

    def __bool__(self) -> bool:
        return any(value is not None for value in dataclasses.astuple(self))

    def over(self, other: "Allowance") -> "Allowance":
        """Return these limits, and the other's where this one sets none."""
        given = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        return dataclasses.replace(other, **given)


NAMES = tuple(field.name for field in dataclasses.fields(Allowance))


def allowance_of(limits: Iterable[str], where: str) -> Allowance:
    """Return what `NAME=NUMBER` words allow; `UserError` for one that says nothing."""
    found: dict[str, int] = {}
    for limit in limits:
        name, _, number = limit.partition("=")
        if name not in NAMES:
            guess = nearest(name, NAMES)
            raise UserError(f"there is no limit '{name}'", where=where,
                            fix=f"did you mean {guess}?" if guess else f"choose of {', '.join(NAMES)}")  # fmt: skip
        if not number.replace("_", "").isdigit() or not int(number):
            raise UserError(f"'{limit}' gives no whole number above 0", where=where, fix=f"write {name}=60")
        found[name] = int(number)
    return Allowance(**found)


def allowances_of(limits: Iterable[str], where: str = "limits") -> dict[str, Allowance]:
    """Return what `HOLDER:NAME=NUMBER` words allow each key, each address and all together."""
    words: dict[str, list[str]] = {holder: [] for holder in HOLDERS}
    for limit in limits:
        holder, _, rest = limit.partition(":")
        if holder not in words:
            raise UserError(f"'{limit}' does not say whom it limits", where=where,
                            fix="write key:, address: or all: before it, as in key:requests_per_minute=60")  # fmt: skip
        words[holder].append(rest)
    return {holder: allowance_of(given, where) for holder, given in words.items()}
