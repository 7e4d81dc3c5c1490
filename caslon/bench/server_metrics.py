"""A service's `/metrics` as totals by name: counters and gauges of vLLM's names, summed over their labels."""

import re
from collections.abc import Mapping

import httpx

PATH = "/metrics"
PREFIXES = ("vllm:", "caslon:")
_LINE = re.compile(r"(?P<name>[A-Za-z_:][\w:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)(?:\s+\d+)?")


def totals(text: str) -> dict[str, float]:
    """Return each metric's value, summed over its labels; buckets of histograms and times of creation are left out."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line.strip())
        if match is None or not match["name"].startswith(PREFIXES) or match["name"].endswith(("_bucket", "_created")):
            continue
        found[match["name"]] = found.get(match["name"], 0.0) + float(match["value"])
    return found


async def scraped(http: httpx.AsyncClient) -> dict[str, float]:
    """Return the totals of a service at this moment; none for a service that gives no metrics to us."""
    response = await http.get(PATH)
    return totals(response.text) if response.status_code == httpx.codes.OK else {}


def growth(before: Mapping[str, float], after: Mapping[str, float], name: str) -> float | None:
    """Return by how much a counter grew; None where the service does not have it."""
    if name not in after:
        return None
    return after[name] - before.get(name, 0.0)
