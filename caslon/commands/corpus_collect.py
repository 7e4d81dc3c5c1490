"""The command `caslon corpus collect`: fills the raw store from a recipe's or a registry's sources."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from caslon.commands.output import JsonOption, figure, print_json, print_table, say
from caslon.errors import CaslonError, Stopped, UserError

if TYPE_CHECKING:
    from caslon.corpus.collect.gather import Bounds, SourceAccount
    from caslon.corpus.registry_entry import SourceEntry
    from caslon.corpus.settings import CollectSettings, CorpusSettings

LISTED_ITEMS = 20


def collect(
    what: Annotated[str, typer.Argument(help="a recipe (.toml) or a registry (.json)", metavar="RECIPE_OR_REGISTRY")],
    max_sources: Annotated[int | None, typer.Option(min=1, help="only so many sources, high priority first")] = None,
    max_items: Annotated[int | None, typer.Option(min=1, help="at most so many items of each source")] = None,
    max_bytes: Annotated[int | None, typer.Option(min=1, help="fetch at most so many bytes in all")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="only the sources with this id or glob; may be repeated")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list items and bytes, fetch no files")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="fetch nothing; fail when something is missing")] = False,
    confirm_rights: Annotated[
        list[str] | None,
        typer.Option(help="id of a source whose terms you have read and whose texts you may take; may be repeated"),
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="folder of fetched files; by default the recipe's, or raw/")
    ] = None,
    contact: Annotated[str, typer.Option(help="your e-mail or web address, for the user agent")] = "",
    as_json: JsonOption = False,
) -> None:
    """Fetch the raw files of a corpus into the store; what is there and unchanged is not fetched again."""
    from caslon.corpus.collect.gather import Bounds, check_offline
    from caslon.corpus.collect.store import Store

    settings = _settings(what, only or [], store, contact)
    entries = _entries(settings)
    with Store(Path(settings.collect.store)) as opened:
        if offline:
            held = check_offline(entries, opened)
            print_json({"held": held}) if as_json else say(f"everything is in the store: {held:,} files")
            return
        _confirm(opened, confirm_rights or [], entries)
        bounds = Bounds(max_sources, max_items, max_bytes, dry_run)
        accounts = _gather(entries, opened, settings.collect, bounds)
    print_json([account.to_json() for account in accounts]) if as_json else _print(accounts, dry_run)
    failed = [account for account in accounts if account.state.startswith("failed")]
    if failed and len(failed) == len(accounts):
        raise CaslonError("no source could be collected", where=", ".join(account.source for account in failed))


def _gather(
    entries: "Sequence[SourceEntry]", store: Any, settings: "CollectSettings", bounds: "Bounds"
) -> "list[SourceAccount]":
    from caslon.corpus.collect.fetch import Fetcher
    from caslon.corpus.collect.gather import collect as collect_entries
    from caslon.corpus.collect.http import Client

    fetcher = Fetcher(store, settings, lambda: Client(settings))
    accounts: list[SourceAccount] = []
    try:
        for account in collect_entries(entries, fetcher, bounds, _Progress()):
            accounts.append(account)
    except KeyboardInterrupt as error:
        raise Stopped(
            f"stopped after {fetcher.budget.fetched:,} bytes; what was fetched is kept",
            fix="run the same command again to go on",
        ) from error
    finally:
        fetcher.close()
        _Progress.end()
    return accounts


class _Progress:
    """One line on standard error, written over, where that is a terminal."""

    def __call__(self, source: str, items: int, size: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{source}: {items:,} items, {size:,} bytes fetched")
            sys.stderr.flush()

    @staticmethod
    def end() -> None:
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")


def _settings(what: str, only: Sequence[str], store: Path | None, contact: str) -> "CorpusSettings":
    """The corpus settings of a recipe, or the defaults for a registry, with what the command line overrides."""
    from caslon.corpus.settings import CorpusSettings

    path = Path(what)
    if not path.is_file():
        raise UserError("there is no such recipe or registry", where=what)
    if path.suffix == ".toml":
        from caslon.recipe import load_recipe

        stages = [stage for stage in load_recipe(path).stages if stage.kind == "corpus"]
        if not stages:
            raise UserError("the recipe has no [corpus] table", where=what)
        settings = CorpusSettings.model_validate(stages[0].settings.model_dump())
    else:
        settings = CorpusSettings(sources=what)
    changed: dict[str, Any] = {"store": str(store)} if store else {}
    changed |= {"contact": contact} if contact else {}
    return settings.model_copy(
        update={
            "collect": settings.collect.model_copy(update=changed),
            "only": tuple(only) or settings.only,
        }
    )


def _entries(settings: "CorpusSettings") -> "tuple[SourceEntry, ...]":
    from caslon.stages.corpus import load_entries

    return load_entries(settings, Path())


def _confirm(store: Any, ids: Sequence[str], entries: "Sequence[SourceEntry]") -> None:
    from caslon.corpus.collect.sources.british_history_online import RIGHTS

    known = {entry.id for entry in entries}
    for identifier in ids:
        if identifier not in known:
            raise UserError(f"no enabled source has the id '{identifier}'", where="--confirm-rights")
        store.mark(identifier, RIGHTS, "yes")


def _print(accounts: "Sequence[SourceAccount]", dry_run: bool) -> None:
    if dry_run:
        _print_listed(accounts)
        return
    print_table(
        ("source", "items", "new", "changed", "unchanged", "vanished", "problems", "bytes fetched", "bytes", "state"),
        [
            (
                account.source,
                *map(figure, (account.items, account.new, account.changed, account.unchanged, account.vanished)),
                ", ".join(f"{count:,} {code}" for code, count in sorted(account.problems.items())),
                figure(account.bytes_fetched),
                figure(account.bytes_known),
                account.state,
            )
            for account in accounts
        ],
    )


def _print_listed(accounts: "Sequence[SourceAccount]") -> None:
    for account in accounts:
        unknown = f", {account.items_of_unknown_size:,} of unknown size" if account.items_of_unknown_size else ""
        state = "" if account.state == "complete" else f" ({account.state})"
        say(f"{account.source}: {account.items:,} items, {account.bytes_known:,} bytes{unknown}{state}")
        for row in account.listed[:LISTED_ITEMS]:
            say(f"  {figure(row['bytes']) or '?':>15}  {row['path']}")
        if account.items > LISTED_ITEMS:
            say(f"  ... and {account.items - LISTED_ITEMS:,} more (--json lists all)")
