"""Commands about results: explain, why, runs, report, gc."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from caslon.commands.output import RUNS, JsonOption, RunsOption, figure, group, print_json, print_table, say
from caslon.errors import UserError
from caslon.folders import StageFolder

app = group()


@app.command()
def explain(
    what: Annotated[
        str, typer.Argument(help="a stage folder, a file of a run, or a segment or document id", metavar="WHAT")
    ],
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Trace a model, a file or a training segment back to the raw files it was made from."""
    if Path(what).exists():
        _explain_path(Path(what), as_json)
        return
    from caslon.corpus import lineage
    from caslon.stages.corpus import Settings, load_entries, open_store

    folder = _corpus_holding(what, runs)
    settings, base = Settings.model_validate(folder.manifest.settings), Path(folder.manifest.base)
    found = lineage.explain(what, folder.path, load_entries(settings, base), open_store(settings, base))
    if as_json:
        print_json(found.to_json())
        return
    member = f"\nmember     {found.member}" if found.member else ""
    record = f"\nrecord     {found.record}" if found.record else ""
    say(
        f"{found.kind:<10} {found.id} ({found.split} split of {folder.path})\n"
        f"source     {found.source}: {found.title or 'no title'}, {found.year or 'no year'}, {found.licence or 'no licence'}\n"
        f"file       {found.path}{member}{record}\nsha-256    {found.raw_sha256}\n"
        f"characters {found.start:,} to {found.end:,} of the decoded raw text\n\n"
        f"--- raw ---\n{found.raw_passage}\n\n--- in the corpus ---\n{found.final_passage}"
    )


@app.command()
def why(
    document: Annotated[str, typer.Argument(help="a document or segment id", metavar="ID")],
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Say why a document was dropped, or what was taken out of it: the step, the reason and the whole text."""
    from caslon.corpus import lineage

    folder = _corpus_holding(document, runs)
    found = lineage.why(document, folder.path)
    if as_json:
        print_json(found.to_json())
        return
    say(f"{found.id} {'kept, in the ' + str(found.split) + ' split' if found.kept else 'dropped'} ({folder.path})")
    for reject in found.rejects:
        say(f"{reject.step}: {reject.code}: {reject.reason}\nfrom {reject.origin.address}\n\n{reject.text}")
    for removal in found.removals:
        say(f"taken out: {removal.code}, characters {removal.start:,} to {removal.end:,}\n{removal.text}")


@app.command(name="runs")
def list_runs(
    pattern: Annotated[str, typer.Argument(help="only runs whose name fits, as in london*", metavar="[PATTERN]")] = "*",
    status: Annotated[str | None, typer.Option(help="only: finished, unfinished, at work", metavar="STATUS")] = None,
    runs: RunsOption = RUNS,
    as_csv: Annotated[bool, typer.Option("--csv", help="print the result as CSV")] = False,
    as_json: JsonOption = False,
) -> None:
    """List runs with their status, sizes and key figures."""
    from caslon.observe.console import size
    from caslon.run_list import run_rows

    rows = run_rows(runs, pattern=pattern, status=status)
    if as_json:
        print_json([row.__dict__ for row in rows])
        return
    if as_csv:
        say(_csv([{**row.__dict__, "stages": " ".join(row.stages)} for row in rows]).rstrip())
        return
    if not rows:
        say(f"no runs in {runs}; start one: caslon run recipes/quickstart.toml")
        return
    print_table(
        ("run", "status", "stages", "size", "parameters", "loss", "bits per byte", "parent", "last change"),
        [
            (
                row.name,
                row.status,
                " ".join(row.stages),
                size(row.bytes),
                figure(row.parameters),
                figure(row.val_loss),
                figure(row.val_bpb),
                row.parent or "",
                row.changed,
            )
            for row in rows
        ],
    )


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@app.command()
def report(
    what: Annotated[
        list[Path], typer.Argument(help="a run folder, or its name below runs/; several are compared", metavar="RUN...")
    ],
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Write a run's HTML report anew and print where it is; of several runs, one page that compares their trainings."""
    from caslon.run_report import write_comparison, write_run_report

    folders = [path if path.is_dir() else runs / path for path in what]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"no run at {folder}", fix="see what there is: caslon runs")
    written = write_run_report(folders[0]) if len(folders) == 1 else write_comparison(folders, runs / "comparison.html")
    print_json({"report": str(written)}) if as_json else say(str(written))


@app.command()
def gc(
    runs: RunsOption = RUNS,
    yes: Annotated[bool, typer.Option("--yes", help="delete; without it only list")] = False,
    as_json: JsonOption = False,
) -> None:
    """Free the disk from results that were set aside and from unfinished stages of runs that are not at work."""
    from caslon.observe.console import size
    from caslon.run_list import collect_garbage

    freed = collect_garbage(runs, delete=yes)
    if as_json:
        print_json([{"folder": str(path), "bytes": count} for path, count in freed])
        return
    for path, count in freed:
        say(f"{'deleted' if yes else 'would delete'} {path} ({size(count)})")
    if freed and not yes:
        say("delete them: caslon gc --yes")
    elif not freed:
        say("nothing to delete")


def _explain_path(path: Path, as_json: bool) -> None:
    from caslon.lineage import ancestors, file_entry

    entry = file_entry(path)
    chain = ancestors(path)
    if as_json:
        print_json(
            {"file": entry, "stages": [{"read_as": a.read_as, **_manifest_json(a.folder.manifest)} for a in chain]}
        )
        return
    if entry:
        state = "unchanged since it was written" if entry["intact"] else "CHANGED since it was written"
        say(f"{entry['file']}  sha256 {entry['sha256']}  {state}")
    for ancestor in chain:
        manifest = ancestor.folder.manifest
        say(f"{'  ' * ancestor.depth}{ancestor.folder.path}  digest {manifest.digest[:16]}  made {manifest.started}")
        for source, digest in manifest.sources.items():
            say(f"{'  ' * (ancestor.depth + 1)}{source}  sha256 {digest[:16]}")


def _manifest_json(manifest: Any) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(manifest.to_json())
    return loaded


def _corpus_holding(identity: str, runs: Path) -> StageFolder:
    """Return the corpus folder that knows a document, segment or reject; newest run first."""
    from caslon.corpus.lineage import knows

    folders = sorted(runs.glob("*/corpus"), key=lambda path: path.stat().st_mtime, reverse=True)
    for folder in folders:
        if knows(identity, folder):
            return StageFolder.open(folder)
    searched = ", ".join(str(folder) for folder in folders) or f"no corpus below {runs}"
    raise UserError(
        f"no id '{identity}'", where=searched, fix="ids stand in corpus/report.html and in the Parquet files"
    )
