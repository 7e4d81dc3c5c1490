"""Commands about source registries: list, validate, add, enable, disable."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from caslon.commands.output import JsonOption, group, print_json, print_table, say
from caslon.errors import UserError

if TYPE_CHECKING:
    from caslon.corpus.registry_check import Finding
    from caslon.corpus.registry_edit import Change
    from caslon.corpus.registry_entry import SourceEntry
    from caslon.corpus.registry_probe import Probe

app = group(no_args_is_help=True, help="The sources a corpus is made from.")

RegistryOption = Annotated[
    str, typer.Option("--registry", help="a registry file, its folder, or london-registry", metavar="FILE")
]
REGISTRY = "sources.json"
PeriodOption = Annotated[tuple[int, int] | None, typer.Option(help="first and last year", metavar="YEAR YEAR")]
RecipeOption = Annotated[Path | None, typer.Option(help="take period and tiers from this recipe", metavar="RECIPE")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="show the change and write nothing")]
YesOption = Annotated[bool, typer.Option("--yes", help="write without asking")]
Globs = Annotated[list[str], typer.Argument(help="ids, or globs such as 'old-bailey-*'", metavar="ID...")]


@app.command("list")
def list_sources(
    registry: RegistryOption = REGISTRY,
    enabled: Annotated[bool | None, typer.Option("--enabled/--disabled", help="only these")] = None,
    collector: Annotated[str, typer.Option(help="only those of one collector")] = "",
    as_json: JsonOption = False,
) -> None:
    """List the sources of a registry, with what may be done with them."""
    from caslon.corpus.registry import Registry

    everything = Registry.load(_path(registry)).entries
    entries = [
        entry
        for entry in everything
        if (enabled is None or entry.enabled == enabled) and (not collector or entry.collector == collector)
    ]
    if as_json:
        print_json([_as_row(entry) for entry in entries])
        return
    print_table(("source", "title", "collector", "years", "use", "state"), [_cells(entry) for entry in entries])
    say(_summary(entries))


@app.command()
def validate(
    registry: RegistryOption = REGISTRY,
    period: PeriodOption = None,
    recipe: RecipeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a registry and report everything wrong with it at once; exit 2 when there is an error."""
    from caslon.corpus.registry import Registry, inventory_rows
    from caslon.corpus.registry_check import check, listing
    from caslon.corpus.registry_entry import TIERS

    path = _path(registry)
    tiers: Sequence[str] = TIERS
    if recipe is not None:
        from caslon.corpus.settings import CorpusSettings
        from caslon.recipe import load_recipe

        settings = load_recipe(recipe).stage("corpus").settings
        assert isinstance(settings, CorpusSettings)
        period, tiers = period or settings.period, tuple(settings.all_tiers)
    text = _text(path)
    findings: list[Finding] = []
    if inventory_rows(path, text) is None:
        findings = check(listing(path, text), period=period, tiers=tiers)
    errors = [finding for finding in findings if finding.severity == "error"]
    entries = [] if errors else list(Registry.load(path, tiers=tiers).entries)
    if as_json:
        print_json({"registry": str(path), "entries": len(entries), "findings": [asdict(one) for one in findings]})
    else:
        for finding in findings:
            say(str(finding))
        counted = f"{path}: {_count(len(errors), 'error')}, {_count(len(findings) - len(errors), 'warning')}"
        say(counted if errors else f"{counted}; {_summary(entries)}")
    if errors:
        raise typer.Exit(2)


