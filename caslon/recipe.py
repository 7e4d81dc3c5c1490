"""A recipe: one TOML file to a checked list of stages, with the file and line of everything that is wrong in it.

Tables name stages. Kinds work in a fixed order; stages of one kind (`[finetune.sft]`, `[finetune.style]`) in the order of the
file. A stage takes each input from the nearest earlier stage that writes it, or from the one it names (`model = "finetune.sft"`).
"""

import importlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from caslon.errors import UserError
from caslon.settings import Settings, nearest, problems
from caslon.stages.stage import KINDS, NAMED_KINDS

TOP_LEVEL = {"name": str, "seed": int, "extends": str}
RESOLVED_FILE = "resolved.json"  # what a recipe came to, beside the results of a run
NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class StageTable:
    """One stage of a recipe: its name, the module that does it, its settings and the stages it reads from."""

    name: str
    kind: str
    settings: Settings
    inputs: Mapping[str, str]  # kind of thing -> name of the stage that writes it

    @property
    def module(self) -> ModuleType:
        """The stage module."""
        return stage_module(self.kind)


@dataclass(frozen=True)
class Recipe:
    """A checked recipe."""

    name: str
    seed: int
    path: Path
    stages: tuple[StageTable, ...]
    tables: Mapping[str, Any]  # after `extends` and overrides

    def stage(self, name: str) -> StageTable:
        """Return a stage by name; `UserError` with the nearest name when there is none."""
        for table in self.stages:
            if table.name == name:
                return table
        names = [table.name for table in self.stages]
        guess = nearest(name, names)
        hint = f"did you mean '{guess}'?" if guess else f"its stages are: {', '.join(names)}"
        raise UserError(f"the recipe has no stage '{name}'", where=str(self.path), fix=hint)


@dataclass(frozen=True)
class _Source:
    """Parsed tables and where each key stands, for error messages."""

    tables: dict[str, Any]
    places: dict[tuple[str, ...], str]

    def place(self, *keys: str) -> str:
        for length in range(len(keys), -1, -1):
            if found := self.places.get(keys[:length]):
                return found
        return "the recipe"


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe; `UserError` lists everything that is wrong, each with its file and line."""
    return _checked_recipe(_with_overrides(_with_parent(path), overrides), path)


def recipe_of_run(folder: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe of a run folder as it was when the run was last started, all overrides of that time included.

    `UserError` when the folder holds no run. The run may have been moved: its name is that of the folder.
    """
    file = folder / RESOLVED_FILE
    if not file.is_file():
        raise UserError(f"no run at {folder}", fix="give the name or the folder of a run; see: caslon runs")
    tables = json.loads(file.read_text(encoding="utf-8"))["tables"]
    tables = {name: value for name, value in tables.items() if name != "extends"} | {"name": folder.name}
    source = _Source(tables, {(): str(file)})
    return _checked_recipe(_with_overrides(source, overrides), folder / "recipe.toml")


def _checked_recipe(source: _Source, path: Path) -> Recipe:
    errors = list(_top_level_errors(source))
    tables = list(_stage_tables(source.tables))
    checked: list[tuple[str, str, Settings, dict[str, str]]] = []
    for name, kind, values in tables:
        links, settings, found = _checked(source, name, kind, values)
        errors += found
        if settings is not None:
            checked.append((name, kind, settings, links))
    if not tables and not errors:
        errors.append(f"{path}: no stages; add a table such as [corpus]")
    if errors:
        raise _all_at_once(errors)
    return Recipe(
        name=source.tables["name"],
        seed=source.tables.get("seed", 1),
        path=path,
        stages=_linked(source, checked),
        tables=source.tables,
    )


@cache
def stage_module(kind: str) -> ModuleType:
    """Return the module of a kind of stage; `UserError` when caslon has none."""
    if kind not in available_kinds():
        raise UserError(f"there is no stage '{kind}'", fix=f"stages are: {', '.join(available_kinds())}")
    return importlib.import_module(f"caslon.stages.{kind}")


