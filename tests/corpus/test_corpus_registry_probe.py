import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from caslon.corpus.registry_probe import Probe, objections, probe_path, probe_url, proposals
from caslon.corpus.settings import CollectSettings
from caslon.errors import UserError

PAGE = b"<html><head><title> A Survey\n of <b>London</b></title></head><body><p>Ludgate</p></body></html>"
SETTINGS = CollectSettings(contact="a@example.org", allow_private=True, delay_seconds=0, tries=1)


class Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/robots.txt":
            self._answer(200, b"User-agent: *\nDisallow: /secret\n", "text/plain")
        elif self.path == "/page.html":
            self._answer(200, PAGE, "text/html; charset=utf-8")
        elif self.path == "/large.txt":
            assert self.headers["Range"] == "bytes=0-65535"
            self._answer(206, (b"a word " * 9363)[:65_536], "text/plain", {"Content-Range": "bytes 0-65535/9000000"})
        else:
            self._answer(404, b"", "text/plain")

    def _answer(self, status: int, body: bytes, kind: str, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_page_is_looked_at_and_described(site: str) -> None:
    url = f"{site}/page.html"
    probe = probe_url(url, SETTINGS)
    assert (probe.allowed, probe.content_type, probe.size_bytes, probe.sample) == (True, "text/html", len(PAGE), PAGE)
    assert proposals(url, probe) == {
        "location": url, "collector": "web", "formats": ["html"], "title": "A Survey of London", "status": "verified",
        "id": "a-survey-of-london",
    }  # fmt: skip
    assert objections(probe, 10**6) == []


def test_only_the_beginning_of_a_large_file_is_asked_for(site: str) -> None:
    probe = probe_url(f"{site}/large.txt", SETTINGS)
    assert (len(probe.sample), probe.size_bytes) == (65_536, 9_000_000)
    assert any("too_large" in words for words in objections(probe, 10**6))


def test_what_robots_forbid_is_proposed_disabled(site: str) -> None:
    probe = probe_url(f"{site}/secret/a.txt", SETTINGS)
    assert (probe.allowed, probe.sample) == (False, b"")
    assert proposals(probe.address, probe)["enabled"] is False
    assert any("robots_denied" in words for words in objections(probe, 10**6))


def test_no_answer_and_no_contact_are_user_errors(site: str) -> None:
    with pytest.raises(UserError, match="404"):
        probe_url(f"{site}/nothing", SETTINGS)
    with pytest.raises(UserError, match="contact"):
        probe_url(f"{site}/page.html", CollectSettings())


def test_local_files_and_folders_need_no_network(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    probe = probe_path(tmp_path / "rows.jsonl")
    assert probe.size_bytes == 28
    found = proposals("rows.jsonl", probe)
    assert (found["id"], found["collector"], found["formats"]) == ("rows", "rows", ["jsonl"])
    assert proposals("texts", probe_path(tmp_path))["collector"] == "folder"
    (tmp_path / "picture.txt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99))
    assert any("unknown_type" in words for words in objections(probe_path(tmp_path / "picture.txt"), 10**6))


@pytest.mark.parametrize(
    ("location", "collector", "name"),
    [
        ("https://www.oldbaileyonline.org", "old_bailey", "oldbaileyonline-org"),
        ("https://archive.org", "internet_archive", "archive-org"),
        ("https://example.org/stow.txt", "web", "stow"),
    ],
)
def test_known_places_have_their_collectors(location: str, collector: str, name: str) -> None:
    found = proposals(location, None)
    assert (found["collector"], found["id"]) == (collector, name)
    assert ("licence" in found) == (collector == "old_bailey")


def test_identifiers_keep_the_collector_they_are_given_for() -> None:
    found = proposals("730", None, "gutenberg")
    assert (found["collector"], found["id"]) == ("gutenberg", "gutenberg-730")


def test_ocr_text_of_the_internet_archive_is_known_by_its_name() -> None:
    address = "https://archive.org/download/x/x_djvu.txt"
    assert proposals(address, Probe(address, sample=b"Some words of text.\n"))["ocr"] is True
