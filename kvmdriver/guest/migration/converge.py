"""Whether a migration will converge, and what to do if not. Pure: no clock, no libvirt.

A guest changes its memory while it is sent; each pass sends what the one before has left over.
With a dirty rate ``d`` and a throughput ``r`` each pass is ``d / r`` as long as the one before: it
ends if that is less than one. Both rates come in jumps, so decisions lean on their smoothed
values, and are taken only after the memory has gone over once.
"""

import dataclasses
import math
from typing import Literal

from kvmdriver.model import MigrationPolicy

# Rates are smoothed over about so many seconds.
_SMOOTHING = 3.0
# A dirty rate above this part of the throughput does not converge in any useful time.
_HOPELESS = 0.9
# Seconds that a step gets to show its effect.
_PATIENCE = 4.0
# QEMU throttles up to 99 % (migration parameter max-cpu-throttle).
_MOST_THROTTLE = 99


@dataclasses.dataclass(frozen=True)
class Sample:
    """A look at a migration; sizes in MiB, rates in MiB/s, time in s since its start."""

    seconds: float
    sent: float
    left: float
    dirty_rate: float
    iteration: int
    disk_left: float = 0
    disk_total: float = 0
    throttle: int = 0
    post_copy: bool = False


@dataclasses.dataclass(frozen=True)
class Decision:
    """Something to do now. ``downtime`` in ms."""

    action: Literal["downtime", "post-copy", "pause", "abort"]
    reason: str
    downtime: int = 0


def predict(memory: float, dirty_rate: float, rate: float, downtime: int) -> float | None:
    """Return the seconds that sending a guest's memory takes; None if it never ends.

    :param memory: MiB; ``dirty_rate`` and ``rate`` in MiB/s, ``downtime`` in ms.
    """
    if rate <= 0:
        return None
    last = rate * downtime / 1000
    if memory <= last:
        return memory / rate
    if dirty_rate >= rate * _HOPELESS:
        # the first pass leaves about all that changes: it may fit into the downtime as it is
        return None if dirty_rate * memory / rate > last else memory / rate
    return (memory - last) / (rate - dirty_rate) + downtime / 1000


class Convergence:
    """Decides, sample by sample, what a migration needs to converge.

    :param policy: what is permitted; may be exchanged while the migration runs.
    """

    def __init__(self, policy: MigrationPolicy):
        self.policy = policy
        self.downtime = policy.downtime
        self.rate: float | None = None
        self.dirty_rate: float | None = None
        self.estimate: float | None = None
        self.expected_downtime: int | None = None
        self._last: Sample | None = None
        self._stuck_since: float | None = None
        self._out_of_time = False
        self._warned = False

    def observe(self, sample: Sample) -> Decision | None:
        """Take a sample into account; return what to do about it, if anything."""
        self._smooth(sample)
        self._look_ahead(sample)
        self._last = sample
        if sample.post_copy or self._out_of_time:
            return None  # nothing can or need be done any more
        timeout = self.policy.timeout
        if timeout is not None and sample.seconds > timeout:
            self._out_of_time = True
            return self._on_timeout(f"it has taken more than {timeout:.0f} s")
        if sample.iteration < 2 or sample.disk_left > 0:
            self._stuck_since = None
            return None
        if not self._is_hopeless():
            self._stuck_since = None
            return None
        if self._stuck_since is None:
            self._stuck_since = sample.seconds
        if sample.seconds - self._stuck_since < _PATIENCE:
            return None
        return self._next_step(sample)

    def _smooth(self, sample: Sample) -> None:
        last = self._last
        if last is None or sample.seconds <= last.seconds:
            return
        span = sample.seconds - last.seconds
        weight = 1 - math.exp(-span / _SMOOTHING)
        rate = max(0.0, sample.sent - last.sent) / span
        self.rate = rate if self.rate is None else self.rate + weight * (rate - self.rate)
        if sample.iteration >= 2:
            dirty = sample.dirty_rate
            before = self.dirty_rate
            self.dirty_rate = dirty if before is None else before + weight * (dirty - before)

    def _look_ahead(self, sample: Sample) -> None:
        rate = self.rate
        if not rate:
            self.estimate = self.expected_downtime = None
            return
        self.expected_downtime = round(sample.left / rate * 1000)
        if sample.post_copy:
            self.estimate = sample.left / rate
            return
        if self._is_hopeless():
            self.estimate = None
            return
        memory = predict(sample.left, self.dirty_rate or 0, rate, self.downtime)
        self.estimate = None if memory is None else memory + sample.disk_left / rate

    def _is_hopeless(self) -> bool:
        rate, dirty = self.rate, self.dirty_rate
        return rate is not None and dirty is not None and dirty >= rate * _HOPELESS

    def _next_step(self, sample: Sample) -> Decision | None:
        policy = self.policy
        rates = f"the guest dirties {self.dirty_rate:.0f} MiB/s, {self.rate:.0f} MiB/s are sent"
        if self.downtime < policy.max_downtime:
            self._stuck_since = sample.seconds
            self.downtime = self._longer_downtime()
            return Decision("downtime", f"{rates}: a longer pause may do", self.downtime)
        if policy.auto_converge and sample.throttle < _MOST_THROTTLE:
            return None  # QEMU is doing that already
        if policy.post_copy:
            return Decision("post-copy", f"{rates}: it does not converge")
        return None

    def _longer_downtime(self) -> int:
        """Return the next downtime; each is longer than the one before by the same factor."""
        policy = self.policy
        if policy.downtime_steps < 2:
            return policy.max_downtime
        factor = (policy.max_downtime / policy.downtime) ** (1 / (policy.downtime_steps - 1))
        return min(policy.max_downtime, math.ceil(self.downtime * max(factor, 1.01)))

    def _on_timeout(self, reason: str) -> Decision:
        action = self.policy.timeout_action
        if action == "post-copy" and not self.policy.post_copy:
            action = "abort"
        return Decision(action, reason)
