"""What the server itself adds: delay of pieces with many streams at once, and time of a request beside the engine's.

    python benchmarks/server_load.py [--streams 200] [--rate 100] [--seconds 10] [--output server_load.json]

The engine is simulated (fixed times, no arithmetic), in a process of its own; the client reads raw sockets. Floors on two
cores: 200 streams of 20 pieces a second, none lost or mixed, 99 of 100 pieces at most 100 ms late; at 100 requests a second the
server adds at most 3 ms (median) and 10 ms (95 of 100). Goal: 300 requests a second with 20 ms (95 of 100).
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

SERVER = """
import sys
from caslon.bench.simulation import Simulation
from caslon.server.settings import ServerSettings
from caslon.server.simulated_engine import serve_simulated
settings = ServerSettings(port=0, page=False, max_queue=4000)
simulation = Simulation(float(sys.argv[1]), float(sys.argv[2]))
serve_simulated(simulation, "fox", settings, on_ready=lambda ready: print(ready.url, flush=True))
"""
WORDS = ("the ", "quick ", "brown ", "fox ", "jumps ", "over ", "the ", "lazy ", "dog; ")
PIECES_PER_SECOND = 20
FIRST_TOKEN_SECONDS = 0.05


@dataclass(frozen=True)
class Streams:
    """Many streams at once. Lateness is measured from when the engine had each piece."""

    streams: int
    pieces: int
    lost_or_mixed: int
    late_p50_ms: float
    late_p99_ms: float
    floor_held: bool


@dataclass(frozen=True)
class Requests:
    """Requests at an even rate. The added time is the client's, less what the engine took."""

    per_second: int
    requests: int
    failed: int
    added_p50_ms: float
    added_p95_ms: float
    floor_held: bool


@contextlib.contextmanager
def server(first_token: float, each_token: float) -> Iterator[int]:
    command = [sys.executable, "-c", SERVER, str(first_token), str(each_token)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline().rpartition(":")[2])
    finally:
        process.terminate()
        process.wait()


def request_bytes(max_tokens: int, stream: bool) -> bytes:
    body = json.dumps({"model": "fox", "prompt": "x", "max_tokens": max_tokens, "stream": stream}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def stream_lateness(port: int, pieces: int) -> list[float] | None:
    """Return how late each piece came, in seconds; None when a piece was lost or another's."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = time.perf_counter()
    writer.write(request_bytes(pieces, stream=True))
    late: list[float] = []
    texts: list[str] = []
    async for line in reader:
        if line.startswith(b"data: {"):
            choice = json.loads(line[6:])["choices"][0]
            if choice["text"]:
                due = sent + FIRST_TOKEN_SECONDS + len(texts) / PIECES_PER_SECOND
                late.append(time.perf_counter() - due)
                texts.append(choice["text"])
        if line.startswith(b"data: [DONE]"):
            break
    writer.close()
    return late if texts == [WORDS[index % len(WORDS)] for index in range(pieces)] else None


async def streams(port: int, count: int, seconds: float) -> Streams:
    pieces = int(seconds * PIECES_PER_SECOND)
    answers = await asyncio.gather(*(stream_lateness(port, pieces) for _ in range(count)))
    late = [lateness for answer in answers if answer is not None for lateness in answer]
    lost = sum(answer is None for answer in answers)
    p50, p99 = milliseconds(late, 50), milliseconds(late, 99)
    return Streams(count, count * pieces, lost, p50, p99, lost == 0 and p99 <= 100)


async def request_seconds(port: int) -> float | None:
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request_bytes(1, stream=False))
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    await reader.readexactly(length)
    writer.close()
    return time.perf_counter() - began if b" 200 " in head.splitlines()[0] else None


async def requests(port: int, rate: int, seconds: float) -> Requests:
    began, tasks = time.perf_counter(), []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(request_seconds(port)))
    answers = await asyncio.gather(*tasks)
    added = [answer - FIRST_TOKEN_SECONDS for answer in answers if answer is not None]
    failed = len(answers) - len(added)
    p50, p95 = milliseconds(added, 50), milliseconds(added, 95)
    held = failed == 0 and (p50 <= 3 and p95 <= 10 if rate <= 100 else p95 <= 20)
    return Requests(rate, len(answers), failed, p50, p95, held)


def milliseconds(values: Sequence[float], percent: int) -> float:
    return round(1000 * statistics.quantiles(values, n=100)[percent - 1], 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--rate", type=int, nargs="*", default=[100, 300])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    results: list[Streams | Requests] = []
    with server(FIRST_TOKEN_SECONDS, 1 / PIECES_PER_SECOND) as port:
        asyncio.run(requests(port, 50, 1))  # warm
        results.append(asyncio.run(streams(port, options.streams, options.seconds)))
        results += [asyncio.run(requests(port, rate, options.seconds)) for rate in options.rate]
    for result in results:
        print(json.dumps(asdict(result)))
    if options.output:
        options.output.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")
    return 0 if all(result.floor_held for result in results[:2]) else 1


if __name__ == "__main__":
    sys.exit(main())
