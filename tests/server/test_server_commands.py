"""The commands of who runs a service."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from caslon.cli import app
from caslon.errors import CaslonError, UserError
from caslon.server.audit import AuditLog
from caslon.server.keys import KeyStore


def caslon(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_key_from_its_making_to_its_end(tmp_path: Path) -> None:
    state = ("--state", str(tmp_path / "s"))
    made = json.loads(
        caslon("keys", "create", "--name", "robot", "--expires", "90d", "--limit", "concurrent=2", *state, "--json")
    )
    store = KeyStore(tmp_path / "s")
    assert store.found(made["key"]).allowance.concurrent == 2
    assert made["key"] not in caslon("keys", "list", *state)
    new = json.loads(caslon("keys", "rotate", made["id"], *state, "--json"))
    assert store.found(new["key"]).holder == made["id"]
    caslon("keys", "revoke", new["id"], *state)
    assert store.found(new["key"]) is None
    states = {key["id"]: key["state"] for key in json.loads(caslon("keys", "list", *state, "--json"))}
    assert states == {made["id"]: "valid", new["id"]: "revoked"}
    assert json.loads(caslon("keys", "usage", *state, "--json")) == []
    for wrong in (("--expires", "soon"), ("--limit", "speed=3"), ("--scopes", "root")):
        with pytest.raises(UserError):
            caslon("keys", "create", "--name", "x", *state, *wrong)


def test_audit_verify_says_where_it_broke(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, max_bytes=1 << 20)
    for number in range(5):
        log.append({"number": number})
    log.close()
    head = json.loads(caslon("audit", "verify", "--state", str(tmp_path), "--json"))["head"]
    assert head.startswith("5:")
    caslon("audit", "verify", "--state", str(tmp_path), "--head", head)
    path = tmp_path / "audit.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"number":2', b'"number":9'))
    with pytest.raises(CaslonError) as broken:
        caslon("audit", "verify", "--state", str(tmp_path))
    assert broken.value.where == f"{path}, line 4"
    with pytest.raises(UserError, match="no audit log"):
        caslon("audit", "verify", "--state", str(tmp_path / "nothing"))


def test_dashboard_and_alerts_are_written(tmp_path: Path) -> None:
    caslon("monitoring", str(tmp_path))
    assert json.loads((tmp_path / "dashboard.json").read_text())["title"] == "caslon"
    assert "alert:" in (tmp_path / "alerts.yml").read_text()
