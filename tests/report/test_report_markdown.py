from caslon.report.blocks import Chart, Charts, Code, Details, Fact, Facts, Notice, Page, Section, Series, Table, Text
from caslon.report.markdown import page_markdown


def test_a_page_as_markdown() -> None:
    chart = Chart("Speed", [Series("tok/s", [1.5, 2.5], ["a", "b"])], kind="bar", x_label="set-up")
    blocks = [
        Text("Words."),
        Code("x = 1", "source"),
        Notice("Look.", "warning"),
        Facts([Fact("tokens", 1234, "in all")]),
        Table(["name | id", "n"], [["a|b", 1], ["c\nd", None]], caption="Rows"),
        Charts([chart]),
        Details("More", [Text("Hidden.")]),
    ]
    assert page_markdown(Page("Title", "Under it", [Section("Part", blocks, "Intro.")], footer="End.")) == (
        "# Title\n\nUnder it\n\n## Part\n\nIntro.\n\nWords.\n\nsource\n\n```text\nx = 1\n```\n\n> **warning:** Look.\n\n"
        "- tokens: 1,234 in all\n\n*Rows*\n\n| name \\| id | n |\n| --- | --- |\n| a\\|b | 1 |\n| c d | – |\n\n"
        "### Speed\n\n| set-up | tok/s |\n| --- | --- |\n| a | 1.5 |\n| b | 2.5 |\n\n### More\n\nHidden.\n\nEnd.\n"
    )