@app.command()
def add(
    location: Annotated[
        str, typer.Argument(help="a path, an address, or identifiers; left out: you are asked for everything")
    ] = "",
    registry: RegistryOption = REGISTRY,
    id_: Annotated[str, typer.Option("--id")] = "",
    title: str = "",
    collector: str = "",
    term: Annotated[list[str], typer.Option(help="what a catalogue is searched for (repeatable)")] = [],  # noqa: B006
    period: PeriodOption = None,
    language: Annotated[list[str], typer.Option(help="such as en (repeatable)")] = [],  # noqa: B006
    format_: Annotated[list[str], typer.Option("--format", help="such as tei (repeatable)")] = [],  # noqa: B006
    priority: str = "",
    licence: Annotated[str, typer.Option(help="an SPDX id or a text that says what is allowed")] = "",
    rights_url: str = "",
    allowed_use: Annotated[str, typer.Option(help="any, non_commercial, research, none")] = "",
    tier: str = "",
    profile: str = "",
    ocr: Annotated[bool | None, typer.Option("--ocr/--no-ocr", help="whether the text was read by a machine")] = None,
    disabled: Annotated[str, typer.Option(help="add it disabled, for this reason", metavar="REASON")] = "",
    max_items: int | None = None,
    max_share: float | None = None,
    delay_seconds: float | None = None,
    checksum: Annotated[str, typer.Option(help="sha256:, sha1: or md5: and hexadecimal digits")] = "",
    include: Annotated[list[str], typer.Option(help="glob of files (repeatable)")] = [],  # noqa: B006
    exclude: Annotated[list[str], typer.Option(help="glob of files (repeatable)")] = [],  # noqa: B006
    text_field: Annotated[str, typer.Option(help="field of a row that holds the text")] = "",
    selector: Annotated[str, typer.Option(help="CSS selector of a page's text")] = "",
    author: Annotated[list[str], typer.Option(help="id of an author who agreed (repeatable)")] = [],  # noqa: B006
    notes: str = "",
    contact: Annotated[str, typer.Option(help="your e-mail or web address, told to the server that is asked")] = "",
    probe: Annotated[bool, typer.Option("--probe/--no-probe", help="look at the address first")] = True,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Add a source: look at its address, propose values, check them, show the difference, write."""
    given = {
        "id": id_, "title": title, "collector": collector, "search_terms": term, "languages": language,
        "formats": format_, "priority": priority, "licence": licence, "rights_url": rights_url, "allowed_use": allowed_use,
        "tier": tier, "profile": profile, "ocr": ocr, "max_items": max_items, "max_share": max_share,
        "delay_seconds": delay_seconds, "checksum": checksum, "include": include, "exclude": exclude,
        "text_field": text_field, "selector": selector, "consenting_authors": author, "notes": notes,
        "time_period": list(period) if period else None, "disabled_reason": disabled, "enabled": False if disabled else None,
    }  # fmt: skip
    from caslon.corpus.registry_edit import added
    from caslon.corpus.registry_probe import proposals

    asks = _at_a_terminal() and not as_json
    if not location:
        if not asks:
            raise UserError("what should be added?", where="LOCATION", fix="caslon corpus sources add LOCATION ...")
        location = typer.prompt("address, path or identifiers")
    path = _new_path(registry)
    found = _probed(location, collector, path.parent, contact) if probe else None
    row = proposals(location, found, collector) | {
        name: value for name, value in given.items() if value not in ("", [], None)
    }
    row.setdefault("status", "unverified")
    row = _asked(row, given) if asks else row
    _needed(row)
    _conclude(added(path, row), dry_run=dry_run, ask=asks and not yes, as_json=as_json)


@app.command()
def enable(
    ids: Globs,
    registry: RegistryOption = REGISTRY,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Switch sources on in a registry file."""
    from caslon.corpus.registry_edit import switched

    _conclude(switched(_path(registry), ids, enabled=True), dry_run=dry_run, ask=False, as_json=as_json)


@app.command()
def disable(
    ids: Globs,
    registry: RegistryOption = REGISTRY,
    reason: Annotated[str, typer.Option(help="why, for those who read the registry")] = "",
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Switch sources off in a registry file."""
    from caslon.corpus.registry_edit import switched

    change = switched(_path(registry), ids, enabled=False, reason=reason)
    _conclude(change, dry_run=dry_run, ask=False, as_json=as_json)


# --- files -------------------------------------------------------------------------------------------------------------


def _path(registry: str) -> Path:
    from caslon.corpus.registry import LONDON, registry_path

    try:
        path = registry_path(registry, Path())
    except UserError as error:
        raise UserError(
            f"there is no registry '{registry}'",
            where=error.where,
            fix=f"name one with --registry FILE; {LONDON} is the one that ships with caslon",
        ) from error
    if path is None:
        raise UserError(
            f"'{registry}' is no registry", where=registry, fix="name a JSON file or a folder that holds one"
        )
    return path


def _new_path(registry: str) -> Path:
    """A registry that may not be there yet."""
    path = Path(registry)
    return path if path.suffix == ".json" and not path.exists() else _path(registry)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the registry cannot be read: {error}", where=str(path)) from error


def _conclude(change: "Change", *, dry_run: bool, ask: bool, as_json: bool) -> None:
    """Show a change, and write it unless that is not wanted."""
    if not as_json:
        for warning in change.warnings:
            say(str(warning))
        sys.stdout.write(change.difference or "nothing changes\n")
    wanted = bool(change.difference) and not dry_run
    if wanted and ask:
        wanted = typer.confirm(f"write {change.path}?", default=True)
    if wanted:
        change.write()
    if as_json:
        print_json(
            {
                "registry": str(change.path),
                "ids": list(change.ids),
                "difference": change.difference,
                "written": wanted,
                "warnings": [asdict(warning) for warning in change.warnings],
            }
        )
    elif change.difference:
        say(f"{'wrote' if wanted else 'not written:'} {change.path}")


# --- the wizard --------------------------------------------------------------------------------------------------------


def _at_a_terminal() -> bool:
    return sys.stdin.isatty()


def _probed(location: str, collector: str, base: Path, contact: str) -> "Probe | None":
    """Look at an address or path and say what was found; identifiers, and python itself, cannot be looked at."""
    from caslon.corpus.registry_entry import CATALOGUES, PYTHON
    from caslon.corpus.registry_probe import objections, probe_path, probe_url
    from caslon.corpus.settings import CollectSettings

    settings = CollectSettings(contact=contact)
    if "://" in location:
        if not contact:
            raise UserError(
                "no address is asked without a contact",
                where="--contact",
                fix="give your e-mail or web address with --contact, or --no-probe to ask nothing",
            )
        found = probe_url(location, settings)
    elif collector in CATALOGUES or location == PYTHON:
        return None
    else:
        try:
            found = probe_path(base / location)
        except OSError as error:
            raise UserError(f"nothing can be read there: {error}", where=str(base / location)) from error
    size = "" if found.size_bytes is None else f"{found.size_bytes:,} bytes"
    seen = ", ".join(part for part in (found.content_type, size) if part)
    typer.echo(f"looked at {location}" + (f": {seen}" if seen else ""), err=True)
    for objection in objections(found, settings.max_file_bytes):
        typer.echo(f"  {objection}", err=True)
    return found


def _asked(row: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row with what the person at the terminal says; what was given by flags is not asked again."""
    from caslon.corpus.registry_entry import CATALOGUES

    questions = {"id": "id", "title": "title", "collector": "collector", "licence": "licence (SPDX id or text)"}
    answers = dict(row)
    for name, question in questions.items():
        if not given.get(name):
            answers[name] = typer.prompt(question, default=row.get(name))
    if not given.get("languages"):
        answers["languages"] = typer.prompt("languages, as in: en fr", default="en").split()
    if not given.get("time_period"):
        years = typer.prompt("first and last year (empty: not known)", default="", show_default=False).split()
        if years:
            answers["time_period"] = [int(year) if year.isdigit() else year for year in years]
    if answers["collector"] in CATALOGUES and not given.get("search_terms"):
        terms = typer.prompt("search terms, with commas between (empty: none)", default="", show_default=False)
        if terms.strip():
            answers["search_terms"] = [term.strip() for term in terms.split(",")]
    return answers


def _needed(row: Mapping[str, Any]) -> None:
    from caslon.corpus.registry_check import NEEDED

    missing = [f"--{name}" for name in NEEDED if not row.get(name)]
    if missing:
        raise UserError(
            f"a source needs {', '.join(missing)}", where=str(row.get("location")), fix="caslon guesses no licence"
        )


# --- printing ----------------------------------------------------------------------------------------------------------


def _as_row(entry: "SourceEntry") -> dict[str, Any]:
    row = asdict(entry) | {"base": str(entry.base), "formulaic": entry.formulaic, "files": len(entry.facts)}
    del row["facts"]
    return row


def _cells(entry: "SourceEntry") -> tuple[str, ...]:
    years = "-".join(str(year) for year in dict.fromkeys(entry.time_period or ()))
    state = entry.status if entry.enabled else "disabled"
    return entry.id, _short(entry.title), entry.collector, years, entry.allowed_use, state


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _summary(entries: "Sequence[SourceEntry]") -> str:
    states = Counter(entry.enabled for entry in entries)
    fetched = Counter(entry.status for entry in entries)
    return (
        f"{_count(len(entries), 'source')}: {states[True]} enabled, {states[False]} disabled; "
        f"{fetched['verified']} fetched once (verified), {fetched['unverified']} not yet (unverified)"
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")
