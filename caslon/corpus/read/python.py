"""Python source: turns a module into a document of code and one of the prose in its docstrings.

Both documents share a group, so they land in one split. The prose document carries every docstring with its qualified name
in `metadata["docstrings"]`, from which question and answer pairs are made. A module that is nothing but one dictionary of
long texts (`pydoc_data.topics`) gives a prose document per text.
"""

import ast
import inspect
import re
import warnings
from collections.abc import Iterator
from pathlib import PurePosixPath

from caslon.corpus.document import Block, Reject
from caslon.corpus.read.code import code_facts
from caslon.corpus.read.reading import Extracted, ReadSettings, Source

PROSE_TIER = "general"
Named = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | Named


def read_python(source: Source, settings: ReadSettings) -> Iterator[Extracted | Reject]:
    """Yield the code, then the docstrings when there are any; source that does not parse is code all the same."""
    tree = _parse(source.text)
    texts = _texts(tree) if tree else {}
    lines = _Lines(source.text)
    if texts:
        yield from (_text_document(name, node, lines, source) for name, node in texts.items())
        return
    yield _code_document(source, parses=tree is not None)
    if tree is not None:
        yield from _docstring_document(source, tree, lines)


def module_name(source: Source) -> str:
    """Return the dotted name of the module a path stands for: `json/__init__.py` is `json`."""
    path = PurePosixPath(source.origin.member or source.origin.path)
    parts = [*path.parts[:-1], path.stem]
    if parts[-1] in ("__init__", "__main__") and len(parts) > 1:
        parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(part for part in parts if part != "/")


def _parse(text: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old code has escapes that newer Python warns of
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _code_document(source: Source, *, parses: bool) -> Extracted:
    text = source.text
    return Extracted(
        blocks=(Block(text, 0, len(text)),),
        title=module_name(source),
        tier="code",
        group=_group(source),
        metadata={"language": "python", "parses": parses, **code_facts(text)},
    )


def _group(source: Source) -> str:
    return f"{source.origin.source}:{source.origin.address}"


def _docstring_document(source: Source, tree: ast.Module, lines: "_Lines") -> Iterator[Extracted]:
    module = module_name(source)
    blocks: list[Block] = []
    docstrings: list[list[str]] = []
    for name, node, literal in _documented(tree, module):
        text = inspect.cleandoc(str(literal.value)).strip()
        if not text:
            continue
        docstrings.append([name, text])
        start, end = lines.range_of(literal)
        blocks.append(Block(_heading(name, node), *_heading_range(node, lines, start)))
        blocks += [Block(part, start, end) for part in _paragraphs(text)]
    if blocks:
        yield Extracted(
            blocks=tuple(blocks),
            title=f"{module}: documentation",
            tier=PROSE_TIER,
            record="docstrings",
            group=_group(source),
            metadata={"docstrings": docstrings, "module": module},
        )


def _documented(tree: ast.Module, module: str) -> Iterator[tuple[str, Documented, ast.Constant]]:
    """Yield `(qualified name, node, docstring)` in the order of the source, without recursion."""
    waiting: list[tuple[str, ast.AST]] = [(module, tree)]
    while waiting:
        name, node = waiting.pop()
        if isinstance(node, Documented):
            literal = _docstring(node)
            if literal is not None:
                yield name, node, literal
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue  # nobody can reach what is defined inside a function
        children = [
            (f"{name}.{child.name}" if isinstance(child, Named) else name, child)
            for child in ast.iter_child_nodes(node)
            if isinstance(child, Named | ast.If | ast.Try | ast.With)
        ]
        waiting += reversed(children)


def _docstring(node: Documented) -> ast.Constant | None:
    first = node.body[0] if node.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return first.value
    return None


def _heading(name: str, node: Documented) -> str:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        try:
            return f"{name}({ast.unparse(node.args)})"
        except RecursionError:
            return f"{name}(...)"
    return name


def _heading_range(node: Documented, lines: "_Lines", docstring_start: int) -> tuple[int, int]:
    if isinstance(node, ast.Module):
        return 0, 0
    start = lines.offset(node.lineno, node.col_offset)
    body = lines.offset(node.body[0].lineno, 0)
    return start, max(start, min(body, docstring_start))


def _paragraphs(text: str) -> list[str]:
    return [part.strip("\n") for part in re.split(r"\n[ \t]*\n", text) if part.strip()]


def _texts(tree: ast.Module) -> dict[str, ast.Constant]:
    """Return the entries of the module's one dictionary of long texts, if it is such a module."""
    body = [node for node in tree.body if not isinstance(node, ast.Expr)]
    if len(body) != 1 or not isinstance(body[0], ast.Assign) or not isinstance(body[0].value, ast.Dict):
        return {}
    found: dict[str, ast.Constant] = {}
    for key, value in zip(body[0].value.keys, body[0].value.values, strict=True):
        if not (isinstance(key, ast.Constant) and isinstance(value, ast.Constant) and isinstance(value.value, str)):
            return {}
        found[str(key.value)] = value
    long = sum(len(str(value.value)) > 200 for value in found.values())
    return found if len(found) >= 5 and long > 0.5 * len(found) else {}


def _text_document(name: str, node: ast.Constant, lines: "_Lines", source: Source) -> Extracted:
    start, end = lines.range_of(node)
    blocks = tuple(Block(part, start, end) for part in _paragraphs(inspect.cleandoc(str(node.value))))
    return Extracted(
        blocks=blocks, title=name, tier=PROSE_TIER, record=name, group=_group(source), metadata={"language": "en"}
    )


class _Lines:
    """Turns the line and UTF-8 column of a syntax node into an offset in the text."""

    def __init__(self, text: str) -> None:
        self.lines = re.findall(r"[^\r\n]*(?:\r\n|\r|\n|$)", text)  # the lines Python counts
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))

    def offset(self, line: int, column: int) -> int:
        text = self.lines[line - 1]
        return self.starts[line - 1] + (
            column if text.isascii() else len(text.encode()[:column].decode(errors="ignore"))
        )

    def range_of(self, node: ast.expr) -> tuple[int, int]:
        end_line, end_column = node.end_lineno or node.lineno, node.end_col_offset or 0
        return self.offset(node.lineno, node.col_offset), self.offset(end_line, end_column)