def available_kinds() -> tuple[str, ...]:
    """Return the kinds of stage that have a module, in their order of work."""
    folder = Path(__file__).parent / "stages"
    return tuple(kind for kind in KINDS if (folder / f"{kind}.py").is_file())


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema of recipes, for editors."""
    properties: dict[str, Any] = {
        "name": {
            "type": "string",
            "pattern": f"^{NAME_PATTERN.pattern}$",
            "description": "names the folder below runs/",
        },
        "seed": {"type": "integer", "default": 1, "description": "the one seed everything random is derived from"},
        "extends": {"type": "string", "description": "a recipe whose tables this one changes"},
    }
    definitions: dict[str, Any] = {}
    for kind in available_kinds():
        module = stage_module(kind)
        schema = module.Settings.model_json_schema(ref_template="#/$defs/{model}")
        definitions.update(schema.pop("$defs", {}))
        for link in _link_keys(module):
            schema["properties"][link] = {"type": "string", "description": f"the stage to take the {link} from"}
        properties[kind] = _named_schema(schema) if kind in NAMED_KINDS else schema
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "caslon recipe",
        "type": "object",
        "properties": properties,
        "required": ["name"],
        "additionalProperties": False,
        "$defs": definitions,
    }


def _named_schema(schema: dict[str, Any]) -> dict[str, Any]:
    named = {"type": "object", "additionalProperties": schema, "description": "one table per name"}
    return {"anyOf": [schema, named]}


def _with_parent(path: Path) -> _Source:
    child = _parsed(path)
    parent_name = child.tables.get("extends")
    if not isinstance(parent_name, str):
        return child
    parent = _parsed(path.parent / parent_name, wanted_by=child.place("extends"))
    if "extends" in parent.tables:
        raise UserError(
            "'extends' works one level deep",
            where=parent.place("extends"),
            fix=f"let {path.name} extend '{parent.tables['extends']}' or copy the tables",
        )
    return _Source(_merged(parent.tables, child.tables), {**parent.places, **child.places})


def _parsed(path: Path, wanted_by: str | None = None) -> _Source:
    if not path.is_file():
        raise UserError(f"no recipe at {path}", where=wanted_by, fix="give the path of a .toml file; see recipes/")
    text = path.read_text(encoding="utf-8")
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"not valid TOML: {error}", where=str(path)) from error
    return _Source(tables, _places(text, path))


def _places(text: str, path: Path) -> dict[tuple[str, ...], str]:
    """Map each table and key to `file:line`. tomllib keeps no positions, and one plain scan is enough for messages."""
    places: dict[tuple[str, ...], str] = {(): str(path)}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[+\s*([^\[\]]+?)\s*\]+\s*(#.*)?$", line):
            table = tuple(part.strip().strip("\"'") for part in header[1].split("."))
            for length in range(1, len(table) + 1):  # [finetune.sft] also is where "finetune" stands
                places.setdefault(table[:length], f"{path}:{number}")
        elif key := re.match(r"\s*([A-Za-z0-9_.\"'-]+)\s*=", line):
            parts = tuple(part.strip("\"'") for part in key[1].split("."))
            places.setdefault((*table, *parts), f"{path}:{number}")
    return places


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        both_tables = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], value) if both_tables else value
    return result


def _with_overrides(source: _Source, overrides: Sequence[str]) -> _Source:
    tables, places = source.tables, dict(source.places)
    for text in overrides:
        name, equals, value = text.partition("=")
        keys = tuple(name.strip().split("."))
        if not equals or not all(keys):
            raise UserError(
                f"cannot read --set {text}", fix="write --set table.key=value, as in --set pretrain.steps=10"
            )
        nested: Any = _override_value(value)
        for key in reversed(keys):
            nested = {key: nested}
        tables = _merged(tables, nested)
        places[keys] = f"--set {text}"
    return _Source(tables, places)


def _override_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:  # a bare word is a string, so that shells need no inner quotes
        return text


def _top_level_errors(source: _Source) -> Iterator[str]:
    known = {*TOP_LEVEL, *available_kinds()}
    for key, value in source.tables.items():
        if key not in known:
            yield f"{source.place(key)}: {_unknown_top_level(key, source.tables[key], known)}"
        elif key in TOP_LEVEL and not isinstance(value, TOP_LEVEL[key]):
            yield f"{source.place(key)}: '{key}' must be a {TOP_LEVEL[key].__name__}, not {value!r}"
        elif key in available_kinds() and not isinstance(value, dict):
            yield f"{source.place(key)}: [{key}] is a table of settings, not a value"
    name = source.tables.get("name")
    if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        yield f"{source.place('name')}: 'name' is needed: small letters, digits, - and _ (it names the folder runs/<name>)"


def _unknown_top_level(key: str, value: Any, known: set[str]) -> str:
    if isinstance(value, dict):
        guess = nearest(key, available_kinds())
        return f"unknown table [{key}]" + (
            f"; did you mean [{guess}]?" if guess else f"; tables: {', '.join(available_kinds())}"
        )
    owners = [kind for kind in available_kinds() if key in stage_module(kind).Settings.model_fields]
    if owners:
        return f"unknown key '{key}' outside a table; it belongs under [{owners[0]}]"
    guess = nearest(key, known)
    return f"unknown key '{key}'" + (f"; did you mean '{guess}'?" if guess else "")


def _stage_tables(tables: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for kind in available_kinds():
        values = tables.get(kind)
        if not isinstance(values, dict):
            continue
        fields = stage_module(kind).Settings.model_fields
        named = {
            key: value
            for key, value in values.items()
            if kind in NAMED_KINDS and isinstance(value, dict) and key not in fields
        }
        own = {key: value for key, value in values.items() if key not in named}
        if own or not named:
            yield kind, kind, own
        for name, settings in named.items():
            yield f"{kind}.{name}", kind, settings


def _checked(
    source: _Source, name: str, kind: str, values: Mapping[str, Any]
) -> tuple[dict[str, str], Settings | None, list[str]]:
    module = stage_module(kind)
    links = {key: value for key, value in values.items() if key in _link_keys(module) and isinstance(value, str)}
    own = {key: value for key, value in values.items() if key not in links}
    keys = tuple(name.split("."))
    try:
        return links, module.Settings.model_validate(own), []
    except ValidationError as error:
        wrong = problems(error, module.Settings)
        found = [
            f"{source.place(*keys, *key.split('.'))}: [{name}] {_with_right_table(message, key, kind)}"
            for key, message in [*wrong, *_conflicts_of_the_rest(module.Settings, own, wrong)]
        ]
        return links, None, found


def _conflicts_of_the_rest(
    kind: type[Settings], values: Mapping[str, Any], wrong: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Return what does not go together among the values that are valid alone: rules about several keys come last."""
    bad = {key.partition(".")[0] for key, _ in wrong}
    rest = {key: value for key, value in values.items() if key not in bad}
    if len(rest) == len(values):
        return []
    try:
        kind.model_validate(rest)
    except ValidationError as error:
        known = {message for _, message in wrong}
        return [(key, message) for key, message in problems(error, kind) if message not in known and key not in bad]
    return []


