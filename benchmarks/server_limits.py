"""How long taking a request in, setting its tokens aside and settling it take, with ten thousand keys that all have limits.

    python benchmarks/server_limits.py [--keys 10000] [--requests 20000] [--processes 1] [--rate 0] [--output server_limits.json]

Every key, its address and everybody have limits of every kind, and each request comes from another key. Floor: 99 of 100
checks take at most 1 ms. With `--processes` several share the folder as a service's workers do, each with `--rate` requests a
second; 0 is as many as it can.
"""

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from caslon.server.accounts import Account, Accounts
from caslon.server.allowance import Allowance

FLOOR_MS = 1.0
Result = TypeVar("Result")
ALLOWANCE = Allowance(10_000_000, 1e12, 10_000, 10**12, 10**13)
CALLS = ("enter", "reserve", "settle")


def timed(seconds: list[float], call: Callable[..., Result], *given: object) -> Result:
    began = time.perf_counter()
    result = call(*given)
    seconds.append(time.perf_counter() - began)
    return result


def accounts_of(key: int) -> Sequence[Account]:
    names = ("all", f"address:10.0.{key % 16}.{key % 250}", f"key:{key:08x}")
    return [Account(name, ALLOWANCE) for name in names]


def measured(folder: Path, keys: int, requests: int, rate: float, process: int) -> dict[str, list[float]]:
    """Return the seconds of each call; every key has been seen once before they are counted."""
    accounts = Accounts(folder)
    draw = random.Random(process)
    order = [*range(keys), *(draw.randrange(keys) for _ in range(requests))]
    seconds: dict[str, list[float]] = {name: [] for name in CALLS}
    for number, key in enumerate(order):
        holders = accounts_of(key)
        entry = timed(seconds["enter"], accounts.enter, f"{process}-{number}", holders)
        timed(seconds["reserve"], accounts.reserve, entry, 300)
        timed(seconds["settle"], accounts.settle, entry, [holders[-1].holder], 100, 50)
        if rate and number >= keys:
            time.sleep(draw.expovariate(rate))
    accounts.close()
    return {name: values[keys:] for name, values in seconds.items()}


def percentile_ms(seconds: Sequence[float], share: float) -> float:
    return round(1000 * sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))], 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = [
            (Path(folder), options.keys, options.requests, options.rate, number) for number in range(options.processes)
        ]
        with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
            results = pool.starmap(measured, work)
    together = {name: [value for result in results for value in result[name]] for name in CALLS}
    rows = {
        name: {label: percentile_ms(values, share) for label, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))}
        for name, values in together.items()
    }
    held = all(row["p99"] <= FLOOR_MS for row in rows.values())
    print(
        f"{options.keys:,} keys, {options.requests:,} requests of {options.processes} process(es), {os.cpu_count()} cores"
    )
    for name, row in rows.items():
        print(f"{name:8} p50 {row['p50']:7.3f} ms   p99 {row['p99']:7.3f} ms   max {row['max']:8.3f} ms")
    print(f"floor (p99 <= {FLOOR_MS} ms): {'held' if held else 'missed'}")
    if options.output:
        options.output.write_text(
            json.dumps({"keys": options.keys, "calls_ms": rows, "floor_held": held}, indent=2) + "\n"
        )
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
