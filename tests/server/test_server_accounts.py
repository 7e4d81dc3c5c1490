import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from caslon.server.accounts import Account, Accounts
from caslon.server.allowance import Allowance
from caslon.server.errors import Refused


def reserve_all(folder: Path, number: int, requests: int) -> int:
    accounts = Accounts(folder)
    account = Account("key:a", Allowance(tokens_per_day=1000))

    def admitted(index: int) -> bool:
        entry = accounts.enter(f"{number}-{index}", [account])
        try:
            accounts.reserve(entry, 10)
        except Refused as refused:
            assert refused.code == "budget_exceeded"
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        return sum(threads.map(admitted, range(requests)))


@pytest.mark.promise(
    "server", "200 parallel requests against a budget for 100 admit exactly 100, in one process or in several"
)
def test_parallel_requests_never_overdraw(tmp_path: Path) -> None:
    assert reserve_all(tmp_path / "one", 0, 200) == 100
    with multiprocessing.get_context("spawn").Pool(2) as processes:
        counts = processes.starmap(reserve_all, [(tmp_path / "several", number, 100) for number in range(2)])
    assert sum(counts) == 100


def test_what_was_not_used_is_given_back(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path)
    account = Account("key:a", Allowance(tokens_per_day=100, tokens_per_minute=100, tokens_per_month=100))
    for number in range(10):
        entry = accounts.enter(str(number), [account])
        accounts.reserve(entry, 100 - 10 * number)
        accounts.settle(entry, ["key:a"], 4, 6)
    entry = accounts.enter("last", [account])
    with pytest.raises(Refused, match="may use 100 tokens") as refused:
        accounts.reserve(entry, 1)
    assert refused.value.status == 429
    [used] = accounts.usage()
    assert (used.holder, used.requests, used.prompt_tokens, used.completion_tokens) == ("key:a", 10, 40, 60)


def test_one_limit_that_refuses_leaves_the_others_as_they_were(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path, clock=lambda: 1000.0)
    tight, wide = Account("key:a", Allowance(requests_per_minute=1)), Account("all", Allowance(requests_per_minute=3))
    entry = accounts.enter("1", [wide, tight])
    assert entry.headers["x-ratelimit-limit-requests"] == "1"
    assert entry.headers["x-ratelimit-remaining-requests"] == "0"
    for number in range(5):
        with pytest.raises(Refused) as refused:
            accounts.enter(f"no-{number}", [wide, tight])
        assert int(refused.value.headers["retry-after"]) == 60
    assert accounts.enter("2", [wide]).headers["x-ratelimit-remaining-requests"] == "1"


def test_headers_tell_of_the_limit_that_leaves_least(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path, clock=lambda: 1000.0)
    wide = Account("all", Allowance(tokens_per_minute=1000, tokens_per_day=5000))
    tight = Account("key:a", Allowance(tokens_per_day=700, requests_per_minute=9))
    left = "x-ratelimit-remaining-tokens"
    assert accounts.told([wide, tight])[left] == "700"
    assert accounts.told([wide, tight])["x-ratelimit-remaining-requests"] == "9"
    entry = accounts.enter("1", [wide, tight])
    assert (entry.headers[left], entry.headers["x-ratelimit-limit-tokens"]) == ("700", "700")
    accounts.reserve(entry, 600)
    assert entry.headers[left] == "100"
    with pytest.raises(Refused) as refused:  # what the others would have set aside is not told
        accounts.reserve(accounts.enter("2", [wide, tight]), 300)
    assert refused.value.headers[left] == "100"
    assert refused.value.headers["x-ratelimit-reset-tokens"] == "85400.000s"


def hold_open(folder: Path, ready) -> None:
    accounts = Accounts(folder)
    entry = accounts.enter("held", [Account("key:a", Allowance(concurrent=1, tokens_per_day=100))])
    accounts.reserve(entry, 70)
    ready.set()
    time.sleep(60)


@pytest.mark.promise(
    "server", "Limits survive kill -9: tokens stay charged, the killed process holds no place any more"
)
def test_after_kill_9(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold_open, args=(tmp_path, ready))
    process.start()
    assert ready.wait(30)
    account = Account("key:a", Allowance(concurrent=1, tokens_per_day=100))
    with pytest.raises(Refused) as refused:
        Accounts(tmp_path).enter("second", [account])
    assert refused.value.code == "too_many_open_requests"
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    accounts = Accounts(tmp_path)
    entry = accounts.enter("third", [account])
    with pytest.raises(Refused):
        accounts.reserve(entry, 31)
    accounts.reserve(entry, 30)


@pytest.mark.promise("server", "When the limits cannot be read the answer is 503, never 'no limit'")
def test_a_store_that_fails_refuses(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path)
    accounts.close()
    with pytest.raises(Refused) as refused:
        accounts.enter("1", [Account("all", Allowance(concurrent=1))])
    assert (refused.value.status, refused.value.code) == (503, "store_unavailable")


def test_the_twenty_first_wrong_key_of_a_minute(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path)
    for _ in range(20):
        accounts.failed_key("10.0.0.1")
    with pytest.raises(Refused) as refused:
        accounts.failed_key("10.0.0.1")
    assert refused.value.status == 429
    accounts.failed_key("10.0.0.2")


def test_threads_share_one_file(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path)
    account = Account("key:a", Allowance(concurrent=5))
    refusals = []

    def open_and_close(number: int) -> None:
        try:
            accounts.settle(accounts.enter(str(number), [account]), ["key:a"], 1, 1)
        except Refused:
            refusals.append(number)

    threads = [threading.Thread(target=open_and_close, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert accounts.usage()[0].requests == 40 - len(refusals)
    accounts.enter("after", [account])
