"""How many replicas a load asks for, how slowly they go, and what a policy would have cost."""

from pathlib import Path

import pytest

from caslon.deploy.autoscale import Autoscaler, Policy, desired_replicas
from caslon.deploy.simulate import read_arrivals, simulated
from caslon.errors import UserError
from caslon.settings import checked


@pytest.mark.promise("deploy", "replicas follow the autoscaler's published formula")
@pytest.mark.parametrize(
    ("current", "metric", "target", "desired"),
    [(2, 60, 30, 4), (3, 85, 50, 6), (5, 80, 80, 5), (3, 0.1, 0.3, 1), (4, 0, 9, 0)],
)
def test_the_formula(current: int, metric: float, target: float, desired: int) -> None:
    assert desired_replicas(current, metric, target) == desired


def test_targets_and_windows() -> None:
    assert Policy(knee_users=34).target == 17
    assert Policy(knee_users=34, load="steady").target == pytest.approx(27.2)
    assert Policy(knee_users=1, boot_seconds=60).down_window == 300
    assert Policy(knee_users=1, boot_seconds=420).down_window == 480
    with pytest.raises(UserError, match=r"min_replicas \(3\) must be at most"):
        checked(Policy, knee_users=1, min_replicas=3, max_replicas=2)


def test_up_at_once_and_within_bounds() -> None:
    scaler = Autoscaler(Policy(knee_users=20, max_replicas=6))
    assert scaler.replicas(0, 1, 35) == 4
    assert scaler.replicas(15, 4, 500) == 6
    assert Autoscaler(Policy(knee_users=20, min_replicas=0)).replicas(0, 0, 1) == 1


@pytest.mark.promise("deploy", "replicas go only after the window has seen no need for them, and one a minute")
def test_down_after_the_window_and_slowly() -> None:
    scaler = Autoscaler(Policy(knee_users=20, max_replicas=10))
    current, seen = scaler.replicas(0, 1, 60), []
    assert current == 6
    for now in range(15, 700, 15):
        fewer = scaler.replicas(now, current, 0)
        if fewer != current:
            seen.append((now, fewer))
        current = fewer
    assert seen == [(315, 5), (375, 4), (435, 3), (495, 2), (555, 1)]


def test_many_replicas_go_by_tenths() -> None:
    scaler = Autoscaler(Policy(knee_users=2, max_replicas=200, down_window_seconds=0))
    assert scaler.replicas(0, 100, 0) == 90
    assert scaler.replicas(30, 90, 0) == 90
    assert scaler.replicas(60, 90, 0) == 89  # the one a minute
    assert scaler.replicas(300, 89, 0) == 81  # a tenth of 90, less the one


def burst() -> list[float]:
    """Return two bursts of ten minutes, 200 seconds apart, of four requests a second."""
    return [begin + index / 4 for begin in (0.0, 800.0) for index in range(2400)]


def test_a_longer_window_flaps_less_and_costs_more() -> None:
    kept = simulated(burst(), Policy(knee_users=10, boot_seconds=60), answer_seconds=5, slo_wait_seconds=10)
    let_go = Policy(knee_users=10, boot_seconds=60, down_window_seconds=0, metric_window_seconds=15)
    hasty = simulated(burst(), let_go, answer_seconds=5, slo_wait_seconds=10)
    assert kept.requests == hasty.requests == 4800
    assert kept.flaps < hasty.flaps
    assert kept.most_replicas >= 4


def test_enough_replicas_keep_nobody_waiting() -> None:
    outcome = simulated([float(at) for at in range(100)], Policy(knee_users=10), answer_seconds=3, slo_wait_seconds=0)
    assert (outcome.misses, outcome.most_replicas, outcome.flaps) == (0, 1, 0)
    assert outcome.replica_hours == pytest.approx(102 / 3600, rel=0.02)
    late = simulated([0.0] * 30, Policy(knee_users=10, max_replicas=1), answer_seconds=10, slo_wait_seconds=5)
    assert (late.misses, late.longest_wait_seconds) == (20, 20)


def test_traces(tmp_path: Path) -> None:
    path = tmp_path / "arrivals.csv"
    path.write_text("time_seconds,who\n3,a\n1.5,b\n")
    assert read_arrivals(path) == [1.5, 3.0]
    for text in ("when\n1\n", "time_seconds\n", "time_seconds\nx\n"):
        path.write_text(text)
        with pytest.raises(UserError):
            read_arrivals(path)
