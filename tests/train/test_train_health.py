"""Each note on a run's health appears when it should, once, and not in a healthy run."""

import math

import pytest

from caslon.train.health import Health

CHANCE = math.log(256)
REWIND = "caslon rewind london --steps 100 --lr-scale 0.1 --for 200"


def health(rows_per_epoch: int = 10**6) -> Health:
    return Health(chance_loss=CHANCE, rows_per_step=4, rows_per_epoch=rows_per_epoch, rewind=REWIND)


def steps(watched: Health, losses: list[float], norm: float = 1.0) -> list[str]:
    return [note for step, loss in enumerate(losses, start=1) for note in watched.after_step(step, loss, norm)]


def falling(count: int) -> list[float]:
    return [5.0 * 0.999**step for step in range(count)]


@pytest.mark.promise("pretraining", "notes on a run's health are printed once each, and none in a healthy run")
def test_a_healthy_run_has_no_notes() -> None:
    watched = health()
    assert steps(watched, falling(2500)) == []
    for number in range(20):
        assert watched.after_evaluation(number / 20, 3.0 - 0.1 * number, 3.1 - 0.1 * number) == []
    assert [note for _ in range(100) for note in watched.after_waiting(0.001, 0.1)] == []


def test_a_loss_above_chance_after_200_steps() -> None:
    watched = health()
    assert steps(watched, [6.0] * 199) == []
    notes = steps(watched, [6.0] * 400)
    assert len(notes) == 1
    assert "6.000" in notes[0] and f"{CHANCE:.3f}" in notes[0]


def test_no_fall_in_1000_steps() -> None:
    notes = steps(health(), falling(500) + [3.3] * 1500)
    assert len(notes) == 1
    assert notes[0].startswith("no progress: the training loss has not fallen since step 500")


def test_a_gradient_norm_above_10_for_20_steps() -> None:
    assert steps(health(), falling(19), norm=11.0) == []
    notes = steps(health(), falling(60), norm=11.0)
    assert len(notes) == 1
    assert "above 10 for 20 steps up to step 20" in notes[0]


def test_more_than_four_epochs() -> None:
    watched = health(rows_per_epoch=40)  # ten steps
    assert steps(watched, falling(40)) == []
    notes = [note for step in range(41, 100) for note in watched.after_step(step, 3.0, 1.0)]
    assert notes == [
        "repeated data: the same text is now read for the 5th time; use more text, fewer steps or a smaller model"
    ]


def test_validation_rising_while_training_falls() -> None:
    watched = health()
    said = [
        watched.after_evaluation(share, train, validation)
        for share, train, validation in ((0.1, 3.0, 3.1), (0.2, 2.9, 3.2), (0.3, 2.8, 3.3), (0.4, 2.7, 3.4))
    ]
    assert [len(notes) for notes in said] == [0, 0, 1, 0]
    assert "validation loss rises (3.1000 to 3.3000)" in said[2][0]


def test_waiting_for_data_over_a_tenth_of_the_step() -> None:
    watched = health()
    notes = [note for _ in range(100) for note in watched.after_waiting(0.02, 0.1)]
    assert len(notes) == 1
    assert "20% of the step time" in notes[0]


@pytest.mark.promise("pretraining", "a plateau of the validation loss is suspected with the command to go back")
def test_a_plateau_names_the_rewind_command() -> None:
    watched = health()
    notes = [note for number in range(30) for note in watched.after_evaluation(number / 60, 3.0, 3.1 - 1e-4 * number)]
    assert len(notes) == 1
    assert notes[0].endswith(REWIND)
    late = health()
    assert [n for number in range(30) for n in late.after_evaluation(0.9 + number / 300, 3.0, 3.1)] == []


def test_half_a_percent_in_ten_evaluations_is_no_plateau() -> None:
    watched = health()
    assert [n for number in range(40) for n in watched.after_evaluation(number / 60, 3.0, 3.0 * 0.999**number)] == []


def test_what_was_said_before_a_stop_is_not_said_again() -> None:
    first, second = health(), health()
    assert steps(first, falling(60), norm=11.0)
    second.load(first.state())
    assert steps(second, falling(60), norm=11.0) == []
