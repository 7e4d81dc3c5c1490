"""What runs there are, how far they are, and what of them can be deleted."""

import json
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from caslon.errors import UserError
from caslon.folders import MANIFEST, PARTIAL, StageFolder, lock
from caslon.observe.console import size

SHOWN_TOTALS = 3
FIRST_TOTALS = (
    "documents", "text_bytes", "vocab_size", "train_tokens", "val_bpb", "parameters", "steps", "test_bpb", "best_ngram_bpb",
    "answers_ended_by_themselves", "questions", "conversations", "completions", "chats", "tokens_equal_to_plain_decoder",
)  # fmt: skip
SUPERSEDED = "superseded"


@dataclass(frozen=True)
class RunRow:
    """One run: `status` is `finished`, `unfinished` (a stage was begun) or `at work`."""

    name: str
    status: str
    stages: tuple[str, ...]
    bytes: int
    val_loss: float | None
    val_bpb: float | None
    parameters: int | None
    parent: str | None  # beginning of the digest of the model that the last model was tuned from
    changed: str


def run_rows(runs: Path, *, pattern: str = "*", status: str | None = None) -> list[RunRow]:
    """Return the runs below a folder, newest first: those whose name fits a pattern, of one status if that is given."""
    folders = [path for path in runs.glob(pattern) if (path / "recipe.toml").is_file()]
    rows = [_row(path) for path in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True)]
    return [row for row in rows if status in (None, row.status)]


def key_figures(totals: dict[str, Any]) -> str:
    """Return what a stage is judged by, then its first other totals, as one line: `1,204 documents, 11.2 MB text`."""
    plain = {
        name: value for name, value in totals.items() if isinstance(value, int | float) and name != "peak_memory_bytes"
    }
    names = [*(name for name in FIRST_TOTALS if name in plain), *(name for name in plain if name not in FIRST_TOTALS)]
    return ", ".join(_figure(name, plain[name]) for name in names[:SHOWN_TOTALS])


def collect_garbage(runs: Path, *, delete: bool) -> list[tuple[Path, int]]:
    """Return (and delete, when asked) set-aside results and unfinished stages of runs no process is at work on."""
    found = []
    for folder in sorted(path for path in runs.glob("*") if path.is_dir()):
        try:
            with lock(folder):
                for path in [*folder.glob(f"{SUPERSEDED}/*"), *folder.glob(f"*{PARTIAL}")]:
                    found.append((path, _bytes(path)))
                    if delete:
                        shutil.rmtree(path)
        except UserError:  # a run is at work here: its unfinished stage is not garbage
            continue
    return found


def _row(folder: Path) -> RunRow:
    stages = [StageFolder.open(path.parent) for path in sorted(folder.glob(f"*/{MANIFEST}"))]
    stages = sorted((s for s in stages if not s.path.name.endswith(PARTIAL)), key=lambda stage: stage.manifest.started)
    totals = [stage.manifest.totals for stage in stages]
    return RunRow(
        name=folder.name,
        status=_status(folder),
        stages=tuple(stage.path.name for stage in stages),
        bytes=_bytes(folder),
        val_loss=_last(totals, "val_loss"),
        val_bpb=_last(totals, "val_bpb"),
        parameters=_last(totals, "parameters"),
        parent=_parent(stages),
        changed=datetime.fromtimestamp(folder.stat().st_mtime).isoformat(sep=" ", timespec="minutes"),
    )


def _last(totals: list[dict[str, Any]], name: str) -> Any:
    return next((each[name] for each in reversed(totals) if name in each), None)


def _parent(stages: list[StageFolder]) -> str | None:
    files = [stage.path / "model" / "caslon.json" for stage in reversed(stages)]
    found: dict[str, Any] = next((json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()), {})
    parent = found.get("parent")
    return str(parent)[:16] if parent else None


def _status(folder: Path) -> str:
    try:
        with lock(folder):
            return "unfinished" if any(folder.glob(f"*{PARTIAL}")) else "finished"
    except UserError:
        return "at work"


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _figure(name: str, value: float) -> str:
    words = name.replace("_bpb", " bits per byte").replace("val ", "validation ").replace("_", " ")
    if name.endswith("_bytes"):
        return f"{size(value)} {words.removesuffix(' bytes')}"
    return f"{value:,} {words}" if isinstance(value, int) else f"{value:.4g} {words}"


def model_folder_of(path: Path) -> Path:
    """Return the model folder meant by a model, checkpoint, stage or run folder: of a run, its last model."""
    if (path / "config.json").is_file():
        return path
    if (path / "model" / "config.json").is_file():
        return path / "model"
    found = [file.parent for file in path.glob("*/model/config.json") if not file.parent.parent.name.endswith(PARTIAL)]
    stages = sorted((StageFolder.open(model.parent) for model in found), key=lambda stage: stage.manifest.started)
    if not stages:
        raise UserError(f"no model at {path}", fix="give a model folder such as runs/quickstart/pretrain/model")
    return stages[-1].path / "model"
