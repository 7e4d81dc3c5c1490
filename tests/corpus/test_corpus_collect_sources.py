"""Every collector against answers in the shape its place gives, and the account of a whole run."""

import hashlib
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest

from caslon.corpus.collect import Store, load_raw, raw_files, source_paths
from caslon.corpus.collect import collector as collector_module
from caslon.corpus.collect.collector import Collector, Item, collector_for
from caslon.corpus.collect.fetch import Fetcher
from caslon.corpus.collect.gather import Bounds, SourceAccount, by_priority, check_offline, collect
from caslon.corpus.collect.http import Client
from caslon.corpus.collect.raw_file import RawFile
from caslon.corpus.collect.sources.addresses import canonical
from caslon.corpus.collect.sources.british_history_online import RIGHTS, BritishHistoryOnline
from caslon.corpus.collect.sources.gutenberg import Gutenberg, work_of
from caslon.corpus.collect.sources.internet_archive import InternetArchive
from caslon.corpus.collect.sources.links import css_path, selected
from caslon.corpus.collect.sources.national_archives import NationalArchives
from caslon.corpus.collect.sources.old_bailey import OldBailey
from caslon.corpus.collect.sources.slack import Slack, conversations
from caslon.corpus.registry_entry import CATALOGUES, SourceEntry
from caslon.corpus.settings import CollectSettings
from caslon.errors import UserError
from tests.corpus.loopback_server import FakeTime, Loopback, Reply, serving

TEXT = b"In the reign of King Charles the plague came to London.\n" * 20
SETTINGS = CollectSettings(contact="tests@example.org", allow_private=True, delay_seconds=0.0)


@pytest.fixture
def server() -> Iterator[Loopback]:
    with serving() as loopback:
        yield loopback


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "raw") as opened:
        yield opened


def fetcher_on(store: Store, time: FakeTime | None = None) -> Fetcher:
    time = time or FakeTime()
    return Fetcher(
        store, SETTINGS, lambda: Client(SETTINGS, sleep=time.sleep, clock=time.clock), now=lambda: 1_000_000.0
    )


def run(
    store: Store,
    entry: SourceEntry,
    monkeypatch: pytest.MonkeyPatch,
    make: type | None = None,
    bounds: Bounds | None = None,
    **base: object,
) -> SourceAccount:
    """Collect one source; `make` with `base` stands for the collector the registry names."""
    fetcher = fetcher_on(store)
    if make is not None:
        monkeypatch.setattr("caslon.corpus.collect.gather.collector_for", lambda name, fetcher: make(fetcher, **base))
    (account,) = collect([entry], fetcher, bounds or Bounds())
    return account


def texts(store: Store, entry: SourceEntry) -> dict[str, bytes]:
    return {raw.origin.address: raw.bytes for raw in raw_files([entry], store)}


def entry_of(collector: str, location: str, **more: object) -> SourceEntry:
    return SourceEntry("the_source", location, collector=collector, licence="CC0-1.0", title="A source", **more)  # type: ignore[arg-type]


# --- Project Gutenberg -------------------------------------------------------------------------------------------------

CATALOGUE = """Text#,Type,Issued,Title,Language,Authors,Subjects,LoCC,Bookshelves
370,Text,1995-11-01,The Famous Moll Flanders,en,"Defoe, Daniel, 1661?-1731",London -- Fiction,PR,Adventure
376,Text,1995-12-01,A Journal of the Plague Year,en,"Defoe, Daniel, 1661?-1731",Plague -- England -- London -- Fiction,PR,
1526,Text,1998-11-01,"Twelfth Night; Or, What You Will",en,"Shakespeare, William, 1564-1616",Comedies,PR,
2247,Text,2000-07-01,"Twelfth Night",en,"Shakespeare, William, 1564-1616",Comedies,PR,
5000,Sound,2004-01-01,A London Song,en,,London,M,
61262,Text,2020-01-28,Poirot Investigates,en,"Christie, Agatha, 1890-1976",London (England) -- Fiction,PR,
70000,Text,2023-02-10,Londres,fr,"Vallès, Jules, 1832-1885",London (England),DA,
"""


