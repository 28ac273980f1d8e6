"""Guests that dirty their memory faster than it can be sent, and what is made of them.

QEMU under emulation loses some guests that dirty memory fast while they move, whoever moves them:
what is judged here is the host that they end on, the time that it took, and what is left over.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from kvmdriver import exception, model
from tests import namespace
from tests.functional.watcher import watch
from tests.multihost.base import MultihostTest
from tests.multihost.workload import Dirtier

# MiB/s, below what the guest dirties even beside other tests
NARROW = 10


class PolicyTest(MultihostTest):
    post_copy = True

    @contextmanager
    def busy_guest(
        self, bandwidth: int = NARROW, **migration: object
    ) -> Iterator[model.InstanceView]:
        with self.agents(bandwidth=bandwidth, **migration):
            view = self.create()
            guest = self.guest_of(view)
            Dirtier(guest).start()
            yield view

    def test_it_is_told_beforehand(self) -> None:
        with self.busy_guest(completion_timeout=3) as view:
            found = self.api.check_migration(view.name, "kvm2")
            self.assertTrue(found.possible)
            self.assertGreater(found.dirty_rate or 0, NARROW)
            with self.assertRaises(exception.MigrationAborted):
                self.api.live_migration(view.name, "kvm2")
            self.assertIn("it will end by its timeout (abort)", self.first.agent_log())

    def test_abort_within_the_configured_time(self) -> None:
        with self.busy_guest(completion_timeout=5, timeout_action="abort") as view:
            start = time.monotonic()
            with self.assertRaises(exception.MigrationAborted):
                self.api.live_migration(view.name, "kvm2")
            # 5 s for each GiB, and at least for two
            self.assertLess(time.monotonic() - start, 10 + 6)
            self.assertEqual({"kvm1": "running"}, self.where(view.uuid))
            ended = self.api.get_migration(view.name)
            self.assertEqual("aborted", ended.state)
            self.assertIn("abort: it has taken more than 10 s", ended.decisions)

    def test_post_copy(self) -> None:
        with self.busy_guest(post_copy=True, max_downtime=400, downtime_steps=1) as view:
            moved = self.api.live_migration(view.name, "kvm2")
            self.assertEqual("completed", moved.state)
            self.assertTrue(moved.post_copy, f"{moved}\n{self.logs()}")
            self.assertTrue(any(d.startswith("post-copy:") for d in moved.decisions), moved)
            self.assertEqual({"kvm2": "running"}, self.where(view.uuid))

    def test_pause_at_the_timeout(self) -> None:
        with self.busy_guest(completion_timeout=3, timeout_action="pause") as view:
            moved = self.api.live_migration(view.name, "kvm2")
            self.assertEqual("completed", moved.state)
            self.assertTrue(any(d.startswith("pause:") for d in moved.decisions), moved)
            self.assertEqual({"kvm2": "running"}, self.where(view.uuid))

    def test_the_cpu_is_slowed_down(self) -> None:
        # wide enough for a guest that is slowed down to come to an end
        with self.busy_guest(16, auto_converge=True, completion_timeout=80) as view:
            watcher = watch(self, self.conf, self.laboratory.bus_url)
            moved = self.api.live_migration(view.name, "kvm2")
            self.assertEqual("completed", moved.state)

            def states() -> list[str]:
                told = watcher.payloads("instance.migration.progress")
                return [payload["state"] for payload in told if payload["uuid"] == view.uuid]

            # the last word comes on a way of its own
            namespace.wait_for(lambda: states()[-1:] == ["completed"], 10)
            told = watcher.payloads("instance.migration.progress")
            self.assertGreater(states().count("run"), 3)
            self.assertGreater(max(payload["throttle"] for payload in told), 0)
            self.assertGreater(max(payload["dirty_rate"] or 0 for payload in told), NARROW)
            self.assertEqual(["kvm2"], list(self.where(view.uuid)))

    def test_an_operator_steers(self) -> None:
        """Watch, a wider limit, force-complete, abort."""
        with self.busy_guest() as view:
            with self.meanwhile(lambda: self.api.live_migration(view.name, "kvm2")) as moved:
                self._wait_for_second_pass(view)
                with self.assertRaises(exception.InstanceBusy):
                    self.api.stop_instance(view.name)
                steer = ("server", "migration")
                self.kvmdriver(*steer, "set", view.name, "--bandwidth", "12")
                self.kvmdriver(*steer, "abort", view.name)
                with self.assertRaises(exception.MigrationAborted):
                    moved.result(30)
            ended = self.api.get_migration(view.name)
            self.assertEqual("aborted", ended.state)
            self.assertEqual({"kvm1": "running"}, self.where(view.uuid))
            with self.meanwhile(lambda: self.api.live_migration(view.name, "kvm2")) as moved:
                self._wait_for_second_pass(view)
                self.kvmdriver(*steer, "force-complete", view.name)
                self.assertEqual("completed", moved.result(60).state)
            self.assertEqual({"kvm2": "running"}, self.where(view.uuid))

    def _wait_for_second_pass(self, view: model.InstanceView) -> None:
        def there() -> bool:
            running = [v for v in self.api.list_migrations() if v.state == "run"]
            return any(v.uuid == view.uuid and (v.iteration or 0) > 1 for v in running)

        namespace.wait_for(there, 60, 0.3)
        self.assertGreater(self.api.get_migration(view.name).rate or 0, 1)
