"""Results and prices to money per 1,000 tokens. Prices are the user's own, each with the day it was true."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from caslon.bench.lanes import Lane
from caslon.errors import UserError
from caslon.settings import Settings, checked


class Price(Settings):
    """What an hour of some hardware costs."""

    hardware: str = Field(min_length=1, description="the name in the hardware's descriptor")
    per_hour: float = Field(gt=0, description="money for an hour")
    per: Literal["gpu", "machine"] = Field("machine", description="what the price is for")
    currency: str = Field(min_length=1, description="such as USD")
    date: date
    source: str = Field("", description="where the price stands")


@dataclass(frozen=True)
class Cost:
    """What one set-up costs on one load."""

    label: str
    hardware: str
    profile: str
    output_throughput: float
    ttft_ms: float
    per_hour: float
    currency: str
    date: date

    @property
    def per_thousand_tokens(self) -> float:
        """Money for 1,000 tokens of answers at this throughput."""
        return self.per_hour / 3600 / self.output_throughput * 1000


def read_prices(path: Path) -> dict[str, Price]:
    """Return the prices of a file (TOML, a table `[[price]]` each) by hardware; `UserError` where it is wrong."""
    if not path.is_file():
        raise UserError(f"no file {path}", where="--prices")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("price", [])
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"not TOML: {error}", where=str(path)) from None
    prices = [checked(Price, **table) for table in tables]
    if not prices:
        raise UserError("no prices here", where=str(path), fix="write a table [[price]] for each hardware")
    return {price.hardware: price for price in prices}


def costs(lanes: Sequence[Lane], prices: Mapping[str, Price]) -> Iterator[Cost]:
    """Yield the cost of each lane on each of its loads, for lanes whose hardware has a price."""
    for lane in lanes:
        hardware: Mapping[str, Any] = lane.metadata.get("hardware") or {}
        price = prices.get(hardware.get("name", ""))
        if price is None:
            continue
        count = lane.devices if price.per == "gpu" else hardware["nodes"]
        if count is None:
            continue
        for result in [*lane.by_profile.values(), *lane.others]:
            yield Cost(
                lane.label,
                hardware["name"],
                result.profile.name,
                result.data["output_throughput"],
                result.data["mean_ttft_ms"],
                price.per_hour * count,
                price.currency,
                price.date,
            )
