import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from caslon.corpus.chat.slack import PAUSE_SECONDS, persona_rows, read_export
from caslon.corpus.chat.validate import row_problem
from caslon.errors import UserError

START = 1_700_000_000


def said(user: str, text: str, second: int, **fields: Any) -> dict[str, Any]:
    return {"type": "message", "user": user, "text": text, "ts": f"{START + second}.000100", **fields}


DAY = [
    said("UADA", "Morning all", 0),
    said("UBOB", "Is the <https://example.org/build|build> green, <@UADA>?", 10),
    said("UCAT", "I did not agree to this", 15),
    said("UADA", "Yes &amp; no", 20),
    said("UADA", "see <#C1|general>, ask <@UBOB> or <@UCAT>, <!here>", 25),
    said("UBOB", "thanks", 30),
    said("UBOT", "deployed", 31, bot_id="B1"),
    said("UADA", "joined", 32, subtype="channel_join"),
    said("UBOB", "Next day?", 40 + PAUSE_SECONDS),
    said("UADA", "Of course", 50 + PAUSE_SECONDS),
    said("UBOB", "A thread about lunch", 60 + PAUSE_SECONDS, thread_ts="9.5"),
    said("UADA", "Soup", 5 * PAUSE_SECONDS, thread_ts="9.5"),
]


@pytest.fixture
def export(tmp_path: Path) -> Path:
    path = tmp_path / "export.zip"
    users = [{"id": f"U{name.upper()}", "name": name} for name in ("ada", "bob", "cat", "bot")]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("users.json", json.dumps(users))
        archive.writestr("channels.json", json.dumps([{"name": "general"}]))
        archive.writestr("general/2023-11-14.json", json.dumps(DAY))
    return path


def contents(path: Path, persona: str, authors: list[str]) -> list[list[tuple[str, str]]]:
    rows = list(persona_rows(read_export(path, authors), persona, source="slack"))
    assert all(row_problem(row) is None for row in rows)
    assert all(row["source"] == "slack" and row["extra"]["conversation"].startswith("general/") for row in rows)
    return [[(message["role"], message["content"]) for message in row["messages"]] for row in rows]


def test_others_ask_and_the_persona_answers(export: Path) -> None:
    assert contents(export, "ada", ["ada", "UBOB"]) == [
        [("user", "A thread about lunch"), ("assistant", "Soup")],
        [
            ("user", "Is the build green, [PERSON_1]?"),
            ("assistant", "Yes & no\nsee #general, ask [PERSON_2] or [PERSON_3], @here"),
        ],
        [("user", "Next day?"), ("assistant", "Of course")],
    ]


def test_only_people_who_agreed_appear(export: Path) -> None:
    found = read_export(export, ["ada", "bob"])
    assert {message.author for message in found.messages} == {"UADA", "UBOB"}
    assert found.left_out == {"without consent": 1, "bots": 1, "events": 1}
    assert contents(export, "ada", ["ada"]) == []
    assert contents(export, "bob", ["ada", "bob"])[0] == [
        ("user", "Morning all"),
        ("assistant", "Is the build green, [PERSON_1]?"),
        ("user", "Yes & no\nsee #general, ask [PERSON_2] or [PERSON_3], @here"),
        ("assistant", "thanks"),
    ]


def test_a_folder_is_read_like_its_zip(export: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(export) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert contents(tmp_path / "unpacked", "ada", ["ada", "bob"]) == contents(export, "ada", ["ada", "bob"])


def test_mistakes_are_named(export: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nobody is on the list"):
        read_export(export, [])
    with pytest.raises(UserError, match="no user dan"):
        read_export(export, ["ada", "dan"])
    (tmp_path / "no.zip").write_bytes(b"no zip")
    with pytest.raises(UserError, match="not a Slack export"):
        read_export(tmp_path / "no.zip", ["ada"])
