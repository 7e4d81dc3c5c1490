import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from caslon.report import page as page_module
from caslon.report.page import (
    Chart,
    Charts,
    Code,
    Details,
    Fact,
    Facts,
    Level,
    Notice,
    Page,
    PathStep,
    Samples,
    SampleText,
    Section,
    Series,
    Table,
    Text,
    page_html,
    write_page,
)
from caslon.report.page import Path as PathBlock

HOSTILE = (
    "</script><script>alert('x')</script><img src=http://evil.example/a.png onerror=alert(1)> \u2028 {{ 7*7 }} %{x}"
)


def everything(text: str) -> Page:
    chart = Chart(text, [Series(text, [1.0, 2.5, None], [0, 1, 2], unit=text)], levels=[Level(text, 1.5)], caption=text)
    bars = Chart(text, [Series(text, [3, 4], [text, "b"])], kind="bar", horizontal=True, x_label=text)
    blocks = [
        Text(text),
        Code(text, text),
        Notice(text, "warning"),
        Facts([Fact(text, text, text, text)]),
        Table([text, "n"], [[text, 1], ["b", None]], caption=text),
        chart,
        Charts([bars]),
        Samples([SampleText(text, text, text), SampleText("2", "p", "t")], slider_label=text),
        PathBlock([PathStep(text, [(text, 12345)], note=text), PathStep("later", missing=True)]),
        Details(text, [Text(text), chart]),
    ]
    return Page(text, text, [Section(text, blocks, intro=text)], footer=text, numbers={"value": 1.25})


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: list[str] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        (
            self.scripts if self.tags and self.tags[-1][0] == "script" and "plotly" not in data[:200] else self.data
        ).append(data)


def parsed(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    return tags


@pytest.fixture(scope="module")
def hostile() -> str:
    return page_html(everything(HOSTILE))


def test_page_asks_nothing_from_outside(hostile):
    for tag, attributes in parsed(hostile).tags:
        assert tag not in ("link", "iframe", "img", "object", "embed", "base", "form")
        assert not {"src", "srcset", "action"} & set(attributes)
        assert (attributes.get("href") or "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
    assert "default-src 'none'" in hostile
    css = (Path(page_module.__file__).parent / "page.css").read_text()
    assert "url(" not in css
    assert "@import" not in css


def test_hostile_text_stays_text(hostile):
    tags = parsed(hostile)
    scripts = [attributes.get("type") for tag, attributes in tags.tags if tag == "script"]
    assert scripts == ["application/json"] * 3 + [None, None]  # three charts, plotly, our own
    assert "{{ 7*7 }}" in hostile
    assert "&lt;/script&gt;&lt;script&gt;alert" in hostile


def test_chart_data_is_escaped_for_plotly_too(hostile):
    charts = re.findall(r'<script type="application/json">(.*?)</script>', hostile, re.S)
    figure = json.loads(charts[0])
    assert "<" not in figure["data"][0]["name"]
    assert figure["data"][0]["y"] == [1.0, 2.5, None]
    assert figure["layout"]["meta"]["levels"][0]["value"] == 1.5


def test_page_is_the_same_every_time_and_writes_its_numbers(tmp_path):
    page = everything("plain")
    write_page(tmp_path / "report.html", page)
    first = (tmp_path / "report.html").read_bytes()
    write_page(tmp_path / "report.html", page)
    assert (tmp_path / "report.html").read_bytes() == first
    assert json.loads((tmp_path / "report.json").read_text()) == {"value": 1.25}


def test_a_page_without_charts_does_not_carry_plotly():
    html = page_html(Page("t", "s", [Section("a", [Text("b")])]))
    assert len(html) < 40_000
    assert html.count("<script>") == 1


def test_numbers_stand_in_their_columns():
    table = Table(["name", "count", "mixed"], [["a", 1234567, 1], ["b", None, "x"]])
    assert page_module.numeric_columns(table) == [False, True, False]
    html = page_html(Page("t", "s", [Section("a", [table])]))
    assert '<td class="number">1,234,567</td>' in html
    assert '<td class="number">–</td>' in html


def test_headings_and_charts_can_be_read_aloud(hostile):
    tags = parsed(page_html(everything("plain"))).tags
    assert [tag for tag, _ in tags if tag in ("h1", "h2")] == ["h1", "h2"]
    assert ("html", {"lang": "en"}) in tags
    charts = [attributes for _, attributes in tags if (attributes.get("class") or "").startswith("chart")]
    assert charts
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in charts)


def test_samples_begin_at_the_wanted_label():
    texts = [SampleText(label, "p", f"text {label}") for label in ("0", "0.7", "1.3")]
    assert page_module.shown_group(Samples(texts, shown="0.7")) == 1
    assert page_module.shown_group(Samples(texts)) == 2
    html = page_html(Page("t", "s", [Section("a", [Samples(texts, shown="0.7")])]))
    assert re.findall(r'data-label="([\d.]+)"( hidden)?', html) == [("0", " hidden"), ("0.7", ""), ("1.3", " hidden")]
