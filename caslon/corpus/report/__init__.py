"""What a corpus holds, for people: `report.html`, its numbers in `report.json`, and the data card `README.md`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from caslon.corpus.pipeline import Totals
from caslon.corpus.registry import SourceEntry
from caslon.corpus.report.card import data_card
from caslon.corpus.report.numbers import numbers_of, warnings_of
from caslon.corpus.report.page import page_of
from caslon.corpus.report.survey import survey
from caslon.corpus.settings import CorpusSettings
from caslon.corpus.truth import truth
from caslon.corpus.workers import Workers
from caslon.folders import write_atomic
from caslon.report.page import write_page

__all__ = ["data_card", "numbers_of", "warnings_of", "write_report"]

CARD_FILE = "README.md"
REPORT_FILE = "report.html"


def write_report(
    corpus_folder: Path,
    entries: Sequence[SourceEntry],
    settings: CorpusSettings,
    totals: Totals,
    seconds: float | None = None,
    workers: Workers | None = None,
) -> dict[str, Any]:
    """Write page, numbers and card below a corpus folder, and return the numbers."""
    found = survey(corpus_folder, workers or Workers(1))
    beside = truth(corpus_folder, entries, settings.languages)
    numbers = numbers_of(totals, found, entries, settings, beside, seconds)
    write_atomic(corpus_folder / CARD_FILE, data_card(entries, settings, numbers))
    write_page(corpus_folder / REPORT_FILE, page_of(found, numbers))
    return numbers
