import pytest

from caslon.train.schedule import Schedule

SLM = Schedule("cosine", 3e-4, 60_000, 500, 3e-5)
REGULAR = Schedule("cosine", 3e-5, 60_000, 1_000, 3e-6)
LLAMA = Schedule("cosine", 5e-4, 1_000, 0, 1e-5)
WSD = Schedule("wsd", 1e-3, 1_000, 100, 0.0, 200)


@pytest.mark.promise("pretraining", "the schedules give the published rates to seven digits")
@pytest.mark.parametrize(
    ("schedule", "iteration", "rate"),
    [
        (SLM, 0, 5.988024e-07),
        (SLM, 499, 2.994012e-04),
        (SLM, 500, 3.0e-04),
        (SLM, 30_250, 1.65e-04),
        (SLM, 45_000, 7.017269e-05),
        (SLM, 60_000, 3.0e-05),
        (REGULAR, 0, 2.997003e-08),
        (REGULAR, 999, 2.997003e-05),
        (REGULAR, 30_500, 1.65e-05),
        (REGULAR, 45_000, 7.081974e-06),
        (REGULAR, 60_000, 3.0e-06),
        (LLAMA, 0, 5.0e-04),
        (LLAMA, 1, 4.9999879097e-04),
        (LLAMA, 500, 2.55e-04),
        (LLAMA, 1_000, 1.0e-05),
        (WSD, 99, 9.900990e-04),
        (WSD, 800, 1.0e-03),
        (WSD, 900, 5.0e-04),
        (WSD, 1_000, 0.0),
    ],
)
def test_published_rates_to_seven_digits(schedule: Schedule, iteration: int, rate: float) -> None:
    assert f"{schedule.rate(iteration):.6e}" == f"{rate:.6e}"


def test_linear_falls_straight_to_the_floor_and_stays() -> None:
    schedule = Schedule("linear", 1.0, 10, 0, 0.1)
    assert schedule.rate(5) == pytest.approx(0.55)
    assert schedule.rate(10) == schedule.rate(99) == 0.1


def test_constant_keeps_the_peak_after_warm_up() -> None:
    schedule = Schedule("constant", 1.0, 10, 3, 0.1)
    assert [schedule.rate(step) for step in (0, 2, 3, 50)] == [0.25, 0.75, 1.0, 1.0]
