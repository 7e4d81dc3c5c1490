"""The store of request traces: one line for each request of a run, tagged, beside the run's result.

Written as each load ends, apart from the figures, so that figures edited later no longer agree with it.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from caslon.bench.load import LoadRun
from caslon.errors import UserError
from caslon.folders import write_atomic

TAGS = ("served_model_name", "profile", "hardware", "result_tag")


def write_traces(path: Path, run: LoadRun, metadata: Mapping[str, Any]) -> None:
    """Write a line for each request: its id, tags, tokens, times and, where it failed, why."""
    tags = {key: metadata.get(key) for key in TAGS}
    tags["hardware"] = (metadata.get("hardware") or {}).get("name")
    lines = [
        json.dumps(
            {
                "request_id": one.request_id,
                **tags,
                "input_tokens": one.prompt_tokens,
                "output_tokens": one.output_tokens,
                "started": one.started - run.began,
                "ttft": one.ttft,
                "seconds": one.seconds,
                "error": one.error,
            },
            sort_keys=True,
            ensure_ascii=False,
        )
        for one in run.exchanges
    ]
    write_atomic(path, "".join(f"{line}\n" for line in lines))


def read_traces(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the traces of a run; `UserError` for a line that is none."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            yield json.loads(line)
        except ValueError:
            raise UserError("not a trace", where=f"{path}, line {number}") from None
