"""The client, the guard and the store against a server that misbehaves."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from caslon.corpus.collect import address
from caslon.corpus.collect.collector import Item
from caslon.corpus.collect.fetch import Budget, BudgetSpent, Fetcher
from caslon.corpus.collect.http import Client
from caslon.corpus.collect.problem import ItemProblem
from caslon.corpus.collect.robots import Robots
from caslon.corpus.collect.store import Store
from caslon.corpus.registry_entry import SourceEntry
from caslon.corpus.settings import CollectSettings
from caslon.errors import StorageError, UserError
from tests.corpus.loopback_server import FakeTime, Loopback, Reply, serving

TEXT = b"In the reign of King Charles the plague came to London.\n" * 400
SETTINGS = CollectSettings(contact="tests@example.org", allow_private=True, delay_seconds=0.0)
ENTRY = SourceEntry("letters", "http://example.org/", collector="web", licence="CC0-1.0", allowed_use="any")


@pytest.fixture
def server() -> Iterator[Loopback]:
    with serving() as loopback:
        yield loopback


class Desk:
    """A fetcher with a clock of its own, over a store in a folder."""

    def __init__(self, folder: Path, settings: CollectSettings = SETTINGS, **options: object) -> None:
        self.time = FakeTime()
        self.store = Store(folder)
        self.client = Client(settings, sleep=self.time.sleep, clock=self.time.clock, now=lambda: 1_000_000.0, **options)
        self.budget = Budget()
        self.fetcher = Fetcher(self.store, settings, lambda: self.client, budget=self.budget, now=lambda: 1_000_000.0)

    def get(self, url: str, path: str = "a.txt", **options: object) -> bytes:
        return self.store.read(self.fetcher.file(Item(ENTRY, path, url, **options)))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "raw")


def reason_of(desk: Desk, url: str, **options: object) -> tuple[str, str]:
    with pytest.raises(ItemProblem) as caught:
        desk.get(url, **options)
    return caught.value.code, caught.value.reason


# --- patience ----------------------------------------------------------------------------------------------------------


def test_503_twice_is_waited_out_with_growing_jittered_pauses(server: Loopback, tmp_path: Path) -> None:
    url = server.reply("/a", Reply(status=503), Reply(status=503), Reply(TEXT))
    desk = Desk(tmp_path, chance=lambda: 1.0)
    assert desk.get(url) == TEXT
    assert desk.time.slept == [2.0, 4.0]
    assert server.asked[-1].headers["user-agent"].endswith("(+tests@example.org)")


def test_pauses_lie_between_1_and_60_seconds(tmp_path: Path) -> None:
    for chance in (0.0, 0.5, 1.0):
        client = Desk(tmp_path, chance=lambda chance=chance: chance).client
        waits = [client._backoff(number, None) for number in range(1, 21)]
        assert min(waits) >= 1.0 and max(waits) <= 60.0
        assert waits == sorted(waits)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_five_tries_are_made_for_what_may_pass(server: Loopback, desk: Desk, status: int) -> None:
    url = server.reply("/a", Reply(status=status))
    code, reason = reason_of(desk, url)
    assert code == "fetch_failed" and str(status) in reason and "5 tries" in reason
    assert server.paths() == ["/a"] * 5


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418, 451])
def test_other_4xx_are_final(server: Loopback, desk: Desk, status: int) -> None:
    assert reason_of(desk, server.reply("/a", Reply(status=status)))[0] == "fetch_failed"
    assert server.paths() == ["/a"] and desk.time.slept == []


def test_retry_after_is_obeyed_as_seconds_and_as_date(server: Loopback, desk: Desk) -> None:
    late = Reply(status=503, headers={"retry-after": "Mon, 12 Jan 1970 13:47:00 GMT"})  # 20 s after the fake time
    url = server.reply("/a", Reply(status=429, headers={"retry-after": "7"}), late, Reply(TEXT))
    assert desk.get(url) == TEXT
    assert desk.time.slept == [7.0, 20.0]


def test_server_that_asks_for_hours_is_left_alone(server: Loopback, desk: Desk) -> None:
    url = server.reply("/a", Reply(status=429, headers={"retry-after": "86400"}))
    assert "86,400 s" in reason_of(desk, url)[1]
    assert server.paths() == ["/a"]


def test_one_request_a_second_for_each_host(server: Loopback, tmp_path: Path) -> None:
    desk = Desk(tmp_path, SETTINGS.model_copy(update={"delay_seconds": 1.0}))
    server.reply("/robots.txt", Reply(b"User-agent: *\nCrawl-delay: 3\n"))
    for number in range(3):
        desk.get(server.file(f"/{number}", TEXT), f"{number}.txt")
    assert desk.time.slept == [1.0, 3.0, 3.0]  # after robots.txt, then by its crawl-delay


def test_nothing_is_asked_without_a_contact(server: Loopback, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="contact") as caught:
        Client(CollectSettings(contact=" "))
    assert caught.value.exit_code == 2


# --- broken bodies -----------------------------------------------------------------------------------------------------


def test_cut_connection_goes_on_where_it_broke(server: Loopback, desk: Desk) -> None:
    url = server.file("/a", TEXT, '"one"')
    server.once("/a", Reply(TEXT, headers={"etag": '"one"'}, cut_after=9000))
    assert desk.get(url) == TEXT
    resumed = server.asked[-1]
    assert resumed.headers["range"] == "bytes=9000-" and resumed.headers["if-range"] == '"one"'
    assert resumed.sent_bytes == len(TEXT) - 9000


def test_file_that_changed_meanwhile_starts_anew(server: Loopback, desk: Desk) -> None:
    new = TEXT.replace(b"plague", b"comet!")
    url = server.reply(
        "/a", Reply(TEXT, headers={"etag": '"one"'}, cut_after=9000), Reply(new, headers={"etag": '"two"'})
    )
    assert desk.get(url) == new
    assert server.asked[-1].headers["if-range"] == '"one"'


def test_without_a_strong_validator_nothing_is_glued_together(server: Loopback, desk: Desk) -> None:
    url = server.reply("/a", Reply(TEXT, headers={"etag": 'W/"weak"'}, cut_after=9000), Reply(TEXT))
    assert desk.get(url) == TEXT
    assert "range" not in server.asked[-1].headers


def test_resumed_file_with_a_wrong_checksum_is_fetched_whole_again(server: Loopback, desk: Desk) -> None:
    wrong = Reply(b"?" * (len(TEXT) - 9000), 206, {"content-range": f"bytes 9000-{len(TEXT) - 1}/{len(TEXT)}"})
    url = server.reply("/a", Reply(TEXT, headers={"etag": '"one"'}, cut_after=9000), wrong, Reply(TEXT))
    assert desk.get(url, checksums=(f"sha256:{hashlib.sha256(TEXT).hexdigest()}",)) == TEXT


def test_range_that_no_longer_fits_starts_anew(server: Loopback, desk: Desk) -> None:
    url = server.reply("/a", Reply(TEXT, headers={"etag": '"one"'}, cut_after=9000), Reply(status=416), Reply(TEXT))
    assert desk.get(url) == TEXT


def test_slow_body_is_broken_off_and_resumed(server: Loopback, tmp_path: Path) -> None:
    desk = Desk(tmp_path, SETTINGS.model_copy(update={"timeout_seconds": 0.15}))
    rest = Reply(TEXT[5000:], 206, {"content-range": f"bytes 5000-{len(TEXT) - 1}/{len(TEXT)}"})
    url = server.reply("/a", Reply(TEXT, headers={"etag": '"one"'}, cut_after=5000, stall_seconds=0.5), rest)
    assert desk.get(url) == TEXT


def test_body_that_drips_counts_as_broken(server: Loopback, tmp_path: Path) -> None:
    ticks = iter(range(0, 10**9, 40))
    desk = Desk(tmp_path)
    desk.client._clock = lambda: float(next(ticks))  # every look at the clock, 40 s have passed
    url = server.reply("/a", Reply(b"drip", announce_length=False))
    assert "4 bytes in" in reason_of(desk, url)[1]


@pytest.mark.parametrize("name", ["md5", "sha1", "sha256"])
def test_wrong_checksum_is_refused_and_not_kept(server: Loopback, desk: Desk, name: str) -> None:
    url = server.file("/a", TEXT)
    wanted = hashlib.new(name, b"something else").hexdigest()
    code, reason = reason_of(desk, url, checksums=(f"{name}:{wanted}",))
    assert code == "fetch_failed" and wanted in reason
    assert list((desk.store.folder / "objects").rglob("*")) == []
    assert list((desk.store.folder / "partial").iterdir()) == []
    assert desk.get(url, checksums=(f"{name}:{hashlib.new(name, TEXT).hexdigest()}",)) == TEXT


@pytest.mark.parametrize("announced", [True, False])
def test_oversized_file_is_refused_and_never_cut(server: Loopback, tmp_path: Path, announced: bool) -> None:
    desk = Desk(tmp_path, SETTINGS.model_copy(update={"max_file_bytes": 5000}))
    url = server.reply("/a", Reply(TEXT, announce_length=announced))
    assert reason_of(desk, url)[0] == "too_large"
    assert server.paths() == ["/a"]
    assert desk.store.verify() == [] and list((tmp_path / "partial").iterdir()) == []


def test_packed_answers_are_unpacked_and_measured_unpacked(server: Loopback, tmp_path: Path) -> None:
    import gzip

    packed = Reply(gzip.compress(b"\0" * 1_000_000), headers={"content-encoding": "gzip"})
    desk = Desk(tmp_path, SETTINGS.model_copy(update={"max_file_bytes": 500_000}))
    assert reason_of(desk, server.reply("/bomb", packed))[0] == "too_large"
    good = Reply(gzip.compress(TEXT), headers={"content-encoding": "gzip"})
    assert desk.get(server.reply("/good", good)) == TEXT


# --- again -------------------------------------------------------------------------------------------------------------


def test_second_run_fetches_nothing_and_a_changed_etag_does(server: Loopback, tmp_path: Path) -> None:
    url = server.file("/a", TEXT)
    Desk(tmp_path).get(url)
    again = Desk(tmp_path)
    assert again.get(url) == TEXT
    assert again.budget.fetched == 0 and server.asked[-1].sent_bytes == 0
    new = server.file("/a", TEXT + b"more")
    assert again.get(new) == TEXT + b"more"
    assert again.budget.fetched == len(TEXT) + 4


def test_date_is_a_validator_too(server: Loopback, tmp_path: Path) -> None:
    date = {"last-modified": "Sat, 01 Jan 2000 00:00:00 GMT"}
    url = server.reply("/a", Reply(TEXT, headers=date), Reply(status=304))
    Desk(tmp_path).get(url)
    assert Desk(tmp_path).get(url) == TEXT
    assert server.asked[-1].headers["if-modified-since"] == date["last-modified"]


def test_known_checksum_saves_even_the_question(server: Loopback, tmp_path: Path) -> None:
    url = server.file("/a", TEXT)
    checksums = (f"md5:{hashlib.md5(TEXT).hexdigest()}",)
    Desk(tmp_path).get(url, checksums=checksums)
    asked = len(server.asked)
    Desk(tmp_path).get(url, checksums=checksums)
    assert len(server.asked) == asked


def test_facts_of_a_file_are_those_registered_at_the_time(server: Loopback, desk: Desk) -> None:
    target = server.file("/b", TEXT)
    url = server.reply("/a", Reply(status=302, headers={"location": "/b"}))
    row = desk.fetcher.file(Item(ENTRY, "a.txt", url))
    assert (row.source, row.url, row.final_url, row.status, row.bytes) == ("letters", url, target, 200, len(TEXT))
    assert row.sha256 == hashlib.sha256(TEXT).hexdigest()
    assert (row.licence, row.allowed_use, row.fetched) == ("CC0-1.0", "any", "1970-01-12T13:46:40+00:00")
    assert desk.store.record("letters", "a.txt") == row


def test_lost_or_damaged_object_is_noticed_and_fetched_again(server: Loopback, desk: Desk) -> None:
    url = server.file("/a", TEXT)
    row = desk.fetcher.file(Item(ENTRY, "a.txt", url))
    desk.store.object_path(row.sha256).write_bytes(TEXT.replace(b"King", b"Duke"))
    assert desk.store.verify() == [row]
    desk.store.object_path(row.sha256).unlink()
    assert desk.get(url) == TEXT and desk.store.verify() == []


# --- robots and redirects ----------------------------------------------------------------------------------------------


def test_robots_denial_is_a_reason_of_its_own(server: Loopback, desk: Desk) -> None:
    server.reply("/robots.txt", Reply(b"User-agent: *\nDisallow: /private\nAllow: /private/open\n"))
    assert reason_of(desk, server.file("/private/a", TEXT))[0] == "robots_denied"
    assert desk.get(server.file("/private/open", TEXT)) == TEXT
    assert server.paths() == ["/private/open"]


def test_robots_rules_for_caslon_win_over_those_for_all(server: Loopback, desk: Desk) -> None:
    server.reply("/robots.txt", Reply(b"User-agent: caslon\nDisallow: /\n\nUser-agent: *\nAllow: /\n"))
    assert reason_of(desk, server.file("/a", TEXT))[0] == "robots_denied"


def test_robots_that_answers_5xx_forbids_all_and_4xx_allows_all(server: Loopback, tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    server.reply("/robots.txt", Reply(status=500))
    assert reason_of(desk, server.file("/a", TEXT))[0] == "robots_denied"
    server.replies.clear()
    assert Desk(tmp_path).get(server.file("/a", TEXT)) == TEXT


def test_only_the_first_half_mebibyte_of_robots_is_read() -> None:
    asked: list[tuple[str, int]] = []

    def read(url: str, limit: int) -> tuple[int, bytes]:
        asked.append((url, limit))
        return 200, b"User-agent: *\nDisallow: /no\nCrawl-delay: 2.5\n"

    robots = Robots(read)
    robots.check("http://example.org/yes")
    with pytest.raises(ItemProblem, match="forbids"):
        robots.check("http://example.org/no/x")
    assert robots.delay_seconds("http://example.org/") == 2.5
    assert asked == [("http://example.org/robots.txt", 500 << 10)]


def test_five_redirects_are_followed_and_a_sixth_is_not(server: Loopback, desk: Desk) -> None:
    for number in range(1, 7):
        server.reply(f"/{number}", Reply(status=301, headers={"location": f"/{number - 1}"}))
    server.file("/0", TEXT)
    assert desk.get(f"{server.url}/5") == TEXT
    assert "more than 5 redirects" in reason_of(desk, f"{server.url}/6", path="b.txt")[1]


def test_private_addresses_are_refused_also_after_a_redirect(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"site.test": "127.0.0.1", "metadata.test": "169.254.169.254", "home.test": "10.0.0.7"}
    monkeypatch.setattr(address, "is_public", lambda found: found == "127.0.0.1")  # stands for a public one
    strict = SETTINGS.model_copy(update={"allow_private": False})
    desk = Desk(tmp_path, strict, resolve=lambda host, port: [places[host]])
    port = server.url.rpartition(":")[2]
    server.reply("/a", Reply(status=302, headers={"location": "http://metadata.test/latest/meta-data"}))
    code, reason = reason_of(desk, f"http://site.test:{port}/a")
    assert code == "fetch_failed" and "169.254.169.254" in reason
    assert "10.0.0.7" in reason_of(desk, "http://home.test/")[1]
    assert "no http" in reason_of(desk, "file:///etc/passwd")[1]
    assert server.asked[-1].headers["host"] == f"site.test:{port}"


def test_name_that_changes_its_address_gains_nothing(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([["127.0.0.1"], ["127.0.0.1"], ["10.0.0.7"]])  # robots.txt, the page, and then the trap
    monkeypatch.setattr(address, "is_public", lambda found: found == "127.0.0.1")
    strict = SETTINGS.model_copy(update={"allow_private": False})
    desk = Desk(tmp_path, strict, resolve=lambda host, port: next(answers))
    port = server.url.rpartition(":")[2]
    server.file("/a", TEXT)
    assert desk.get(f"http://site.test:{port}/a") == TEXT
    assert "10.0.0.7" in reason_of(desk, f"http://site.test:{port}/a", path="b.txt")[1]


@pytest.mark.parametrize(
    "found",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1", "::1",
     "fe80::1", "fc00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1", "240.0.0.1"],
)  # fmt: skip
def test_what_is_no_public_address(found: str) -> None:
    assert not address.is_public(found)


def test_public_addresses_are_known() -> None:
    assert all(
        address.is_public(found) for found in ("8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808")
    )


def test_secret_header_does_not_leave_its_host(server: Loopback, desk: Desk) -> None:
    other = server.url.replace("127.0.0.1", "localhost")
    server.reply("/a", Reply(status=302, headers={"location": f"{other}/b"}))
    server.file("/b", b"{}")
    desk.fetcher.passing(ENTRY, f"{server.url}/a", {"authorization": "Bearer x"})
    first, second = (asked for asked in server.asked if asked.path in ("/a", "/b"))
    assert "authorization" in first.headers and "authorization" not in second.headers


# --- the disk ----------------------------------------------------------------------------------------------------------


def test_full_disk_stops_with_a_valid_store(server: Loopback, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.get(server.file("/small", b"small"), "small.txt")
    real = Path.open

    class Full:
        def __init__(self, file: object) -> None:
            self.file = file

        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def flush(self) -> None:
            pass

        def close(self) -> None:
            self.file.close()

    with monkeypatch.context() as patched:
        patched.setattr(
            Path,
            "open",
            lambda path, mode="r", **more: Full(real(path, mode)) if mode == "wb" else real(path, mode, **more),
        )
        with pytest.raises(StorageError, match="No space left") as caught:
            desk.get(server.file("/a", TEXT))
    assert caught.value.exit_code == 4
    assert desk.store.verify() == [] and desk.store.record("letters", "a.txt") is None
    assert desk.get(server.file("/a", TEXT)) == TEXT


def test_budget_of_bytes_stops_and_a_later_run_goes_on(server: Loopback, tmp_path: Path) -> None:
    text = TEXT * 20
    url = server.file("/a", text)
    desk = Desk(tmp_path)
    desk.budget.most = 100_000
    with pytest.raises(BudgetSpent):
        desk.get(url)
    later = Desk(tmp_path)
    assert later.get(url) == text
    assert 0 < later.budget.fetched < len(text)


KILLED = """
import sys
from pathlib import Path
from tests.corpus.test_corpus_collect_http import Desk
desk = Desk(Path(sys.argv[1]))
for number in range(3):
    desk.get(f"{sys.argv[2]}/{number}", f"{number}.txt")
"""


def test_kill_loses_at_most_the_file_in_flight(server: Loopback, tmp_path: Path) -> None:
    for number in range(3):
        server.file(f"/{number}", TEXT + str(number).encode())
    body, etag = server.files["/2"]
    server.once("/2", Reply(body, headers={"etag": etag}, cut_after=9000, stall_seconds=30.0))
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), server.url], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}
    )
    deadline = time.monotonic() + 60
    part = Store(tmp_path).partial_path(f"{server.url}/2")
    while not (part.is_file() and part.stat().st_size == 9000) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    asked = len(server.asked)
    desk = Desk(tmp_path)
    assert desk.store.verify() == []
    for number in range(3):
        assert desk.get(f"{server.url}/{number}", f"{number}.txt") == TEXT + str(number).encode()
    sent = {asked.path: asked.sent_bytes for asked in server.asked[asked:]}
    assert sent["/0"] == sent["/1"] == 0
    assert sent["/2"] == len(body) - 9000
    assert desk.store.verify() == []
