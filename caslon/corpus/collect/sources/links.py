"""HTML pages and sitemaps: turns them into the addresses they name, and a page into the part a selector picks."""

import re
from typing import Any
from urllib.parse import urljoin, urlsplit

SITEMAP_START = re.compile(rb"\s*(?:<\?xml[^>]*\?>\s*)?(?:<!--.*?-->\s*)*<(?:\w+:)?(urlset|sitemapindex)\b", re.DOTALL)


def links_of(page: bytes, url: str) -> list[str]:
    """Return the http addresses a page links to, absolute, in order, each once; links marked `nofollow` are left out."""
    tree = _tree(page)
    if tree is None:
        return []
    bases = tree.xpath("//base/@href")
    base = urljoin(url, str(bases[0])) if bases else url
    found = []
    for link in tree.iter("a"):
        if link.get("href") and "nofollow" not in (link.get("rel") or "").lower().split():
            found.append(urljoin(base, link.get("href").strip()))
    return list(dict.fromkeys(target for target in found if urlsplit(target).scheme in ("http", "https")))


def canonical_link(page: bytes, url: str) -> str:
    """Return the address a page gives as its own (`<link rel="canonical">`), or the one it was found at."""
    tree = _tree(page)
    found = [] if tree is None else tree.xpath("//link[translate(@rel, 'CANOIL', 'canoil') = 'canonical']/@href")
    return urljoin(url, str(found[0])) if found else url


def sitemap_addresses(data: bytes) -> tuple[str, list[str]] | None:
    """Return `(kind, addresses)` of a sitemap, kind `urlset` or `sitemapindex` (sitemaps.org); None for anything else."""
    from lxml import etree

    found = SITEMAP_START.match(data)
    if found is None:
        return None
    parser = etree.XMLParser(resolve_entities=False, no_network=True, recover=True)
    root = etree.fromstring(data, parser)
    return found[1].decode(), [(element.text or "").strip() for element in root.iter("{*}loc") if element.text]


def selected(page: bytes, selector: str) -> bytes | None:
    """Return the elements a CSS selector picks, as HTML with the page's title; None when it picks nothing."""
    from lxml import etree, html

    tree = _tree(page)
    picked = [] if tree is None else tree.xpath(css_path(selector))
    if tree is None or not picked:
        return None
    title = html.Element("title")
    title.text = tree.findtext(".//title") or ""
    head = etree.tostring(title, encoding="unicode")
    body = "\n".join(html.tostring(element, encoding="unicode", with_tail=False) for element in picked)
    return f'<html><head><meta charset="utf-8">{head}</head><body>\n{body}\n</body></html>\n'.encode()


def css_path(selector: str) -> str:
    """Return the XPath of a CSS selector of tags, `#id`, `.class`, `[name=value]`, descendants, `>` and commas.

    Raises ValueError for anything beyond that.
    """
    return " | ".join(_one_path(one.strip()) for one in selector.split(","))


def _one_path(selector: str) -> str:
    path, axis = "", "//"
    for word in re.sub(r"\s*>\s*", " > ", selector).split():
        if word == ">":
            axis = "/"
            continue
        path += axis + _step(word)
        axis = "//"
    if not path or axis == "/":
        raise ValueError(f"'{selector}' is no CSS selector that is understood")
    return path


def _step(word: str) -> str:
    found = re.fullmatch(r"(\*|[A-Za-z][\w-]*)?((?:[#.][\w-]+|\[[\w-]+(?:=(?:\"[^\"]*\"|'[^']*'|[\w-]+))?\])*)", word)
    if found is None:
        raise ValueError(f"'{word}' is no part of a CSS selector that is understood")
    step = (found[1] or "*").lower()
    for test in re.findall(r"[#.][\w-]+|\[[^\]]+\]", found[2]):
        step += _test(test)
    return step


def _test(test: str) -> str:
    if test.startswith("#"):
        return f'[@id="{test[1:]}"]'
    if test.startswith("."):
        return f'[contains(concat(" ", normalize-space(@class), " "), " {test[1:]} ")]'
    name, _, value = test[1:-1].partition("=")
    value = value.strip("\"'")
    return f'[@{name}="{value}"]' if value else f"[@{name}]"


def _tree(page: bytes) -> Any:
    from lxml import etree, html

    try:
        return html.document_fromstring(page, parser=html.HTMLParser(no_network=True))
    except (etree.ParserError, ValueError):
        return None  # an empty page