def gutenberg_mirror(server: Loopback) -> None:
    server.file("/cache/epub/feeds/pg_catalog.csv", CATALOGUE.encode())
    server.file("/3/7/370/370-0.txt", b"moll " + TEXT)
    server.file("/cache/epub/376/pg376.txt", b"plague " + TEXT)
    server.file("/1/5/2/1526/1526-h/1526-h.htm", b"<html>night " + TEXT)


def test_gutenberg_search_goes_by_terms_years_and_language(
    server: Loopback, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    gutenberg_mirror(server)
    search = entry_of(
        "gutenberg", CATALOGUES["gutenberg"], search_terms=("london",), time_period=(1500, 1850), languages=("en",)
    )
    account = run(store, search, monkeypatch, Gutenberg, mirror=server.url)
    assert (account.items, account.new, account.problems, account.state) == (2, 2, {}, "complete")
    assert texts(store, search) == {"370.txt": b"moll " + TEXT, "376.txt": b"plague " + TEXT}
    row = store.record("the_source", "370.txt")
    assert row is not None and row.metadata["title"].endswith("Moll Flanders")
    assert row.metadata["author"] == "Defoe, Daniel, 1661?-1731"


def test_gutenberg_takes_text_first_and_html_last_and_asks_the_second_time_for_nothing(
    server: Loopback, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    gutenberg_mirror(server)
    named = entry_of("gutenberg", "https://www.gutenberg.org/ebooks/1526, 370")
    first = run(store, named, monkeypatch, Gutenberg, mirror=server.url)
    assert set(texts(store, named).values()) == {b"moll " + TEXT, b"<html>night " + TEXT}
    assert first.bytes_fetched > 0
    asked = len(server.asked)
    again = run(store, named, monkeypatch, Gutenberg, mirror=server.url)
    assert (again.bytes_fetched, again.unchanged) == (0, 2)
    assert all(not one.sent_bytes for one in server.asked[asked:] if one.path != "/robots.txt")


def test_gutenberg_waits_two_seconds_and_never_reads_the_website(server: Loopback, store: Store) -> None:
    gutenberg_mirror(server)
    time = FakeTime()
    mine = Gutenberg(fetcher_on(store, time), server.url)
    for item in mine.discover(entry_of("gutenberg", "370")):
        list(mine.fetch(item))
    assert time.slept[-1] == 2.0
    with pytest.raises(UserError, match="website"):
        list(Gutenberg(fetcher_on(store), "https://www.gutenberg.org").discover(entry_of("gutenberg", "370")))


def test_editions_of_one_work_are_one_group(server: Loopback, store: Store) -> None:
    gutenberg_mirror(server)
    mine = Gutenberg(fetcher_on(store), server.url)
    groups = {item.path: item.metadata["group"] for item in mine.discover(entry_of("gutenberg", "1526, 2247, 370"))}
    assert groups["1526.txt"] == groups["2247.txt"] != groups["370.txt"]
    first = {"Title": "Clarissa, Volume 1 (of 9)\nOr the History", "Authors": "Richardson, Samuel, 1689-1761"}
    assert work_of(first) == work_of({**first, "Title": "Clarissa Harlowe"}).replace("-harlowe", "")


def test_book_that_no_mirror_path_holds_is_fetch_failed(
    server: Loopback, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    gutenberg_mirror(server)
    named = entry_of("gutenberg", "2247")
    assert run(store, named, monkeypatch, Gutenberg, mirror=server.url).problems == {"fetch_failed": 1}
    (raw,) = raw_files([named], store)
    assert (raw.bytes, raw.problems[0][0]) == (b"", "fetch_failed") and "404" in raw.problems[0][1]


# --- Old Bailey and London Lives ---------------------------------------------------------------------------------------


def bailey_xml(idkey: str) -> str:
    year = f'<interp inst="{idkey}" type="year" value="{idkey[1:5]}"/>'
    return f'<div1 type="trialAccount" id="{idkey}"> {year} <p>80. Hannah Ash.</p> </div1>'


def bailey_hits(*ids: str, total: int | None = None, with_xml: bool = False) -> dict:
    hits = [
        {
            "_index": "dhids_oldbailey_record",
            "_source": {
                "idkey": idkey,
                "title": "Hannah Ash. Theft; grand larceny (to 1827).",
                "text": "80. Hannah Ash",
                **({"xml": bailey_xml(idkey)} if with_xml else {}),
            },
        }
        for idkey in ids
    ]
    return {"took": 4, "timed_out": False, "hits": {"total": len(ids) if total is None else total, "hits": hits}}


def bailey_api(server: Loopback) -> str:
    ids = [f"t17540116-{number}" for number in range(1, 14)]

    def search(path: str) -> Reply:
        asked = parse_qs(urlsplit(path).query)
        start = int(asked["from"][0])
        assert asked["year_gte"] == ["1700"] and asked["year_lte"] == ["1760"]
        return Reply(json.dumps(bailey_hits(*ids[start : start + 10], total=len(ids))).encode())

    def single(path: str) -> Reply:
        return Reply(json.dumps(bailey_hits(*parse_qs(urlsplit(path).query)["idkey"], with_xml=True)).encode())

    server.make["/api/data/oldbailey_record"] = search
    server.make["/api/data/oldbailey_record_single"] = single
    return f"{server.url}/api/data"


def test_old_bailey_records_come_as_xml_with_their_licence(
    server: Loopback, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = bailey_api(server)
    court = replace(entry_of("old_bailey", "t17540116-4, t17801206-1", time_period=(1674, 1850)), licence="")
    run(store, court, monkeypatch, OldBailey, api=api)
    assert texts(store, court) == {f"{one}.xml": bailey_xml(one).encode() for one in ("t17540116-4", "t17801206-1")}
    row = store.record("the_source", "t17540116-4.xml")
    assert row is not None and (row.licence, row.allowed_use) == ("CC-BY-NC-4.0", "non_commercial")
    assert row.url.endswith("/api/data/oldbailey_record_single?idkey=t17540116-4")
    assert (row.metadata["year"], row.metadata["group"]) == (1754, "old_bailey:17540116")
    asked = len(server.asked)
    assert run(store, court, monkeypatch, OldBailey, api=api).unchanged == 2
    assert server.paths()[asked - 1 :] == [], "records without ETag are not asked for again"


def test_old_bailey_search_pages_by_ten_and_rejects_what_lies_outside(
    server: Loopback, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    court = entry_of("old_bailey", bailey_api(server), search_terms=("shift",), time_period=(1700, 1760))
    account = run(store, court, monkeypatch, OldBailey, api=bailey_api(server))
    assert (account.items, account.new) == (13, 13)
    late = entry_of("old_bailey", "t19040418-1", time_period=(1674, 1850))
    assert run(store, late, monkeypatch, OldBailey, api=bailey_api(server)).problems == {"out_of_period": 1}
    assert "/api/data/oldbailey_record_single?idkey=t19040418-1" not in server.paths()


def test_old_bailey_archive_is_fetched_whole_and_read_as_archive(
    server: Loopback, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "OBO_XML.zip", "w") as archive:
        archive.writestr("sessionsPapers/17540116.xml", bailey_xml("t17540116-4"))
    data = (tmp_path / "OBO_XML.zip").read_bytes()
    url = server.file("/OBO_XML.zip", data)
    court = entry_of("old_bailey", url, checksum=f"sha256:{hashlib.sha256(data).hexdigest()}")
    run(store, court, monkeypatch, None)
    assert list(texts(store, court)) == ["OBO_XML.zip!sessionsPapers/17540116.xml"]
    (raw,) = raw_files([court], store)
    assert load_raw(raw.origin, Path("/nowhere"), store).bytes == raw.bytes
    assert source_paths([court], store) == [store.object_path(hashlib.sha256(data).hexdigest())]


def test_london_lives_pages_are_found_on_a_page_that_lists_them(
    server: Loopback, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = b'<html><a href="xml/GLDBPR308.xml">1</a><a href="xml/GLDBPR308.xml#p2">2</a><a href="/about">no</a></html>'
    url = server.file("/pages/", index)
    server.file("/pages/xml/GLDBPR308.xml", b"<page><p>To the Worshipful</p></page>")
    lives = entry_of("london_lives", url)
    account = run(store, lives, monkeypatch, None)
    assert (account.items, account.new) == (1, 1)
    row = next(store.records("the_source", "file"))
    assert (row.allowed_use, store.read(row)) == ("non_commercial", b"<page><p>To the Worshipful</p></page>")


# --- Internet Archive --------------------------------------------------------------------------------------------------


def archive_item(server: Loopback, identifier: str, files: dict[str, tuple[str, bytes]], **more: object) -> None:
    rows = []
    for name, (kind, data) in files.items():
        server.file(f"/download/{identifier}/{name}", data)
        rows.append(
            {
                "name": name, "source": "derivative", "format": kind, "size": str(len(data)),
                "md5": hashlib.md5(data).hexdigest(), "sha1": hashlib.sha1(data).hexdigest(),
            }
        )  # fmt: skip
    about = {
        "metadata": {"identifier": identifier, "title": "London", "creator": ["Stow"], "date": "1603"},
        "files": rows,
    }
    about["metadata"].update(more)  # type: ignore[attr-defined]
    server.reply(f"/metadata/{identifier}", Reply(json.dumps(about).encode()))


def test_internet_archive_prefers_text_checks_sums_and_skips_what_is_restricted(
    server: Loopback, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive_item(server, "survey1603", {"a.pdf": ("Text PDF", b"%PDF-"), "a_djvu.txt": ("DjVuTXT", TEXT)})
    archive_item(server, "lent", {"b_djvu.txt": ("DjVuTXT", TEXT)}, **{"access-restricted-item": "true"})
    archive_item(server, "pictures", {"c.jpg": ("JPEG", b"\xff\xd8\xff")})
    archive_item(server, "wrong", {"d_djvu.txt": ("DjVuTXT", TEXT)})
    server.file("/download/wrong/d_djvu.txt", b"something else")
    pages = {
        "": {"items": [{"identifier": "survey1603"}, {"identifier": "lent"}], "count": 2, "cursor": "W3", "total": 4},
        "W3": {"items": [{"identifier": "pictures"}, {"identifier": "wrong"}], "count": 2, "total": 4},
    }
    queries = []

    def scrape(path: str) -> Reply:
        asked = parse_qs(urlsplit(path).query)
        queries.append(asked["q"][0])
        return Reply(json.dumps(pages[asked.get("cursor", [""])[0]]).encode())

    server.make["/services/search/v1/scrape"] = scrape
    search = entry_of(
        "internet_archive",
        CATALOGUES["internet_archive"],
        search_terms=("survey of london", "stow"),
        time_period=(1500, 1850),
    )
    account = run(store, search, monkeypatch, InternetArchive, archive=server.url)
    assert account.problems == {"licence_denied": 1, "no_text": 1, "fetch_failed": 1} and account.new == 1
    assert queries[0] == ('mediatype:texts AND ("survey of london" OR "stow") AND date:[1500-01-01 TO 1850-12-31]')
    found = {raw.path: raw for raw in raw_files([search], store)}
    assert found["survey1603"].bytes == TEXT
    assert found["survey1603"].metadata["ocr"] and found["survey1603"].metadata["year"] == 1603
    assert found["lent"].problems[0][0] == "licence_denied"
    asked = len(server.asked)
    run(store, search, monkeypatch, InternetArchive, archive=server.url)
    assert "/download/survey1603/a_djvu.txt" not in [one.path for one in server.asked[asked:]]


# --- British History Online, National Archives -------------------------------------------------------------------------


def test_british_history_needs_the_rights_confirmed(
    server: Loopback, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = server.file(
        "/survey-london/vol1",
        b'<html><a href="/survey-london/vol1/pp1-9">1</a><a href="/survey-london/vol1/pp10-20">2</a>'
        b'<a href="/catalogue">no</a></html>',
    )
    for pages in ("pp1-9", "pp10-20"):
        server.file(f"/survey-london/vol1/{pages}", b"<html><p>" + TEXT)
    history = entry_of("british_history_online", volume, rights_url="https://www.british-history.ac.uk/copyright")
    refused = run(store, history, monkeypatch, BritishHistoryOnline, site=server.url)
    assert refused.state.startswith("failed") and server.asked == []
    (raw,) = raw_files([history], store)
    assert raw.problems[0][0] == "licence_denied"
    store.mark("the_source", RIGHTS, "yes")
    account = run(store, history, monkeypatch, BritishHistoryOnline, site=server.url)
    assert (account.items, account.new) == (2, 2)
    found = list(raw_files([history], store))
    assert [raw.bytes for raw in found] == [b"<html><p>" + TEXT] * 2
    assert all(raw.metadata["profile"] == "british_history_online" for raw in found)


def discovery(server: Loopback) -> None:
    record = {"id": "C13323852", "title": "Folio 66", "reference": "WO 25/796/34", "coveringDates": "[1829]"}
    pages = {
        "*": {"records": [{**record, "description": f"Name {number}"} for number in range(2)], "nextBatchMark": "AoE1"},
        "AoE1": {"records": [{**record, "description": "Name 2"}], "count": 3, "nextBatchMark": "AoE1"},
    }
    server.make["/API/search/v1/records"] = lambda path: Reply(
        json.dumps(pages[parse_qs(urlsplit(path).query)["sps.batchStartMark"][0]]).encode()
    )


def test_national_archives_descriptions_are_metadata_unless_asked_for_as_text(
    server: Loopback, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    discovery(server)
    kew = entry_of(
        "national_archives", CATALOGUES["national_archives"], search_terms=("bradford",), time_period=(1500, 1850)
    )
    account = run(store, kew, monkeypatch, NationalArchives, site=server.url)
    assert (account.items, account.new) == (2, 2)
    assert list(raw_files([kew], store)) == []
    assert "sps.dateFrom=1500-01-01" in server.paths()[0]
    asked = replace(kew, text_field="description")
    run(store, asked, monkeypatch, NationalArchives, site=server.url)
    rows = [json.loads(line) for raw in raw_files([asked], store) for line in raw.bytes.splitlines()]
    assert [row["description"] for row in rows] == ["Name 0", "Name 1", "Name 2"]


def test_national_archives_are_called_once_a_second_and_3000_times_a_day(
    server: Loopback, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    discovery(server)
    kew = entry_of("national_archives", CATALOGUES["national_archives"], search_terms=("bradford",))
    time = FakeTime()
    list(NationalArchives(fetcher_on(store, time), server.url).discover(kew))
    assert time.slept[-1] == 1.0
    store.mark(server.url, "calls 1970-01-12", "3000")
    account = run(store, kew, monkeypatch, NationalArchives, site=server.url)
    assert "3,000 calls" in account.state


# --- web pages ---------------------------------------------------------------------------------------------------------


def site(server: Loopback) -> str:
    def page(title: str, *links: str, more: str = "") -> bytes:
        made = "".join(f'<a href="{link}">x</a>' for link in links)
        head = f"<head><title>{title}</title>{more}</head>"
        text = f"<main class='text big'><p>{title} text</p></main>"
        return f"<html>{head}<body><nav>menu</nav>{text}{made}</body></html>".encode()

    server.file("/", page("Home", "/one#top", "/one", "/two?utm_source=x", "http://elsewhere.invalid/", "mailto:a@b.c"))
    server.file("/one", page("One", "/deep", "/secret"))
    server.file("/two", page("Two", "/one-again"))
    server.file("/one-again", page("One again", more='<link rel="canonical" href="/one">'))
    server.file("/deep", page("Deep", "/deeper"))
    server.file("/deeper", page("Deeper"))
    server.reply("/robots.txt", Reply(b"User-agent: *\nDisallow: /secret\n"))
    return server.url + "/"


def test_web_stays_on_its_host_goes_two_links_deep_and_skips_copies(
    server: Loopback, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = entry_of("web", site(server))
    account = run(store, pages, monkeypatch)
    host = urlsplit(server.url).netloc
    found = {raw.path: raw for raw in raw_files([pages], store)}
    assert sorted(found) == [f"{host}{path}" for path in ("/", "/deep", "/one", "/secret", "/two")]
    assert found[f"{host}/secret"].problems[0][0] == "robots_denied"
    assert "/deeper" not in server.paths() and "/secret" not in server.paths()
    assert account.problems == {"robots_denied": 1}
    asked = len(server.asked)
    again = run(store, pages, monkeypatch)
    assert (again.bytes_fetched, again.unchanged) == (0, 4)
    assert not any(one.sent_bytes for one in server.asked[asked:] if one.path != "/robots.txt")


def test_web_selector_keeps_the_text_and_a_limit_keeps_the_nearest(
    server: Loopback, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = entry_of("web", site(server), selector="main.text > p", max_items=2)
    run(store, pages, monkeypatch)
    found = list(raw_files([pages], store))
    assert [raw.path.rpartition("/")[2] for raw in found] == ["", "one"]
    assert b"One text" in found[1].bytes and b"menu" not in found[1].bytes and b"<title>One</title>" in found[1].bytes
    nothing = replace(pages, id="nothing", selector="#no-such")
    assert run(store, nothing, monkeypatch).problems == {"no_text": 2}
    with pytest.raises(UserError, match="selector"):
        run(store, replace(pages, selector="p:hover"), monkeypatch)


def test_web_reads_sitemaps_and_sitemaps_of_sitemaps(
    server: Loopback, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    site(server)
    space = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'
    inner = f"<urlset {space}><url><loc>{server.url}/deep</loc></url><url><loc>http://elsewhere.invalid/</loc></url></urlset>"
    server.file("/inner.xml", inner.encode())
    outer = f'<?xml version="1.0"?><sitemapindex {space}><sitemap><loc>{server.url}/inner.xml</loc></sitemap></sitemapindex>'
    pages = entry_of("web", server.file("/sitemap.xml", outer.encode()), max_items=1)
    run(store, pages, monkeypatch)
    assert [raw.path.rpartition("/")[2] for raw in raw_files([pages], store)] == ["deep"]


def test_dry_run_fetches_no_files_and_says_what_it_does_not_know(
    server: Loopback, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = run(store, entry_of("web", site(server)), monkeypatch, bounds=Bounds(dry_run=True))
    assert (account.items, account.items_of_unknown_size, server.asked) == (1, 1, [])


def test_canonical_addresses_and_css_paths() -> None:
    assert canonical("HTTP://Example.ORG:80/a?b=2&a=1&utm_source=x#part") == "http://example.org/a?a=1&b=2"
    assert canonical("https://example.org:8443") == "https://example.org:8443/"
    assert css_path("div#main > p, [lang=en] a") == '//div[@id="main"]/p | //*[@lang="en"]//a'
    assert selected(b"<p>a</p><div>b</div>", "div") is not None and selected(b"", "div") is None
    for wrong in ("p:hover", "", "a >", "a + b"):
        with pytest.raises(ValueError, match="selector"):
            css_path(wrong)


# --- Slack -------------------------------------------------------------------------------------------------------------

PEOPLE = [
    {"id": "U01", "name": "anne", "real_name": "Anne", "profile": {"email": "anne@example.org"}, "is_bot": False},
    {"id": "U02", "name": "ben", "real_name": "Ben", "profile": {}},
    {"id": "U03", "name": "cat", "real_name": "Cat", "profile": {}},
]
MESSAGES = [
    {"type": "message", "user": "U01", "text": "Hello <@U03> &amp; all, see <https://example.org|this>", "ts": "100.0"},
    {"type": "message", "user": "U02", "text": "A question", "ts": "200.0", "thread_ts": "200.0", "reply_count": 2},
    {"type": "message", "subtype": "channel_join", "user": "U01", "text": "<@U01> has joined", "ts": "201.0"},
    {"type": "message", "subtype": "bot_message", "bot_id": "B1", "text": "beep", "ts": "202.0"},
]
REPLIES = [
    MESSAGES[1],
    {"type": "message", "user": "U03", "text": "I never agreed", "ts": "203.0", "thread_ts": "200.0"},
    {"type": "message", "user": "U01", "text": "An answer in <#C1|general>", "ts": "300.0", "thread_ts": "200.0"},
]
EXPECTED = [
    "[PERSON_1]: Hello [PERSON_2] & all, see this",
    "[PERSON_3]: A question\n\n[PERSON_1]: An answer in #general",
]


def talks(data: bytes) -> list[str]:
    return [json.loads(line)["text"] for line in data.splitlines()]


def test_slack_export_keeps_threads_of_those_who_agreed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        archive.writestr("users.json", json.dumps(PEOPLE))
        archive.writestr("channels.json", json.dumps([{"id": "C1", "name": "general"}]))
        archive.writestr("general/2024-01-01.json", json.dumps([*MESSAGES, REPLIES[1]]))
        archive.writestr("general/2024-01-02.json", json.dumps(REPLIES[2:]))
        archive.writestr("silent/2024-01-02.json", json.dumps([REPLIES[1]]))
    chat = replace(entry_of("slack", "export.zip", consenting_authors=("anne@example.org", "U02")), base=tmp_path)
    account = run(store, chat, monkeypatch)
    assert (account.new, account.problems) == (1, {"no_text": 1})
    assert talks(texts(store, chat)["general.jsonl"]) == EXPECTED
    kept = b"".join(path.read_bytes() for path in (store.folder / "objects").rglob("*") if path.is_file())
    assert b"never agreed" not in kept and b"U03" not in kept and b"anne@" not in kept
    with pytest.raises(UserError, match="no author"):
        run(store, replace(chat, consenting_authors=()), monkeypatch)


def test_slack_api_follows_cursors_and_stores_only_what_was_agreed_to(
    server: Loopback, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def paged(key: str, rows: list) -> object:
        def answer(path: str) -> Reply:
            start = int(parse_qs(urlsplit(path).query).get("cursor", ["0"])[0])
            following = str(start + 1) if start + 1 < len(rows) else ""
            body = {"ok": True, key: rows[start : start + 1], "response_metadata": {"next_cursor": following}}
            return Reply(json.dumps(body).encode())

        return answer

    server.make["/api/conversations.list"] = paged("channels", [{"id": "C1", "name": "general"}])  # type: ignore[assignment]
    server.make["/api/users.list"] = paged("members", PEOPLE)  # type: ignore[assignment]
    server.make["/api/conversations.history"] = paged("messages", MESSAGES[::-1])  # type: ignore[assignment]
    server.make["/api/conversations.replies"] = paged("messages", REPLIES)  # type: ignore[assignment]
    chat = entry_of("slack", f"{server.url}/api", consenting_authors=("anne", "ben"))
    run(store, chat, monkeypatch, Slack, api=f"{server.url}/api", token="xoxp-secret")
    assert talks(texts(store, chat)["general.jsonl"]) == EXPECTED
    asked = [one for one in server.asked if one.path.startswith("/api")]
    assert all(one.headers["authorization"] == "Bearer xoxp-secret" for one in asked)
    on_disk = b"".join(path.read_bytes() for path in store.folder.rglob("*") if path.is_file())
    assert b"never agreed" not in on_disk and b"xoxp" not in on_disk


def test_slack_placeholders_do_not_depend_on_the_order_messages_came_in() -> None:
    agreed = ("U01", "U02")
    forward = list(conversations([*MESSAGES, *REPLIES], PEOPLE, agreed, "general"))
    assert forward == list(conversations([*REPLIES, *MESSAGES][::-1], PEOPLE, agreed, "general"))
    assert [talk["text"] for talk in forward] == EXPECTED


# --- dumps, data files, folders, plug-ins ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mediawiki", "rows"])
def test_dumps_and_data_files_may_be_larger_than_other_files(
    server: Loopback, store: Store, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(CollectSettings, "max_file_bytes", 100, raising=False)
    small = SETTINGS.model_copy(update={"max_file_bytes": 100})
    url = server.file("/dump.jsonl", b'{"text": "a"}\n' * 100)
    entry = entry_of(name, url, text_field="text")
    fetcher = Fetcher(store, small, lambda: Client(small))
    (account,) = collect([entry], fetcher, Bounds())
    assert (account.new, account.problems) == (1, {})
    (raw,) = raw_files([entry], store)
    assert (raw.path, raw.metadata["text_field"]) == ("dump.jsonl", "text")


def test_local_folder_is_hashed_in_place_and_vanished_files_are_counted(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "texts"
    home.mkdir()
    for name in ("a.txt", "b.txt", "c.md"):
        (home / name).write_bytes(TEXT + name.encode())
    entry = SourceEntry("texts", ".", base=home, exclude=("*.md",), collector="folder")
    first = run(store, entry, monkeypatch)
    assert (first.items, first.new, first.bytes_fetched) == (2, 2, 0)
    (home / "a.txt").unlink()
    (home / "b.txt").write_bytes(b"changed")
    (home / "d.txt").write_bytes(TEXT)
    second = run(store, entry, monkeypatch)
    assert (second.new, second.changed, second.unchanged, second.vanished) == (1, 1, 0, 1)
    assert run(store, entry, monkeypatch).unchanged == 2
    assert list((store.folder / "objects").iterdir()) == []


def test_item_no_longer_offered_leaves_the_next_build_but_not_the_store(
    server: Loopback, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = server.file("/one.txt", b"one " + TEXT), server.file("/two.txt", b"two " + TEXT)
    both = entry_of("rows", f"{one}, {two}")
    run(store, both, monkeypatch)
    fewer = replace(both, location=one)
    assert run(store, fewer, monkeypatch).vanished == 1
    assert list(texts(store, fewer)) == ["one.txt"] and store.verify() == []
    cut = run(store, both, monkeypatch, bounds=Bounds(max_items=1))
    assert (cut.items, cut.vanished) == (1, 0), "what a limit leaves out did not vanish"


def test_sources_with_high_priority_come_first_and_disabled_ones_not() -> None:
    entries = [
        SourceEntry(f"s-{number}", ".", priority=priority) for number, priority in enumerate(("low", "high", "medium"))
    ]
    entries.append(SourceEntry("off", ".", priority="high", enabled=False))
    assert [entry.id for entry in by_priority(entries)] == ["s-1", "s-2", "s-0"]
    assert [entry.id for entry in by_priority(entries, 1)] == ["s-1"]


def test_bytes_are_bounded_over_all_sources(server: Loopback, store: Store) -> None:
    entries = [
        replace(entry_of("rows", server.file(f"/{number}.txt", TEXT * 10)), id=f"source-{number}")
        for number in range(3)
    ]
    accounts = list(collect(entries, fetcher_on(store), Bounds(max_bytes=len(TEXT) * 15)))
    assert [account.state for account in accounts] == ["complete", "budget spent"]
    assert len(list(raw_files(entries[:2], store))) == 1


def test_source_nobody_may_use_is_denied_and_not_asked(
    server: Loopback, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = entry_of("rows", server.file("/a.txt", TEXT), denied="its licence forbids it")
    assert run(store, secret, monkeypatch).problems == {"licence_denied": 1}
    (raw,) = raw_files([secret], store)
    assert raw.problems == (("licence_denied", "its licence forbids it"),) and server.asked == []


def test_offline_names_what_is_missing(server: Loopback, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = entry_of("rows", server.file("/a.txt", TEXT))
    with pytest.raises(UserError, match="the_source") as caught:
        check_offline([entry], store)
    assert caught.value.exit_code == 2
    with pytest.raises(UserError, match="not collected"):
        list(raw_files([entry], store))
    run(store, entry, monkeypatch)
    assert check_offline([entry], store) == 1
    row = store.record("the_source", "a.txt")
    assert row is not None
    store.object_path(row.sha256).unlink()
    with pytest.raises(UserError, match=r"the_source/a\.txt"):
        check_offline([entry], store)
    with pytest.raises(UserError, match="not in the store any more"):
        list(raw_files([entry], store))


class Plugged:
    """A collector as another package would write it."""

    def __init__(self, fetcher: Fetcher) -> None:
        self.fetcher = fetcher

    def discover(self, entry: SourceEntry) -> Iterator[Item]:
        yield Item(entry, "letter")

    def fetch(self, item: Item) -> Iterator[RawFile]:
        for name in ("a.txt", "b.txt"):
            yield RawFile(item.entry.id, name, "", TEXT, hashlib.sha256(TEXT).hexdigest(), {"title": name})


def test_plug_in_is_found_by_its_entry_point(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    point = SimpleNamespace(name="letters", load=lambda: Plugged)
    monkeypatch.setattr(collector_module, "entry_points", lambda group: [point] if group == "caslon.collectors" else [])
    entry = entry_of("letters", "anywhere")
    account = run(store, entry, monkeypatch)
    assert (account.items, account.new) == (1, 2)
    found = list(raw_files([entry], store))
    assert [(raw.path, raw.bytes, raw.metadata["title"]) for raw in found] == [
        ("a.txt", TEXT, "a.txt"), ("b.txt", TEXT, "b.txt"),
    ]  # fmt: skip
    with pytest.raises(UserError, match="no collector is called 'letter'") as caught:
        collector_for("letter", fetcher_on(store))
    assert "gutenberg" in str(caught.value) and "letters" in str(caught.value)


def test_every_collector_of_the_registry_is_there(store: Store) -> None:
    from caslon.corpus.registry_entry import COLLECTORS

    for name in COLLECTORS:
        found: Collector = collector_for(name, fetcher_on(store))
        assert callable(found.discover) and callable(found.fetch)
