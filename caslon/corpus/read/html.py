"""HTML: turns a page or an e-book chapter into headings and paragraphs, without scripts, navigation, forms and notices.

One pattern finds the tags with their places, so each block knows its range in the source; Python's own parser gives the same
blocks and takes 1.8 times as long (measured on 6 MB of e-book chapters), lxml tells no places. E-books and Project Gutenberg
pages are taken whole; of other pages trafilatura says what the main text is and its choice is laid over our blocks, and
where it finds nothing blocks made of links go. A short page that only says "not found" is an error page.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator
from html import unescape

from caslon.corpus.document import Block, Reject
from caslon.corpus.read.blocks import LINE, SPACE, BlockBuilder
from caslon.corpus.read.gutenberg import body_range, is_credit
from caslon.corpus.read.reading import Extracted, ReadSettings, Source

STEP = "read"

DROPPED = frozenset(
    ("script", "style", "noscript", "template", "svg", "math", "nav", "form", "select", "button", "iframe", "object",
     "canvas", "video", "audio", "textarea", "dialog")
)  # fmt: skip
DROPPED_ON_PAGES = frozenset(("footer", "aside", "menu"))  # in e-books these hold signatures and asides of the author
BLOCKS = frozenset(
    ("html", "body", "p", "h1", "h2", "h3", "h4", "h5", "h6", "div", "section", "article", "main", "header", "footer",
     "aside", "blockquote", "pre", "ul", "ol", "dl", "table", "caption", "figure", "figcaption", "address", "hr", "center",
     "fieldset", "details", "summary", "thead", "tbody")
)  # fmt: skip
LINES = frozenset(("br", "li", "dt", "dd", "tr"))
SPACES = frozenset(("td", "th", "img"))
NUMBERED = frozenset(("span", "div", "p", "a"))  # elements that may hold the number of a page
RAW_TEXT = frozenset(("script", "style"))
# A comment, a declaration, or a tag: slash, name, attributes. Of an attribute whose quotes never close, the next `>` is the end.
TAG = re.compile(r"<!--.*?-->|<[!?][^>]*>|<(/?)([a-zA-Z][^\s/>]*)((?:[^>\"']|\"[^\"]*\"|'[^']*')*+|[^>]*)>", re.DOTALL)
CLASS = re.compile(r"\bclass\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s>]+)", re.IGNORECASE)
HREF = re.compile(r"\bhref\s*=\s*(?:\"[^\"]+\"|'[^']+'|[^\s>\"']+)", re.IGNORECASE)
PAGE_NUMBER = re.compile(r"\b(?:pagenum|pageno|page-?number|pginternal|linenum)\b", re.IGNORECASE)
BOOK = re.compile(
    r"project gutenberg|epub:type|standard ?ebooks|name=[\"']generator[\"'] content=[\"']Ebookmaker", re.IGNORECASE
)
ERROR = re.compile(
    r"(?:^|error )\W*(?:40[0-9]|410|429|50[0-4])\b|not found|page (?:does not|doesn't|no longer) exist|forbidden|access denied"
    r"|internal server error|service (?:temporarily )?unavailable|bad gateway|gateway time-?out|just a moment",
    re.IGNORECASE,
)
NOTICE = re.compile(
    r"\bcookies?\b.*\b(?:accept|agree|consent|settings|polic|use)|\b(?:use|accept)\b.*\bcookies?\b", re.IGNORECASE
)
OPEN_TAG = re.compile(r"<(?=[a-zA-Z/][^<>]*(?:<|$))")  # a tag that another one begins inside of, or the end
MAX_OPEN_TAGS = 200
NEVER_CLOSED = (("<!--", "-->"), ("<!", ">"), ("<?", ">"))
MAX_ERROR_CHARACTERS = 1_000
MAX_NOTICE_CHARACTERS = 300
MAX_LINK_SHARE = 0.6  # a block with more of its letters in links is navigation
MIN_MAIN_SHARE = 0.25  # less of the text found than this, and trafilatura's choice is not believed
CREDIT_BLOCKS = 12
NEAR_CHARACTERS = 10_000


def read_html(source: Source, settings: ReadSettings) -> Iterator[Extracted | Reject]:
    """Yield the one document of a page, or the reject of an error page."""
    text = source.text
    is_book = BOOK.search(text[:20_000]) is not None or body_range(text) != (0, len(text))
    page = _Page(text, is_book=is_book)
    blocks = page.blocks()
    title = " ".join("".join(page.title).split())
    if _is_error(title, blocks):
        reason = f"a short page that says '{(title or blocks[0].text)[:80]}'"
        yield Reject(source.origin, STEP, "error_page", reason, text, 0, len(text))
        return
    blocks = _without_gutenberg(text, blocks)
    blocks = [block for block in blocks if page.link_share(block) <= MAX_LINK_SHARE]
    if not is_book:
        blocks = _main_text(text, [block for block in blocks if not _is_notice(block.text)])
    yield Extracted(blocks=tuple(blocks), title=title)


def book_blocks(text: str) -> list[Block]:
    """Return the blocks of one chapter of an e-book."""
    page = _Page(text, is_book=True)
    return [block for block in _without_gutenberg(text, page.blocks()) if page.link_share(block) <= MAX_LINK_SHARE]


def _is_error(title: str, blocks: list[Block]) -> bool:
    if sum(len(block.text) for block in blocks) > MAX_ERROR_CHARACTERS:
        return False
    return any(ERROR.search(text) for text in (title, *(block.text for block in blocks[:2])) if len(text) < 200)


def _is_notice(text: str) -> bool:
    return len(text) < MAX_NOTICE_CHARACTERS and NOTICE.search(text) is not None


def _without_gutenberg(text: str, blocks: list[Block]) -> list[Block]:
    start, end = body_range(text)
    kept = [block for block in blocks if block.start >= start and block.end <= end]
    if start > 0:
        kept = [block for at, block in enumerate(kept) if at >= CREDIT_BLOCKS or not is_credit(block.text)]
    return kept


def _main_text(text: str, blocks: list[Block]) -> list[Block]:
    """Return the blocks trafilatura takes for the main text; all of them when it finds too little to be believed."""
    if len(blocks) < 3:
        return blocks
    import trafilatura

    main = trafilatura.extract(text, include_comments=False, include_tables=True, favor_recall=True, deduplicate=False)
    known = _letters(main or "")
    reached = [0]
    kept = [block for block in blocks if _occurs(_beginning(block.text), known, reached)]
    share = sum(len(block.text) for block in kept) / max(1, sum(len(block.text) for block in blocks))
    return kept if share >= MIN_MAIN_SHARE else blocks


def _occurs(words: str, known: str, reached: list[int]) -> bool:
    """Return whether `known` holds the words; looked for first where the block before was found, for the order is the same."""
    at = known.find(words, reached[0], reached[0] + NEAR_CHARACTERS)
    if at < 0:
        at = known.find(words)
    if at >= 0:
        reached[0] = at
    return at >= 0


def _beginning(text: str) -> str:
    return (_letters(text[:400]) if len(text) > 400 else _letters(text))[:80]


def _letters(text: str) -> str:
    return re.sub(r"\W+", "", text).lower()


def _closable(text: str) -> str:
    """Blank out what opens and never closes: the parser would look through the rest of the page for each end."""
    for opener, closer in NEVER_CLOSED:
        end = text.rfind(closer) + 1
        text = text[:end] + text[end:].replace(opener, " " * len(opener))
    if len(OPEN_TAG.findall(text)) > MAX_OPEN_TAGS:
        text = OPEN_TAG.sub(" ", text)
    return text


class _Page:
    """One page on its way: collects blocks with places, the title, and how much of each is links."""

    def __init__(self, text: str, *, is_book: bool) -> None:
        self.title: list[str] = []
        self._text = _closable(text)
        self._lower = self._text.lower() if len(self._text.lower()) == len(text) else self._text
        self._builder = BlockBuilder()
        self._dropped_names = DROPPED if is_book else DROPPED | DROPPED_ON_PAGES
        self._dropped = ""  # name of the element being dropped
        self._depth = 0  # open elements of that name
        self._in_title = self._in_head = False
        self._links = 0  # open links
        self._preformatted = 0
        self._places: list[int] = []  # of each piece of text
        self._letters = [0]  # letters in all pieces before
        self._linked = [0]  # of these, letters in links

    def blocks(self) -> list[Block]:
        """Parse the page and return its blocks."""
        text = self._text
        at = 0
        while tag := TAG.search(text, at):
            if tag.start() > at:
                self._data(text[at : tag.start()], at)
            at = tag.end()
            if tag[2]:
                name = tag[2].lower()
                if tag[1]:
                    self._end(name, tag.start())
                else:
                    self._start(name, tag[3], tag.start())
                    at = self._after_raw_text(name, at)
        if at < len(text):
            self._data(text[at:], at)
        self._builder.border(len(text))
        return self._builder.blocks

    def link_share(self, block: Block) -> float:
        """Return how much of a block's text stands in links."""
        first, after = bisect_left(self._places, block.start), bisect_left(self._places, block.end)
        letters = self._letters[after] - self._letters[first]
        return (self._linked[after] - self._linked[first]) / letters if letters else 0.0

    def _after_raw_text(self, name: str, at: int) -> int:
        """In a script or style sheet no tag counts but its own end; return where that begins."""
        if name not in RAW_TEXT:
            return at
        end = self._lower.find(f"</{name}", at)
        if end < 0:
            end = len(self._text)
        if end > at:
            self._data(self._text[at:end], at)
        return end

    def _start(self, name: str, attributes: str, place: int) -> None:
        if self._dropped:
            self._depth += name == self._dropped and not attributes.endswith("/")
            return
        if name in ("head", "title"):
            self._in_head = self._in_head or name == "head"
            self._in_title = name == "title"
        elif name == "body":
            self._in_head = self._in_title = False
        if not attributes.endswith("/"):
            if self._is_dropped(name, attributes, place):
                self._dropped, self._depth = name, 1
            elif name == "a" and HREF.search(attributes):
                self._links += 1
        self._shape(name, place, opens=True)

    def _end(self, name: str, place: int) -> None:
        if self._dropped:
            self._depth -= name == self._dropped
            if not self._depth:
                self._dropped = ""
            return
        if name == "head":
            self._in_head = self._in_title = False
        elif name == "title":
            self._in_title = False
        elif name == "a":
            self._links = max(0, self._links - 1)
        self._shape(name, place, opens=False)

    def _data(self, data: str, place: int) -> None:
        if self._dropped:
            return
        if "&" in data:
            data = unescape(data)
        if self._in_title:
            self.title.append(data)
        if self._in_head or self._in_title:
            return
        letters = len(data.strip())
        if letters:
            self._places.append(place)
            self._letters.append(self._letters[-1] + letters)
            self._linked.append(self._linked[-1] + (letters if self._links else 0))
        if LINE in data or SPACE in data:
            data = data.replace(LINE, "").replace(SPACE, "")
        self._builder.add(data.replace("\n", LINE).replace(" ", SPACE) if self._preformatted else data)

    def _is_dropped(self, name: str, attributes: str, place: int) -> bool:
        is_named = name in self._dropped_names
        if not is_named and not (name in NUMBERED and attributes and self._is_page_number(attributes)):
            return False
        # Without an end tag the rest of the page would go with it.
        return self._lower.find(f"</{name}", place) >= 0

    @staticmethod
    def _is_page_number(attributes: str) -> bool:
        found = CLASS.search(attributes)
        return found is not None and PAGE_NUMBER.search(found[0]) is not None and not HREF.search(attributes)

    def _shape(self, name: str, place: int, *, opens: bool) -> None:
        if name == "pre":
            self._preformatted = max(0, self._preformatted + (1 if opens else -1))
        if name in BLOCKS:
            self._builder.border(place)
        elif name in LINES:
            self._builder.line()
        elif name in SPACES or name in DROPPED:
            self._builder.space()
