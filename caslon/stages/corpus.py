"""The `[corpus]` stage: sources become cleaned, deduplicated, split and documented text."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caslon.corpus.settings import CorpusSettings
from caslon.stages.stage import PlanContext, PlanRow, StageContext

if TYPE_CHECKING:
    from caslon.corpus.collect import Store
    from caslon.corpus.registry import SourceEntry

VERSION = 2
READS: Sequence[str] = ()
WRITES = "text"
NEEDS = {"lxml": "corpus", "ftfy": "corpus", "py3langid": "corpus", "rensa": "corpus"}
Settings = CorpusSettings
# Bytes of text through all steps and the report: 201 processor seconds for 288.6 M characters of the London collection
# (LEADERBOARD.md, "Corpora and tokenizers"). Texts of a thousand characters are slower: 0.55 million.
MEASURED_BYTES_PER_SECOND_AND_CORE = 1_400_000


def sources(settings: CorpusSettings, base: Path) -> list[Path]:
    """Return every outside file the stage reads."""
    from caslon.corpus.collect import source_paths

    named = [base / name for name in (*settings.decontaminate, settings.forget) if name]
    return sorted({*source_paths(load_entries(settings, base), open_store(settings, base)), *named})


def plan(context: PlanContext) -> tuple[PlanRow, ...]:
    """Return what will be read and how long it should take."""
    from caslon.corpus.collect import source_paths
    from caslon.corpus.workers import available_cores

    settings: CorpusSettings = context.settings
    entries = load_entries(settings, context.base)
    paths = source_paths(entries, open_store(settings, context.base))
    size = sum(path.stat().st_size for path in paths)
    workers = settings.workers or available_cores()
    return (
        PlanRow("sources", len(entries), "", "corpus.sources"),
        PlanRow("files", len(paths), "", "on disk, archives counted once"),
        PlanRow("size", size, "bytes", "as stored"),
        PlanRow("workers", workers, "processes", "corpus.workers" if settings.workers else "one per core"),
        PlanRow(
            "time",
            round(size / MEASURED_BYTES_PER_SECOND_AND_CORE / workers, 1),
            "s",
            f"at {MEASURED_BYTES_PER_SECOND_AND_CORE / 1e6:g} MB/s and core; archives unpack to several times their size",
        ),
    )


def run(context: StageContext) -> dict[str, Any]:
    """Write the corpus below the stage folder and return its figures."""
    from caslon.corpus.pipeline import build, remove_work
    from caslon.corpus.privacy import check_privacy
    from caslon.corpus.report import write_report
    from caslon.corpus.workers import Workers, available_cores

    begun = time.monotonic()
    settings: CorpusSettings = context.settings
    check_privacy(settings.privacy)
    entries = load_entries(settings, context.base)
    earlier = earlier_folders(context.folder.parent)
    store = open_store(settings, context.base)
    totals = build(entries, settings, context.seed, context.folder, context.events, context.base, store, earlier)
    with Workers(settings.workers or available_cores(), settings.backend) as workers:
        write_report(context.folder, entries, settings, totals, time.monotonic() - begun, workers)
    remove_work(context.folder)
    return totals.to_json()


def earlier_folders(run_folder: Path) -> list[Path]:
    """Return the finished corpus folders of a run, the present one first."""
    return [run_folder / "corpus", *sorted((run_folder / "superseded").glob("corpus-*"))]


def load_entries(settings: CorpusSettings, base: Path) -> "tuple[SourceEntry, ...]":
    """Return the sources the settings name; relative paths start at `base`."""
    from caslon.corpus.registry import load_sources

    return load_sources(
        settings.sources,
        base,
        roles=settings.roles,
        only=settings.only,
        max_items=settings.maximum_files or None,
        enable=settings.enable,
        tier_of=settings.tier_of,
        tiers=settings.all_tiers,
        commercial_use=settings.commercial_use,
        period=settings.period,
    )


def open_store(settings: CorpusSettings, base: Path) -> "Store | None":
    """Return the store of fetched files, or None where nothing was collected yet."""
    from caslon.corpus.collect import Store
    from caslon.corpus.collect.store import STATE

    folder = base / settings.collect.store
    return Store.existing(folder) if (folder / STATE).is_file() else None
