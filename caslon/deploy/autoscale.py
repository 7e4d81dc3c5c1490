"""A load and a policy to a number of replicas, as the Horizontal Pod Autoscaler decides.

Desired = ceil(replicas x metric / target). Up at once; down only to the highest number wanted within a window, and slowly,
because a replica that was let go takes its whole start to come back.
Source: https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/
"""

import math
from collections import deque
from typing import Literal, Self

from pydantic import Field, model_validator

from caslon.settings import Settings

LOAD_SHARES = {"bursty": 0.5, "steady": 0.8}  # of the knee: the rest is room for what comes while a replica starts
SHORTEST_DOWN_WINDOW = 300.0
AFTER_BOOT = 60.0
DOWN_EVERY_SECONDS = 60.0  # one replica
DOWN_SHARE, DOWN_SHARE_SECONDS = 0.10, 300.0  # or a tenth, whichever is more


def desired_replicas(current: int, metric: float, target: float) -> int:
    """Return how many replicas bring the metric of each to the target."""
    # 3 x 0.1 / 0.3 is a whole number that floating point puts above one.
    return math.ceil(round(current * metric / target, 9))


class Policy(Settings):
    """When to scale. The metric is waiting and running requests of a replica, averaged over `metric_window_seconds`."""

    knee_users: float = Field(gt=0, description="requests at once at which a replica answers most (caslon bench knee)")
    load: Literal["bursty", "steady"] = Field(
        "bursty", description="bursty: half of the knee is aimed at; steady: 80 %"
    )
    min_replicas: int = Field(1, ge=0, description="never fewer; 0 lets a service without any traffic go")
    max_replicas: int = Field(10, ge=1, description="never more")
    boot_seconds: float = Field(60.0, ge=0, description="from the decision to the first answer of a replica")
    metric_window_seconds: float = Field(300.0, ge=1, description="time the metric is averaged over")
    down_window_seconds: float | None = Field(
        None, ge=0, description="down to the most wanted in this time; default: 300 s, or the boot time and a minute"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas ({self.min_replicas}) must be at most max_replicas ({self.max_replicas})")
        return self

    @property
    def target(self) -> float:
        """Requests of a replica that are aimed at."""
        return self.knee_users * LOAD_SHARES[self.load]

    @property
    def down_window(self) -> float:
        """Seconds over which the highest wish counts before replicas go."""
        if self.down_window_seconds is not None:
            return self.down_window_seconds
        return max(SHORTEST_DOWN_WINDOW, self.boot_seconds + AFTER_BOOT)


class Autoscaler:
    """Decides at each moment; keeps the wishes and steps down of the recent past."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._wishes: deque[tuple[float, int]] = deque()
        self._downs: deque[tuple[float, int]] = deque()

    def replicas(self, now: float, current: int, requests: float) -> int:
        """Return how many replicas there should be, given how many there are and the requests in the service."""
        wish = self._wish(current, requests)
        self._wishes.append((now, wish))
        while self._wishes[0][0] < now - self._policy.down_window:
            self._wishes.popleft()
        if wish >= current:
            return wish
        wanted = min(current, max(one for _, one in self._wishes))
        return self._slowly(now, current, wanted)

    def _wish(self, current: int, requests: float) -> int:
        policy = self._policy
        if current == 0:  # nothing to take a ratio of: the first request brings the first replica
            wish = desired_replicas(1, requests, policy.target)
        else:
            wish = desired_replicas(current, requests / current, policy.target)
        return max(policy.min_replicas, min(policy.max_replicas, wish))

    def _slowly(self, now: float, current: int, wanted: int) -> int:
        """Return the number after as many steps down as the last minutes allow."""
        while self._downs and self._downs[0][0] <= now - DOWN_SHARE_SECONDS:
            self._downs.popleft()
        gone = sum(count for _, count in self._downs)
        in_a_minute = sum(count for at, count in self._downs if at > now - DOWN_EVERY_SECONDS)
        share = math.floor((current + gone) * DOWN_SHARE) - gone
        allowed = max(1 - in_a_minute, share, 0)
        fewer = min(current - wanted, allowed)
        if fewer:
            self._downs.append((now, fewer))
        return current - fewer
