import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_stages import fake_stages

from caslon import runner
from caslon.errors import Stopped, UserError
from caslon.folders import StageFolder, lock
from caslon.recipe import load_recipe
from caslon.run_list import collect_garbage, key_figures, run_rows

RECIPE = """
name = "small"
[corpus]
source = "a.txt"
[pretrain]
steps = 5
[evaluate]
"""


@pytest.fixture
def calls(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("the thames")
    Path("recipe.toml").write_text(RECIPE)
    with fake_stages(monkeypatch) as called:
        yield called


def run(*overrides: str, **options) -> Path:
    return runner.run(load_recipe(Path("recipe.toml"), overrides), Path("runs"), **options)


def test_a_second_run_does_nothing(calls):
    run()
    assert calls == ["corpus", "pretrain", "evaluate"]
    run()
    assert calls == ["corpus", "pretrain", "evaluate"]


def test_a_changed_comment_reruns_nothing(calls):
    run()
    Path("recipe.toml").write_text("# a comment\n" + RECIPE)
    calls.clear()
    run()
    assert calls == []


def test_a_changed_setting_reruns_the_stages_that_depend_on_it(calls):
    run()
    calls.clear()
    run("pretrain.steps=6")
    assert calls == ["pretrain", "evaluate"]


def test_a_setting_without_effect_on_the_output_reruns_nothing(calls):
    run()
    calls.clear()
    run("corpus.workers=4")
    assert calls == []


def test_changed_source_bytes_rerun_everything_but_equal_output_stops_the_chain(calls):
    run()
    calls.clear()
    Path("a.txt").write_text("the fleet")
    run()
    assert calls == ["corpus", "pretrain", "evaluate"]


def test_going_back_to_old_settings_finds_the_old_result(calls):
    folder = run()
    before = StageFolder.open(folder / "pretrain").digest
    run("pretrain.steps=6")
    calls.clear()
    run()
    assert calls == []
    assert StageFolder.open(folder / "pretrain").digest == before


def test_until_and_only(calls):
    run(until="corpus")
    assert calls == ["corpus"]
    run(only="pretrain")
    assert calls == ["corpus", "pretrain"]
    with pytest.raises(UserError, match="did you mean 'pretrain'"):
        run(only="pretran")


def test_only_without_its_inputs_says_so(calls):
    with pytest.raises(UserError, match="no finished stage"):
        run(only="pretrain")


def test_a_stopped_stage_leaves_no_finished_folder_and_goes_on(calls):
    with pytest.raises(Stopped):
        run("pretrain.fail=true")
    assert not Path("runs/small/pretrain").exists()
    assert Path("runs/small/pretrain.partial").is_dir()
    assert run_rows(Path("runs"))[0].status == "unfinished"
    run()
    assert Path("runs/small/pretrain/manifest.json").is_file()
    assert not Path("runs/small/pretrain.partial").exists()


def test_work_begun_under_other_settings_is_set_aside_and_comes_back(calls):
    with pytest.raises(Stopped):
        run("pretrain.fail=true")
    left = Path("runs/small/pretrain.partial/half-done")
    left.write_text("hours of work")
    run("pretrain.steps=6")
    assert not left.exists()
    with pytest.raises(Stopped):
        run("pretrain.fail=true")
    assert left.read_text() == "hours of work"


def test_plan_says_what_is_done(calls):
    recipe = load_recipe(Path("recipe.toml"))
    assert [stage.state for stage in runner.plan(recipe, Path("runs"))] == ["to do"] * 3
    run(until="pretrain")
    planned = runner.plan(recipe, Path("runs"))
    assert [stage.state for stage in planned] == ["done", "done", "to do"]
    assert planned[1].rows[0].value == 5
    assert planned[2].key is not None


def test_the_second_run_on_one_folder_is_refused_with_the_pid(calls):
    holder = subprocess.Popen(
        [sys.executable, "-c", "from caslon.folders import lock\nfrom pathlib import Path\n"
         "with lock(Path('runs/small')):\n    print('held', flush=True)\n    input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=str(holder.pid)):
        run()
    holder.kill()
    holder.wait()
    run()  # the operating system frees the lock of a killed process


def test_lock_file_holds_the_pid(tmp_path):
    with lock(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_garbage_is_listed_then_deleted_and_results_stay(calls):
    run()
    run("pretrain.steps=6")
    listed = collect_garbage(Path("runs"), delete=False)
    assert sorted(path.name.split("-")[0] for path, _ in listed) == ["evaluate", "pretrain"]
    assert all(path.is_dir() for path, _ in listed)
    collect_garbage(Path("runs"), delete=True)
    assert not any(path.exists() for path, _ in listed)
    assert Path("runs/small/pretrain/manifest.json").is_file()


def test_verify_names_a_changed_file(calls):
    folder = run() / "pretrain"
    StageFolder.open(folder).verify()
    (folder / "model" / "weights.json").write_text("{}")
    with pytest.raises(Exception, match="changed after it was written"):
        StageFolder.open(folder).verify()


def test_lineage_leads_back_to_the_source(calls):
    from caslon.lineage import ancestors, file_entry

    folder = run()
    chain = ancestors(folder / "pretrain" / "model")
    assert [a.folder.path.name for a in chain] == ["pretrain", "corpus"]
    assert any("a.txt" in source for source in chain[1].folder.manifest.sources)
    assert file_entry(folder / "pretrain" / "model" / "weights.json")["intact"]
    with pytest.raises(UserError, match="not part of a finished stage"):
        ancestors(Path("recipe.toml"))


def test_key_figures_begin_with_what_a_stage_is_judged_by():
    totals = {
        "best_step": 5,
        "parameters": 1328512,
        "steps": 550,
        "val_bpb": 1.8146,
        "peak_memory_bytes": 9,
        "rejects": {},
    }
    assert key_figures(totals) == "1.815 validation bits per byte, 1,328,512 parameters, 550 steps"
    assert key_figures({"text_bytes": 13_537_610, "documents": 1176}) == "1,176 documents, 13.5 MB text"
