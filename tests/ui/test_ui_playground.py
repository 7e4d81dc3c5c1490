"""The page in a real browser: it works, it asks nobody but its own server, and a screenshot of it can be looked at."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from simulated_engine import CONTEXT, SimulatedEngine

from caslon.server.keys import KeyStore
from caslon.server.run import running_server
from caslon.server.settings import ServerSettings

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run"]  # fmt: skip
PATIENCE_MS = 20_000
TOLD = ("curl", "Python", "Prompt as the model saw it")
# Whatever could be scrolled sideways.
SCROLLING = """() => [...document.querySelectorAll("*")].filter(one => one.offsetParent && one.scrollWidth > one.clientWidth
  && ["auto", "scroll"].includes(getComputedStyle(one).overflowX)).map(one => one.className)"""

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (apt-get install chromium)")


@pytest.fixture(scope="module")
def page_engine(tokenizer) -> SimulatedEngine:
    return SimulatedEngine(tokenizer)


@pytest.fixture(scope="module")
def page_key(tmp_path_factory) -> str:
    return KeyStore.made(tmp_path_factory.getbasetemp() / "page-state").create("page")[1]


@pytest.fixture(scope="module")
def page_url(page_engine: SimulatedEngine, page_key: str, tmp_path_factory) -> Iterator[str]:
    settings = ServerSettings(page=True, state=tmp_path_factory.getbasetemp() / "page-state")
    with running_server(page_engine, "fox", settings) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def asked() -> list[str]:
    """Every address any page of this module asked for."""
    return []


@pytest.fixture
def page(
    browser, page_url: str, page_key: str, page_engine: SimulatedEngine, asked: list[str]
) -> Iterator["playwright.Page"]:
    page_engine.finished.clear()
    page_engine.seen.clear()
    page_engine.seconds_per_token = 0.0
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, http_credentials={"username": "any", "password": page_key}
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.on("request", lambda request: asked.append(request.url))
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(page_url)
    page.get_by_role("button", name="Generate").wait_for()
    yield page
    context.close()
    assert faults == []


def press(page: "playwright.Page", name: str) -> None:
    page.locator("button:visible", has_text=name).first.click()


def facts(page: "playwright.Page", words: str) -> str:
    line = page.locator(".facts:visible", has_text=words)
    line.wait_for()
    return line.inner_text()


@needs_browser
def test_completion_with_probabilities(page, page_engine: SimulatedEngine, tmp_path: Path) -> None:
    page.get_by_label("Prompt").fill("the <b>fox</b>")
    page.get_by_label("Seed").first.fill("5")
    press(page, "Generate")
    assert "128 tokens" in facts(page, "reached the limit")
    text = page.locator(".answer").inner_text()
    assert text.startswith("the <b>fox</b>[5] The quick brown fox — ünïcode 🦊 jumps")
    token = page.locator(".tok").nth(4)
    token.hover()
    assert token.locator(".tip").is_visible()
    assert "60.7 %" in token.locator(".tip").inner_text()
    assert page_engine.seen[0][1].seed == 5
    page.screenshot(path=tmp_path / "completion.png", full_page=True)
    assert (tmp_path / "completion.png").stat().st_size > 20_000


@needs_browser
def test_stop_and_what_does_not_fit(page, page_engine: SimulatedEngine) -> None:
    page_engine.seconds_per_token = 0.05
    press(page, "Generate")
    page.locator(".tok").nth(2).wait_for()
    press(page, "Stop")
    facts(page, "stopped")
    assert page_engine.finished == ["abort"]
    page.get_by_label("Prompt").fill("z" * CONTEXT)
    press(page, "Generate")
    problem = page.locator(".problem:visible")
    problem.wait_for()
    assert "context" in problem.inner_text()


@needs_browser
def test_chat_stop_retry_clear(page, page_engine: SimulatedEngine) -> None:
    page.get_by_role("tab", name="Chat").click()
    page.get_by_role("textbox", name="Message", exact=True).fill("What is <i>this</i>?")
    press(page, "Send")
    facts(page, "reached the limit")
    assert page.get_by_text("What is <i>this</i>?").is_visible()
    first = page_engine.seen[-1][0]
    page_engine.seconds_per_token = 0.05
    press(page, "Retry")
    page.locator(".cursor").wait_for()
    press(page, "Stop")
    facts(page, "stopped")
    assert page_engine.seen[-1][0] == first
    assert page_engine.finished == ["length", "abort"]
    press(page, "Clear")
    page.get_by_text("What is <i>this</i>?").wait_for(state="detached")


@needs_browser
def test_a_question_waits_until_the_last_one_is_answered(page, page_engine: SimulatedEngine) -> None:
    page_engine.seconds_per_token = 0.02
    page.get_by_role("tab", name="Chat").click()
    box = page.get_by_role("textbox", name="Message", exact=True)
    box.fill("First?")
    press(page, "Send")
    page.get_by_text("The quick").first.wait_for()
    playwright.expect(page.locator("button:visible", has_text="Send")).to_be_disabled()
    box.fill("Second?")
    box.press("Enter")
    facts(page, "reached the limit")
    assert len(page_engine.seen) == 1
    assert box.input_value() == "Second?"
    playwright.expect(page.locator("button:visible", has_text="Send")).to_be_enabled()
    press(page, "Edit")
    page.locator(".turn.user").wait_for(state="detached")
    assert box.input_value() == "First?"
    press(page, "Send")
    playwright.expect(page.locator(".turn.user")).to_have_count(1)
    playwright.expect(page.locator("button:visible", has_text="Delete")).to_be_disabled()
    playwright.expect(page.locator("button:visible", has_text="Delete")).to_be_enabled()
    press(page, "Delete")
    page.locator(".turn").first.wait_for(state="detached")
    assert page_engine.seen[1][0] == page_engine.seen[0][0]


@needs_browser
def test_answers_side_by_side_and_the_request_as_code(page, page_engine: SimulatedEngine) -> None:
    page.get_by_label("Prompt").fill("the fox")
    page.get_by_role("spinbutton", name="Answers side by side").fill("2")
    page.keyboard.press("Tab")
    page.get_by_text("More", exact=True).first.click()
    page.get_by_role("spinbutton", name="Top-k").first.fill("7")
    page.keyboard.press("Tab")
    page.get_by_text("This request as code").first.click()
    press(page, "Generate")
    facts(page, "reached the limit")
    assert page.locator(".side-by-side .answer").count() == 2
    assert [params.top_k for _, params in page_engine.seen] == [7, 7]
    told = {label: page.locator("label:visible", has_text=label).locator("textarea").input_value() for label in TOLD}
    assert "/v1/completions" in told["curl"]
    assert '"top_k": 7' in told["curl"]
    assert "extra_body=" in told["Python"]
    assert told["Prompt as the model saw it"] == "the fox"
    assert page.evaluate(SCROLLING) == []


@needs_browser
def test_the_form_of_the_answer(page, page_engine: SimulatedEngine) -> None:
    page.get_by_text("Form of the answer").first.click()
    page.get_by_label("Form", exact=True).first.click()
    page.get_by_role("option", name="JSON schema").click()
    page.get_by_label("Schema, expression").first.fill('{"type": ')
    press(page, "Generate")
    problem = page.locator(".problem:visible")
    problem.wait_for()
    assert "the schema is not JSON" in problem.inner_text()
    assert page_engine.seen == []


@needs_browser
def test_closing_the_page_stops_its_answer(page, page_engine: SimulatedEngine) -> None:
    page_engine.seconds_per_token = 0.1
    press(page, "Generate")
    page.locator(".tok").first.wait_for()
    page.close()
    for _ in range(100):
        if page_engine.finished:
            break
        page_engine.gate.wait()
        import time

        time.sleep(0.05)
    assert page_engine.finished == ["abort"]


@needs_browser
def test_no_request_left_the_server(page, page_url: str, asked: list[str]) -> None:
    outside = [url for url in asked if not url.startswith((page_url, "data:", "blob:"))]
    assert outside == []
    assert len(asked) > 10


def test_page_is_guarded_and_told_to_ask_nobody_else(page_url: str, page_key: str) -> None:
    assert httpx.get(page_url).status_code == 401
    answer = httpx.get(page_url, auth=("any", page_key))
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert httpx.get(f"{page_url}/v1/nothing", auth=("any", page_key)).json()["error"]["code"] == "not_found"
