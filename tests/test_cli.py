import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CASLON = str(Path(sys.executable).parent / "caslon")


def caslon(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CASLON, *arguments], capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment}, timeout=60
    )


def test_help_lists_the_verbs_without_loading_torch():
    code = "import sys, caslon.cli; assert not {'torch', 'transformers', 'rich', 'pydantic'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    result = caslon("--help")
    assert result.returncode == 0
    for verb in ("run", "plan", "explain", "why", "chat", "generate", "serve"):
        assert verb in result.stdout


def test_version():
    assert caslon("--version").stdout.strip() == "0.1.0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "nowhere.toml"), "no recipe at nowhere.toml"),
        (("rum",), "No such command"),
        (("report", "nothing"), "no run at"),
        (("why", "0123456789abcdef"), "no id"),
        (("explain", "0123456789abcdef"), "no id"),
        (("generate", "nowhere", "--prompt", "x"), "nowhere"),
    ],
)
def test_mistakes_exit_with_2_and_no_traceback(tmp_path, arguments, message):
    result = caslon(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_check_names_file_and_line(tmp_path):
    (tmp_path / "r.toml").write_text('name = "x"\n[corpus]\nsources = "python"\nworkers_ = 2\n')
    result = caslon("check", "r.toml", cwd=tmp_path)
    assert result.returncode == 2
    assert "r.toml:4" in result.stderr
    assert "did you mean 'workers'" in result.stderr


def test_show_and_plan_and_schema_as_json(tmp_path):
    recipe = str(Path(__file__).parents[1] / "recipes" / "quickstart.toml")
    shown = json.loads(caslon("show", recipe, "--json", cwd=tmp_path).stdout)
    assert shown["name"] == "quickstart"
    planned = json.loads(caslon("plan", recipe, "--json", cwd=tmp_path).stdout)
    assert planned[0]["stage"] == "corpus"
    assert all(stage["state"] == "to do" for stage in planned)
    assert not (tmp_path / "runs").exists()
    schema = json.loads(caslon("schema").stdout)
    assert "pretrain" in schema["properties"]


def test_runs_of_an_empty_folder_says_how_to_start(tmp_path):
    result = caslon("runs", cwd=tmp_path)
    assert result.returncode == 0
    assert "caslon run recipes/quickstart.toml" in result.stdout
    assert json.loads(caslon("runs", "--json", cwd=tmp_path).stdout) == []


def test_no_color_and_pipes(tmp_path):
    assert "\x1b" not in caslon("runs", cwd=tmp_path, NO_COLOR="1").stdout
    piped = subprocess.run(f"{CASLON} schema | head -1", shell=True, capture_output=True, text=True)
    assert piped.stdout == "{\n"
    assert piped.stderr == ""
