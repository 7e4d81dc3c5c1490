import pytest

from caslon.corpus.document import Document, Reject
from caslon.corpus.read import raw_text, read

PAGE = """<!DOCTYPE html>
<html><head><title>The Plague &amp; the Fire</title><style>p {color: red}</style><script>var a = "<p>no</p>";</script></head>
<body>
<nav><a href="/">Home</a> | <a href="/about">About us</a></nav>
<form><p>Subscribe</p><input name="x"><button>Go</button></form>
<article><h1>The Plague of London</h1>
<p>It was about the beginning of September, 1664, that I, among the <b>rest</b> of my neighbours,
heard in ordinary discourse that the plague was returned again in Holland.</p>
<p>We had no such thing as printed newspapers in those days to spread rumours and reports of things, and to improve
them by the invention of men, as I have lived to see practised since.<br>But such things were gathered from letters.</p>
<ul><li>First item</li><li>Second item</li></ul>
</article>
<p>We use cookies to improve our service. Accept all.</p>
<footer><p>(c) 2024 Example Ltd</p></footer>
<noscript>Enable JavaScript</noscript></body></html>"""

BOOK = """<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops"><head><title>XIX</title></head>
<body epub:type="bodymatter"><section><header><h2>XIX</h2><p epub:type="se:bridgehead">A description.</p></header>
<p>The house where we were to be entertained lay<span class="pagenum">[Pg 12]</span> at a small distance.</p>
<blockquote><p>Sir,</p><footer><p>Your servant</p></footer></blockquote>
<pre>A poem of
    two lines</pre><p><a href="#n1">Next chapter</a></p></section></body></html>"""


def test_main_text_stays_and_page_furniture_goes(make_raw) -> None:
    (document,) = read(make_raw(PAGE, "page.html"))
    assert isinstance(document, Document)
    assert document.title == "The Plague & the Fire"
    text = document.text
    assert text.startswith(
        "The Plague of London\n\nIt was about the beginning of September, 1664, that I, among the rest of"
    )
    assert "practised since.\nBut such things" in text
    assert "First item\nSecond item" in text
    for gone in ("var a", "Home", "Subscribe", "cookies", "2024", "JavaScript", "color", "Plague & the Fire", "Go"):
        assert gone not in text


def test_blocks_know_their_place(make_raw) -> None:
    raw = make_raw(PAGE.replace("September", "Septémber"), "page.html")
    (document,) = read(raw)
    assert isinstance(document, Document)
    for block in document.blocks:
        passage = raw_text(raw)[block.start : block.end]
        assert block.text.split()[0] in passage
        assert block.text.split()[-1] in passage


def test_ebook_chapter_is_taken_whole_but_for_page_numbers_and_links(make_raw) -> None:
    (document,) = read(make_raw(BOOK, "chapter.xhtml"))
    assert [block.text for block in document.blocks] == [
        "XIX", "A description.", "The house where we were to be entertained lay at a small distance.", "Sir,", "Your servant",
        "A poem of\n    two lines",
    ]  # fmt: skip


def test_gutenberg_wrapping_of_a_page_is_cut(make_raw) -> None:
    page = (
        "<html><body><pre>The Project Gutenberg EBook of X\n*** START OF THIS PROJECT GUTENBERG EBOOK X ***\n</pre>"
        "<p>Produced by Jane Doe</p><h1>X</h1><p>It was night.</p>"
        "<pre>End of the Project Gutenberg EBook of X\n*** END OF THIS PROJECT GUTENBERG EBOOK X ***\nlicence</pre></body></html>"
    )
    (document,) = read(make_raw(page, "x.htm"))
    assert document.text == "X\n\nIt was night."


@pytest.mark.parametrize("title", ["404 Not Found", "Error 503", "Access denied", "Page not found - Example"])
def test_error_pages_are_rejected(make_raw, title: str) -> None:
    (reject,) = read(
        make_raw(f"<html><head><title>{title}</title></head><body><h1>Sorry</h1><p>Try again.</p></body></html>")
    )
    assert isinstance(reject, Reject)
    assert reject.code == "error_page"


def test_a_chapter_of_404_words_is_no_error_page(make_raw) -> None:
    page = PAGE.replace("The Plague &amp; the Fire", "404").replace(
        "<ul>", "<p>" + "The plague went on. " * 40 + "</p><ul>"
    )
    (document,) = read(make_raw(page, "page.html"))
    assert isinstance(document, Document)


def test_unclosed_navigation_does_not_take_the_page_with_it(make_raw) -> None:
    (document,) = read(
        make_raw("<html><body><nav><a href='/'>Home</a><p>It was a dark night in old London.</p></body></html>")
    )
    assert "dark night" in document.text


def test_words_are_not_glued(make_raw) -> None:
    (document,) = read(
        make_raw("<html><body><table><tr><td>St. Alban</td><td>200</td></tr><tr><td>St. Anne</td></tr></table>")
    )
    assert document.text == "St. Alban 200\nSt. Anne"


@pytest.mark.parametrize(
    "piece", ["<", "<a ", "<!--", "</p", "<p><b>", "&#x110000;", "<!DOCTYPE [", "<pre>", "<![CDATA["]
)
def test_broken_markup_neither_raises_nor_stalls(make_raw, piece: str) -> None:
    list(read(make_raw("<html><body>" + piece * 50_000, "x.html")))
