"""Writes the generated parts of the documentation, or checks that they are true (`--check`).

Generated: the tree in README (the first line of every module's docstring), docs/reference/recipe.md and recipe.schema.json
(from the settings classes), docs/reference/cli.md (from the commands), docs/reference/promises.md (from the marks of tests).
"""

import ast
import json
import sys
from pathlib import Path
from typing import Any

import typer
from promises import promises_page

from caslon.cli import app
from caslon.recipe import available_kinds, recipe_schema, stage_module
from caslon.settings import Settings, is_side_effect_only

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- tree: begin -->", "<!-- tree: end -->"


def main() -> int:
    """Write all generated files; with --check only compare, and return 1 when one is stale."""
    check = "--check" in sys.argv[1:]
    stale = [path for path, text in generated().items() if not path.is_file() or path.read_text() != text]
    for path in stale:
        if check:
            sys.stderr.write(f"{path.relative_to(ROOT)} is stale; run: python docs/generate.py\n")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(generated()[path])
    return 1 if check and stale else 0


def generated() -> dict[Path, str]:
    """Return every generated file with its text."""
    reference = ROOT / "docs" / "reference"
    return {
        ROOT / "README.md": with_tree((ROOT / "README.md").read_text()),
        reference / "recipe.md": recipe_page(),
        reference / "recipe.schema.json": json.dumps(recipe_schema(), indent=2) + "\n",
        reference / "cli.md": cli_page(),
        reference / "promises.md": promises_page(),
    }


def with_tree(readme: str) -> str:
    """Return README with the tree between its two marks made anew."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tree()}\n{END}{after}"


def tree() -> str:
    """Return the package's files in the order the data takes, each with the first line of its docstring."""
    package = ROOT / "caslon"
    lines = ["```text", "caslon/"]
    for path in sorted(package.glob("*.py")):
        if path.name != "__init__.py":
            lines.append(f"  {path.name:<18} {first_line(path)}")
    for room in rooms():
        lines.append(f"  {room.name + '/':<18} {first_line(room / '__init__.py')}")
        for path in sorted(room.rglob("*.py")):
            if path.name != "__init__.py" or path.parent != room:
                lines.append(f"    {path.relative_to(room).as_posix():<18} {first_line(path)}")
    return "\n".join([*lines, "```"])


def rooms() -> list[Path]:
    """Return the package's folders in the order the data takes; a new room must be put in its place here."""
    order = [
        "commands",
        "stages",
        "corpus",
        "tokenizer",
        "model",
        "train",
        "compress",
        "engine",
        "evaluate",
        "reasoning",
        "peers",
        "ladder",
        "server",
        "ui",
        "bench",
        "deploy",
        "observe",
        "report",
    ]
    found = {path.parent.name: path.parent for path in (ROOT / "caslon").glob("*/__init__.py")}
    assert set(found) == set(order), f"rooms without a place: {set(found) ^ set(order)}"
    return [found[name] for name in order]


def first_line(path: Path) -> str:
    """Return the first line of a module's docstring without its full stop."""
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, f"{path} has no docstring"
    return docstring.splitlines()[0].rstrip(".")


def recipe_page() -> str:
    """Return the page of all recipe keys."""
    parts = [
        "# Recipe keys",
        "",
        "Made from the settings classes; `caslon show RECIPE` prints the values of one recipe, and",
        "[recipe.schema.json](recipe.schema.json) teaches editors. Top level: `name` (needed), `seed` (1), `extends`.",
        "A key marked *no effect on output* changes speed or display only and re-runs nothing.",
    ]
    for kind in available_kinds():
        module = stage_module(kind)
        reads = ", ".join(module.READS) or "raw files"
        parts += ["", f"## [{kind}]", "", f"Reads {reads}; writes {module.WRITES}.", ""]
        parts += settings_table(module.Settings)
    return "\n".join(parts) + "\n"


def settings_table(settings: type[Settings]) -> list[str]:
    """Return the Markdown table of a settings class."""
    return ["| key | default | meaning |", "| --- | --- | --- |", *settings_rows(settings, "")]


def settings_rows(settings: type[Settings], prefix: str) -> list[str]:
    """Return a row per key; a table inside the table gives rows of its own."""
    rows = []
    for name, field in settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Settings):
            rows += settings_rows(kind, f"{prefix}{name}.")
            continue
        default = (
            "needed" if field.is_required() else f"`{json.dumps(plain(field.get_default(call_default_factory=True)))}`"
        )
        note = " *No effect on output.*" if is_side_effect_only(field) else ""
        meaning = (field.description or "").replace("|", "\\|")
        rows.append(f"| `{prefix}{name}` | {default} | {meaning}{note} |")
    return rows


def plain(value: object) -> object:
    """Return a default as JSON can hold it."""
    if isinstance(value, Settings):
        return value.model_dump(mode="json")
    return list(value) if isinstance(value, tuple) else value


def cli_page() -> str:
    """Return the page of all commands."""
    root = typer.main.get_command(app)
    parts = [
        "# Commands",
        "",
        "Exit codes: 0 done, 1 failed, 2 the user's mistake, 3 stopped and resumable, 4 storage, 5 diverged,",
    ]
    parts += ["6 out of memory, 130 Ctrl-C. Results go to standard output, progress and errors to standard error."]
    for name, command in commands("caslon", root):
        context = typer.Context(command, info_name=name, terminal_width=100, max_content_width=100)
        parts += ["", f"## {name}", "", "```text", command.get_help(context).rstrip(), "```"]
    return "\n".join(parts) + "\n"


def commands(prefix: str, group: Any) -> list[tuple[str, Any]]:
    """Return all commands below a group with their full names."""
    found: list[tuple[str, Any]] = []
    for name, command in group.commands.items():
        full = f"{prefix} {name}"
        found += commands(full, command) if hasattr(command, "commands") else [(full, command)]
    return found


if __name__ == "__main__":
    sys.exit(main())
