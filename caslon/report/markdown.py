"""A `Page` as Markdown: the same words and figures, charts as the tables behind them."""

from collections.abc import Iterator, Sequence

from caslon.report.blocks import (
    Block,
    Chart,
    Charts,
    Code,
    Details,
    Facts,
    Notice,
    Page,
    Path,
    Samples,
    Table,
    Text,
    Value,
)
from caslon.report.charts import as_table
from caslon.report.numbers import readable


def page_markdown(page: Page) -> str:
    """Return the page as Markdown text."""
    parts = [f"# {page.title}", page.subtitle]
    for section in page.sections:
        parts += [f"## {section.title}", section.intro]
        parts += [part for block in section.blocks for part in _block(block)]
    return "\n\n".join(part for part in [*parts, page.footer] if part) + "\n"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Charts(charts):
            for chart in charts:
                yield from _flat(chart)
        case Details(summary, blocks):
            yield f"### {summary}"
            for inner in blocks:
                yield from _block(inner)
        case _:
            yield from _flat(block)


def _flat(block: Block) -> Iterator[str]:
    """Yield a block that holds no others."""
    match block:
        case Text(text):
            yield text
        case Code(text, caption):
            yield from filter(None, (caption, f"```text\n{text}\n```"))
        case Notice(text, level):
            yield f"> **{level}:** {text}"
        case Facts(facts):
            yield "\n".join(f"- {fact.label}: {readable(fact.value)} {fact.unit}".rstrip() for fact in facts)
        case Table():
            yield from _table(block)
        case Chart():
            yield f"### {block.title}"
            yield from _table(as_table(block))
        case Samples(samples):
            for sample in samples:
                yield f"**{sample.label}:** {sample.prompt}{sample.text}"
        case Path(steps):
            yield " → ".join(step.name for step in steps)


def _table(table: Table) -> Iterator[str]:
    if table.caption:
        yield f"*{table.caption}*"
    head = [_row(table.columns), _row(["---"] * len(table.columns))]
    yield "\n".join([*head, *(_row(row) for row in table.rows)])


def _row(cells: Sequence[Value]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(value: Value) -> str:
    return readable(value).replace("|", "\\|").replace("\n", " ")
