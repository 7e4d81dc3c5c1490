"""What TEI says about a text: turns the editors' header and the Old Bailey's tags into titles, years and facts."""

import re
from typing import Any

YEAR = re.compile(r"(?<!\d)(1[0-9]\d\d|20\d\d)(?!\d)")
FACTS = {
    "offenceCategory": "offences", "offenceSubcategory": "offence_details", "verdictCategory": "verdicts",
    "verdictSubcategory": "verdict_details", "punishmentCategory": "punishments",
}  # fmt: skip


class TeiHeader:
    """Title, author and year, as the header is read."""

    def __init__(self) -> None:
        self._path: list[str] = []
        self._titles: list[list[str]] = []
        self._author: list[str] = []
        self._dates: dict[str, list[str]] = {"sourcedesc": [], "editionstmt": []}

    def start(self, name: str) -> None:
        """Open an element of the header."""
        self._path.append(name)
        if name == "title":
            self._titles.append([])

    def end(self) -> None:
        """Close the innermost element."""
        if self._path:
            self._path.pop()

    def text(self, text: str) -> None:
        """Take character data of the header."""
        path = self._path
        if "titlestmt" in path and "sourcedesc" not in path:
            if "title" in path:
                self._titles[-1].append(text)
            if "author" in path and "idno" not in path:
                self._author.append(text)
        if "date" in path:
            for part, dates in self._dates.items():
                if part in path:
                    dates.append(text)

    def title_text(self) -> str:
        """The first title."""
        return next((" ".join("".join(parts).split()) for parts in self._titles if "".join(parts).strip()), "")

    def metadata(self) -> dict[str, Any]:
        """The author, when one is named."""
        author = " ".join("".join(self._author).split())
        return {"author": author} if author else {}

    def year(self) -> int | None:
        """The year of print: the earliest of the source's dates, else of the edition's."""
        for dates in self._dates.values():
            years = [int(year) for date in dates for year in YEAR.findall(date)]
            if years:
                return min(years)
        return None


class OldBaileyRecord:
    """A paper, trial or front matter: its id, its kind and the facts that its `interp` tags hold."""

    def __init__(self, identifier: str, kind: str) -> None:
        self.id = identifier
        self.kind = kind
        self._date = ""
        self._facts: dict[str, list[str]] = {}
        self._names: dict[str, dict[str, str]] = {}  # of the accused, by tag id

    def interpret(self, inst: str, kind: str, value: str) -> None:
        """Take one `interp` tag."""
        if kind == "date":
            self._date = self._date or value
        elif kind in FACTS:
            self._add(FACTS[kind], value)
        elif "-defend" in inst and kind in ("given", "surname", "gender"):
            self._names.setdefault(inst, {})[kind] = value
            if kind == "gender":
                self._add("defendant_genders", value)

    def _add(self, fact: str, value: str) -> None:
        values = self._facts.setdefault(fact, [])
        if value not in values:
            values.append(value)

    def title(self) -> str:
        """Who was tried, or what it is."""
        if self.kind != "trialAccount":
            return f"{'Front matter' if self.kind == 'frontMatter' else self.kind}, {self.id}"
        people = [f"{name.get('given', '')} {name.get('surname', '')}".strip() for name in self._names.values()]
        return f"Trial of {', '.join(person.title() for person in people if person) or self.id}"

    def year(self) -> int | None:
        """The year of the session."""
        return int(self._date[:4]) if re.fullmatch(r"\d{8}", self._date) else None

    def metadata(self) -> dict[str, Any]:
        """Kind, date and facts."""
        date = {"date": self._date} if self._date else {}
        return {"record_kind": self.kind, **date, **self._facts}
