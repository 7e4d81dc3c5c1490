import json
import os
import random
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from caslon.errors import StorageError
from caslon.train.checkpoint import Checkpoint, Checkpoints

OPTIMIZER = {"adamw.weight.exp_avg": torch.ones(100)}


def save_model(path: Path, facts: Mapping[str, Any]) -> None:
    (path / "model.safetensors").write_bytes(b"w" * 400)
    (path / "caslon.json").write_text(json.dumps(dict(facts)))


def state(step: int, *, regular: bool = True) -> dict[str, Any]:
    return {"step": step, "tokens": step * 10, "regular": regular}


def filled(folder: Path, *steps: int, keep: int = 2, best: int | None = None) -> tuple[Checkpoints, list[str]]:
    said: list[str] = []
    checkpoints = Checkpoints(folder / "checkpoints", keep, said.append)
    for step in steps:
        checkpoints.save(step, save_model, OPTIMIZER, state(step), best=step == best)
    return checkpoints, said


def steps_of(checkpoints: Checkpoints) -> list[int]:
    return [item.step for item in checkpoints.all()]


def newest(checkpoints: Checkpoints) -> Checkpoint:
    found = checkpoints.newest_intact()
    assert found is not None
    return found


def test_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    checkpoints, said = filled(tmp_path, 10, 20, 30, 40, 50, best=20)
    assert steps_of(checkpoints) == [20, 40, 50]
    assert checkpoints.best() == Checkpoint(tmp_path / "checkpoints" / "step-000020", 20)
    assert said == []


def test_milestones_stay(tmp_path: Path) -> None:
    said: list[str] = []
    checkpoints = Checkpoints(tmp_path / "checkpoints", 1, said.append, keep_every=20)
    for step in range(10, 80, 10):
        checkpoints.save(step, save_model, OPTIMIZER, state(step), best=step == 10)
    assert steps_of(checkpoints) == [10, 20, 40, 60, 70]


def test_a_checkpoint_of_a_stop_goes_when_the_next_one_is_there(tmp_path: Path) -> None:
    checkpoints, _ = filled(tmp_path, 10, 20)
    checkpoints.save(23, save_model, OPTIMIZER, state(23, regular=False), best=False)
    assert steps_of(checkpoints) == [10, 20, 23]
    checkpoints.save(30, save_model, OPTIMIZER, state(30), best=False)
    assert steps_of(checkpoints) == [20, 30]


def test_file_modes_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        checkpoints, _ = filled(tmp_path, 10)
    finally:
        os.umask(before)
    assert {oct(file.stat().st_mode & 0o777) for file in newest(checkpoints).path.iterdir()} == {"0o644"}


@pytest.mark.promise(
    "pretraining", "a damaged checkpoint is named, and the next older one taken with the steps that are lost"
)
@pytest.mark.parametrize("name", ["optim.safetensors", "model.safetensors", "trainer.json"])
def test_one_flipped_byte_falls_back_and_says_so(tmp_path: Path, name: str) -> None:
    checkpoints, said = filled(tmp_path, 10, 20)
    file = tmp_path / "checkpoints" / "step-000020" / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    assert newest(checkpoints).step == 10
    assert f"step-000020 is not intact: {name}" in said[0]
    assert "10 steps are lost" in said[1]


def test_a_missing_file_falls_back(tmp_path: Path) -> None:
    checkpoints, said = filled(tmp_path, 10, 20)
    (tmp_path / "checkpoints" / "step-000020" / "MANIFEST.json").unlink()
    assert newest(checkpoints).step == 10
    assert "MANIFEST.json is missing" in said[0]


@pytest.mark.promise(
    "pretraining", "a run none of whose checkpoints is intact stops with code 4 and never starts from zero"
)
def test_none_intact_is_an_error_and_never_a_start_from_zero(tmp_path: Path) -> None:
    checkpoints, _ = filled(tmp_path, 10)
    (tmp_path / "checkpoints" / "step-000010" / "caslon.json").write_text("{}")
    with pytest.raises(StorageError, match="no checkpoint of this run is intact"):
        checkpoints.newest_intact()


def test_what_a_kill_leaves_is_no_checkpoint_and_is_cleared(tmp_path: Path) -> None:
    filled(tmp_path, 10)
    left = tmp_path / "checkpoints" / ".step-000020.77"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    checkpoints, _ = filled(tmp_path)
    assert steps_of(checkpoints) == [10]
    assert not left.exists()


@pytest.mark.parametrize("after", range(9))
def test_a_save_that_dies_anywhere_leaves_a_valid_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Each rename, flush and write is a moment to die at; the exception stands for the end of the process."""
    filled(tmp_path, 10, best=10)

    class Killed(BaseException):
        pass

    calls = 0

    def dying(real: Any) -> Any:
        def call(*args: Any, **keywords: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > after:
                raise Killed
            return real(*args, **keywords)

        return call

    with monkeypatch.context() as patch:
        for name in ("rename", "replace", "symlink_to"):
            patch.setattr(Path, name, dying(getattr(Path, name)))
        patch.setattr(os, "fsync", dying(os.fsync))
        with suppress(Killed):
            filled(tmp_path, 20, best=20)
    checkpoints, _ = filled(tmp_path)
    found = newest(checkpoints)
    assert found.step in (10, 20)
    checkpoints.go_on_from(found, found.step)
    last = tmp_path / "checkpoints" / "last"
    assert Checkpoint(last.resolve(), found.step).problem() is None
    assert checkpoints.best() == found


@pytest.mark.promise("pretraining", "kill -9 at any moment of a save leaves a valid last checkpoint")
def test_kill_9_at_50_random_moments_of_saving_leaves_a_valid_last(tmp_path: Path) -> None:
    """A forked child saves without pause until it is killed; whatever is there then must load."""
    rng, interrupted = random.Random(0), 0
    filled(tmp_path, 10, best=10)
    folder = tmp_path / "checkpoints"
    for _ in range(50):
        step = int((folder / "last").readlink().name.removeprefix("step-"))
        child = os.fork()
        if child == 0:
            checkpoints, _ = filled(tmp_path)
            for number in range(1, 10_000):
                checkpoints.save(step + number, save_model, OPTIMIZER, state(step + number), best=number % 3 == 0)
            os._exit(0)
        time.sleep(rng.uniform(0.002, 0.04))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        interrupted += bool(list(folder.glob(".*")))
        for link in ("last", "best"):
            target = (folder / link).resolve()
            assert Checkpoint(target, 0).problem() is None, f"{link} -> {target.name}"
        assert newest(filled(tmp_path)[0]).step >= step
    assert interrupted  # some of the moments were within a save


def test_no_room_drops_old_checkpoints_first(tmp_path: Path) -> None:
    checkpoints, said = filled(tmp_path, 10, 20, keep=5)
    checkpoints.free_bytes = lambda path: 0 if len(checkpoints.all()) > 1 else 10**9
    assert checkpoints.save(30, save_model, OPTIMIZER, state(30), best=False) is not None
    assert steps_of(checkpoints) == [20, 30]
    assert said == []


def test_a_write_that_fails_is_a_warning_and_leaves_the_others(tmp_path: Path) -> None:
    checkpoints, said = filled(tmp_path, 10)

    def full(path: Path, facts: Mapping[str, Any]) -> None:
        raise OSError(28, "No space left on device")

    assert checkpoints.save(20, full, OPTIMIZER, state(20), best=False) is None
    assert "No space left" in said[0]
    assert newest(checkpoints).step == 10
    assert not list((tmp_path / "checkpoints").glob(".step*"))
