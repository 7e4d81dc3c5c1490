"""Commands about corpora: build, refilter, report, verify, export."""

from pathlib import Path
from typing import Annotated

import typer

from caslon.commands import recipes
from caslon.commands.output import RUNS, JsonOption, RunsOption, group, print_json, print_table, say
from caslon.commands.recipes import RecipeArgument, SetOption
from caslon.errors import UserError

app = group(no_args_is_help=True, help="Build a corpus and look into it.")

CorpusArgument = Annotated[Path, typer.Argument(help="a finished corpus, as in runs/NAME/corpus", metavar="FOLDER")]


@app.command()
def build(recipe: RecipeArgument, set_: SetOption = [], runs: RunsOption = RUNS, as_json: JsonOption = False) -> None:  # noqa: B006
    """Build a recipe's corpus: short for run --only corpus."""
    recipes.run(recipe, set_, until=None, only="corpus", runs=runs, as_json=as_json)


@app.command()
def refilter(
    recipe: RecipeArgument,
    set_: SetOption = [],  # noqa: B006  typer copies it
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Build a recipe's corpus with other thresholds from the documents it read before; exit 2 when raw files are needed."""
    from caslon.corpus.refilter import read_key, stored_with_key
    from caslon.recipe import load_recipe
    from caslon.stages.corpus import Settings, earlier_folders, load_entries, open_store

    loaded = load_recipe(recipe, set_)
    settings = Settings.model_validate(loaded.stage("corpus").settings.model_dump())
    base = Path.cwd()
    key = read_key(load_entries(settings, base), settings, base, open_store(settings, base))
    if stored_with_key(earlier_folders(runs / loaded.name), key) is None:
        raise UserError(
            "no corpus of this run holds these raw files, read under these settings",
            where=str(runs / loaded.name),
            fix=f"read them: caslon corpus build {recipe}",
        )
    build(recipe, set_, runs, as_json)


@app.command()
def report(folder: CorpusArgument, as_json: JsonOption = False) -> None:
    """Write a corpus's report and data card anew and print where they are."""
    from caslon.corpus.pipeline import stored_totals
    from caslon.corpus.report import write_report
    from caslon.folders import StageFolder
    from caslon.stages.corpus import Settings, load_entries

    manifest = StageFolder.open(folder).manifest
    settings = Settings.model_validate(manifest.settings)
    numbers = write_report(
        folder, load_entries(settings, Path(manifest.base)), settings, stored_totals(folder), manifest.seconds
    )
    print_json(numbers) if as_json else say(f"{folder / 'report.html'}\n{folder / 'README.md'}")


@app.command()
def verify(
    folder: CorpusArgument,
    replay: Annotated[
        int, typer.Option(help="also make so many segments again from their raw files", metavar="N", min=0)
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Check every hash, count and cut of a corpus; exit 1 when something differs."""
    from caslon.corpus.verify import PROBLEMS_SHOWN, verify

    found = verify(folder)
    if replay:
        from caslon.corpus.replay import replay_segments
        from caslon.folders import StageFolder
        from caslon.stages.corpus import Settings, load_entries, open_store

        manifest = StageFolder.open(folder).manifest
        settings, base = Settings.model_validate(manifest.settings), Path(manifest.base)
        store = open_store(settings, base)
        found.problems += replay_segments(folder, load_entries(settings, base), settings, base, replay, store)
    if as_json:
        print_json({**found.to_json(), "replayed": replay})
    else:
        for problem in found.problems[:PROBLEMS_SHOWN]:
            say(problem)
        replayed = f", {replay:,} segments made again from raw files" if replay else ""
        say(
            f"{'passed' if found.passed else 'FAILED'}: {found.files:,} files, {found.documents:,} documents, "
            f"{found.segments:,} segments, {found.rejects:,} rejects{replayed}; {len(found.problems):,} problems"
        )
    if not found.passed:
        raise typer.Exit(1)


@app.command()
def export(
    folder: CorpusArgument,
    out: Annotated[Path, typer.Option("--out", help="the folder to write; must not exist")],
    format_: Annotated[str, typer.Option("--format", help="txt, jsonl, parquet or hf")] = "txt",
    split: Annotated[list[str], typer.Option(help="train, validation, test (repeatable); all when not given")] = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Write a corpus as text, JSON lines, Parquet or a Hugging Face dataset folder."""
    from caslon.corpus.export import export
    from caslon.corpus.shards import SPLITS

    written = export(folder, out, format_, split or SPLITS)
    if as_json:
        print_json([{"file": str(item.path), "segments": item.segments, "bytes": item.bytes} for item in written])
        return
    print_table(("file", "segments", "bytes"), [(i.path, f"{i.segments:,}", f"{i.bytes:,}") for i in written])
