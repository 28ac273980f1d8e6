"""The convergence policy, on migrations that are made up: no clock, no libvirt."""

import unittest
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from kvmdriver.guest.migration.converge import Convergence, Decision, Sample, predict
from kvmdriver.model import MigrationPolicy


def precopy(
    memory: float, dirty: float, rate: float, *, step: float = 0.5, seconds: float = 60
) -> Iterator[Sample]:
    """Samples as QEMU gives them: passes over what is left, each as long as it takes to send."""
    now = sent = 0.0
    left, changed, iteration = memory, 0.0, 1
    while now < seconds:
        now += step
        sent += rate * step
        left -= rate * step
        changed = min(memory, changed + dirty * step)
        if left <= 0:
            iteration, left, changed = iteration + 1, changed, 0.0
        yield Sample(
            seconds=now,
            sent=sent,
            left=max(left, 0.0),
            dirty_rate=dirty if iteration > 1 else 0,
            iteration=iteration,
        )


def decisions(policy: MigrationPolicy, samples: Iterator[Sample]) -> list[tuple[float, Decision]]:
    convergence = Convergence(policy)
    found = []
    for sample in samples:
        decision = convergence.observe(sample)
        if decision is not None:
            found.append((sample.seconds, decision))
            if decision.action != "downtime":
                break
    return found


class ConvergenceTest(unittest.TestCase):
    def test_an_idle_guest_needs_no_decision(self) -> None:
        self.assertEqual([], decisions(MigrationPolicy(), precopy(200, 1, 50)))

    def test_the_downtime_rises_in_steps_to_its_maximum(self) -> None:
        policy = MigrationPolicy(downtime=100, max_downtime=1600, downtime_steps=5)
        found = decisions(policy, precopy(100, 80, 50))
        self.assertEqual([200, 400, 800, 1600], [d.downtime for _t, d in found])

    def test_one_step_goes_there_at_once(self) -> None:
        policy = MigrationPolicy(downtime=100, max_downtime=900, downtime_steps=1)
        self.assertEqual([900], [d.downtime for _t, d in decisions(policy, precopy(100, 80, 50))])

    def test_post_copy_comes_after_the_longest_downtime(self) -> None:
        policy = MigrationPolicy(downtime=100, max_downtime=200, downtime_steps=2, post_copy=True)
        found = [d.action for _t, d in decisions(policy, precopy(100, 80, 50))]
        self.assertEqual(["downtime", "post-copy"], found)

    def test_post_copy_never_comes_before_the_memory_has_gone_over_once(self) -> None:
        policy = MigrationPolicy(downtime=100, max_downtime=100, post_copy=True)
        (when, decision), *_ = decisions(policy, precopy(1000, 80, 50))
        self.assertEqual("post-copy", decision.action)
        self.assertGreater(when, 20)

    def test_post_copy_waits_for_the_throttle(self) -> None:
        policy = MigrationPolicy(
            downtime=100, max_downtime=100, post_copy=True, auto_converge=True
        )
        self.assertEqual([], decisions(policy, precopy(100, 80, 50)))

    def test_a_guest_that_converges_slowly_is_left_alone(self) -> None:
        policy = MigrationPolicy(downtime=100, max_downtime=1000, post_copy=True)
        self.assertEqual([], decisions(policy, precopy(100, 40, 50)))

    def test_the_timeout_ends_it(self) -> None:
        for action in ("abort", "pause", "post-copy"):
            policy = MigrationPolicy(
                timeout=30, timeout_action=action, post_copy=True, auto_converge=True,
                max_downtime=300,
            )  # fmt: skip
            when, decision = decisions(policy, precopy(100, 80, 50))[-1]
            self.assertEqual(action, decision.action)
            self.assertLess(when, 31)

    def test_post_copy_at_the_timeout_must_be_permitted(self) -> None:
        policy = MigrationPolicy(timeout=5, timeout_action="post-copy")
        self.assertEqual("abort", decisions(policy, precopy(100, 80, 50))[-1][1].action)

    def test_nothing_is_decided_during_post_copy(self) -> None:
        convergence = Convergence(MigrationPolicy(timeout=1))
        sample = Sample(seconds=5, sent=1, left=9, dirty_rate=9, iteration=3, post_copy=True)
        self.assertIsNone(convergence.observe(sample))

    def test_a_reason_names_both_rates(self) -> None:
        policy = MigrationPolicy(downtime=100, max_downtime=200)
        reason = decisions(policy, precopy(100, 80, 50))[0][1].reason
        self.assertIn("80 MiB/s", reason)
        self.assertIn("50 MiB/s", reason)

    @given(
        memory=st.floats(1, 1e5), dirty=st.floats(0, 1e4), rate=st.floats(0.1, 1e4),
        downtime=st.integers(1, 5000),
    )  # fmt: skip
    def test_predictions_are_no_shorter_than_one_pass(
        self, memory: float, dirty: float, rate: float, downtime: int
    ) -> None:
        seconds = predict(memory, dirty, rate, downtime)
        if seconds is not None:
            self.assertGreaterEqual(seconds * 1.001 + 0.001, memory / rate)

    def test_a_prediction_comes_true(self) -> None:
        seconds = predict(1000, 20, 50, 300)
        assert seconds is not None
        end = next(s.seconds for s in precopy(1000, 20, 50) if s.left < 50 * 0.3)
        self.assertAlmostEqual(end, seconds, delta=4)

    def test_what_cannot_end_has_no_prediction(self) -> None:
        self.assertIsNone(predict(1000, 60, 50, 300))
        self.assertIsNone(predict(1000, 0, 0, 300))
