import stat
import time
from pathlib import Path

import pytest

from caslon.errors import UserError
from caslon.server.allowance import Allowance, allowance_of, allowances_of
from caslon.server.keys import KeyStore


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore.made(tmp_path / "state")


def test_a_key_lets_in_and_only_as_it_is(store: KeyStore) -> None:
    key, shown = store.create("laptop", scopes=("infer", "embed"), models=("fox",))
    assert store.found(shown) == key
    for wrong in (
        "",
        "x",
        shown[:-1],
        shown + "x",
        shown.removeprefix("sk-caslon-"),
        f"sk-caslon-{key.id}-",
        shown[:30],
    ):
        assert store.found(wrong) is None
    assert key.may_use("fox")
    assert not key.may_use("wolf")


@pytest.mark.promise("server", "No file of the service holds a key, and the pepper is readable by its owner only")
def test_the_files_hold_no_key(store: KeyStore, tmp_path: Path) -> None:
    _, shown = store.create("laptop")
    secret = shown.rpartition("-")[2].encode()
    files = [path for path in (tmp_path / "state").iterdir() if path.is_file()]
    assert all(secret[:12] not in path.read_bytes() for path in files)
    assert stat.S_IMODE((tmp_path / "state" / "pepper").stat().st_mode) == 0o600
    (tmp_path / "state" / "pepper").chmod(0o644)
    with pytest.raises(UserError, match="others may read"):
        KeyStore(tmp_path / "state")


def test_revoked_expired_and_replaced_keys(store: KeyStore, tmp_path: Path) -> None:
    other = KeyStore(tmp_path / "state")
    key, shown = store.create("laptop")
    assert other.found(shown)
    assert other.still_valid([key.id, "nobody"]) == {key.id}
    store.revoke(key.id)
    assert other.still_valid([key.id]) == set()
    assert other.found(shown) is None
    _, expired = store.create("short", expires=time.time() - 1)
    assert store.found(expired) is None
    old, old_shown = store.create("robot", allowance=Allowance(tokens_per_day=5))
    new, new_shown = store.rotate(old.id)
    assert new.holder == old.id
    assert new.allowance == old.allowance
    assert store.found(new_shown)
    until = store.found(old_shown).expires
    assert 23.9 * 3600 < until - time.time() <= 24 * 3600
    with pytest.raises(UserError, match="no key"):
        store.revoke("nothing")
    with pytest.raises(UserError, match="scope"):
        store.create("x", scopes=("root",))


def test_limits_are_written_as_words() -> None:
    assert allowance_of(["requests_per_minute=60"], "--limit") == Allowance(requests_per_minute=60)
    both = allowances_of(["key:concurrent=2", "all:tokens_per_day=1_000_000"])
    assert both["key"] == Allowance(concurrent=2)
    assert both["all"] == Allowance(tokens_per_day=1_000_000)
    for wrong in ("requests=60", "key:requests_per_hour=1", "key:concurrent=0", "key:concurrent=-1", "key:concurrent"):
        with pytest.raises(UserError):
            allowances_of([wrong])
    assert Allowance(concurrent=3).over(Allowance(concurrent=9, tokens_per_day=7)) == Allowance(None, None, 3, 7)