def _link_keys(module: ModuleType) -> tuple[str, ...]:
    """Return the keys that name the stage to read from; a setting of the same name is that setting."""
    return tuple(thing for thing in module.READS if thing not in module.Settings.model_fields)


def _with_right_table(message: str, key: str, kind: str) -> str:
    owners = [
        other for other in available_kinds() if other != kind and key in stage_module(other).Settings.model_fields
    ]
    if message.startswith("unknown key") and owners and "did you mean" not in message:
        return f"unknown key '{key}'; it belongs under [{owners[0]}]"
    return message


def _linked(source: _Source, checked: Sequence[tuple[str, str, Settings, dict[str, str]]]) -> tuple[StageTable, ...]:
    tables: list[StageTable] = []
    for name, kind, settings, links in checked:
        inputs = {}
        for thing in _read_by(stage_module(kind), settings):
            inputs[thing] = _writer(source, tables, name, thing, links.get(thing))
        tables.append(StageTable(name, kind, settings, inputs))
    return tuple(tables)


def _writer(source: _Source, earlier: Sequence[StageTable], name: str, thing: str, wanted: str | None) -> str:
    writers = [table.name for table in earlier if thing in _written_by(table.module, table.settings)]
    place = source.place(*name.split("."), *([thing] if wanted else []))
    if wanted is not None and wanted not in writers:
        raise UserError(
            f"[{name}] wants its {thing} from '{wanted}', which is not an earlier stage that writes one",
            where=place,
            fix=f"stages that do: {', '.join(writers) or 'none'}",
        )
    if not writers:
        makers = [kind for kind in available_kinds() if thing == stage_module(kind).WRITES]
        raise UserError(
            f"[{name}] needs {thing}, and no earlier stage writes it", where=place, fix=f"add [{makers[0]}]"
        )
    return wanted or writers[-1]


def _read_by(module: ModuleType, settings: Settings) -> Sequence[str]:
    """Return the things a stage needs under these settings."""
    found: Sequence[str] = module.reads(settings) if hasattr(module, "reads") else module.READS
    return found


def _written_by(module: ModuleType, settings: Settings) -> Sequence[str]:
    """Return the things a stage makes under these settings."""
    found: Sequence[str] = module.writes(settings) if hasattr(module, "writes") else (module.WRITES,)
    return found


def _all_at_once(errors: Sequence[str]) -> UserError:
    if len(errors) == 1:
        place, _, what = errors[0].partition(": ")
        return UserError(what, where=place)
    return UserError(f"{len(errors)} things are wrong in the recipe:\n" + "\n".join(f"  {error}" for error in errors))
