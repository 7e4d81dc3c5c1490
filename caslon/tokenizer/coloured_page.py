"""A report page and coloured tokens to one HTML file.

The blocks of a report hold plain text, so the colours are put in afterwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

from caslon.folders import write_atomic
from caslon.report.page import Code, Page, page_html, write_page

_PLACE = "coloured-tokens-{number}-of-this-page"


@dataclass(frozen=True)
class Coloured:
    """Coloured tokens under a caption. `html` is markup whose texts are escaped."""

    caption: str
    html: str


def place_for(number: int) -> Code:
    """Return the block that the coloured tokens of this number take the place of."""
    return Code(_PLACE.format(number=number))


def write_coloured_page(path: Path, page: Page, coloured: Sequence[Coloured]) -> None:
    """Write the page with its coloured tokens to `path`, and its numbers, if it has any, as JSON beside it."""
    if page.numbers is not None:
        write_page(path, page)
    html = page_html(replace(page, numbers=None))
    for number, tokens in enumerate(coloured):
        figure = f"{tokens.html}<figcaption>{escape(tokens.caption)}</figcaption>"
        html = html.replace(f"<pre>{place_for(number).text}</pre>", figure, 1)
    write_atomic(path, html)
