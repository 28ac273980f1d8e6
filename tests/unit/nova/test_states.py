"""The snapshot of power states, and events for nova."""

import threading
import unittest
from unittest import mock

from nova.compute import power_state
from nova.virt import event as nova_event

from kvmdriver import exception
from kvmdriver.hypervisor.events import Event
from kvmdriver.hypervisor.stats import PowerState
from kvmdriver.nova.events import LifecycleEvents
from kvmdriver.nova.states import NOVA_STATES, PowerStates


class PowerStatesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.hypervisor = mock.Mock()
        self.hypervisor.power_states.return_value = {"a": PowerState("running", 1)}
        self.states = PowerStates(self.hypervisor)
        self.on_event = self.hypervisor.events.subscribe.call_args.args[0]

    def test_one_call_until_something_happens(self) -> None:
        for _ in range(3):
            self.assertEqual("running", self.states.get("a").status)
        self.assertEqual(1, self.hypervisor.power_states.call_count)
        self.on_event(Event("a", "balloon-changed"))
        self.states.get("a")
        self.assertEqual(1, self.hypervisor.power_states.call_count)
        self.on_event(Event("a", "stopped"))
        self.states.get("a")
        self.assertEqual(2, self.hypervisor.power_states.call_count)

    def test_event_while_reading(self) -> None:
        def read() -> dict[str, PowerState]:
            self.on_event(Event("a", "stopped"))
            return {"a": PowerState("running", 1)}

        self.hypervisor.power_states.side_effect = read
        self.states.get("a")
        self.states.get("a")
        self.assertEqual(2, self.hypervisor.power_states.call_count, "what was read is not kept")

    def test_unknown(self) -> None:
        self.assertRaises(exception.InstanceNotFound, self.states.get, "b")

    def test_every_status_has_a_state_of_nova(self) -> None:
        self.assertEqual(power_state.RUNNING, NOVA_STATES["running"])
        self.assertEqual(power_state.PAUSED, NOVA_STATES["blocked"])


class LifecycleEventsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.sent: list[nova_event.LifecycleEvent] = []
        self.more = threading.Semaphore(0)
        self.events = LifecycleEvents(self.take, delay=0.2)
        self.addCleanup(self.events.close)

    def take(self, event: nova_event.LifecycleEvent) -> None:
        self.sent.append(event)
        self.more.release()

    def test_order_and_names(self) -> None:
        for kind in ("started", "suspended", "resumed", "rebooted"):
            self.events.on_event(Event("a", kind))
        for _ in range(3):
            self.assertTrue(self.more.acquire(timeout=5))
        self.assertEqual(
            [
                nova_event.EVENT_LIFECYCLE_STARTED,
                nova_event.EVENT_LIFECYCLE_PAUSED,
                nova_event.EVENT_LIFECYCLE_RESUMED,
            ],
            [event.transition for event in self.sent],
        )

    def test_a_stop_waits_and_a_start_takes_it_back(self) -> None:
        self.events.on_event(Event("a", "stopped"))
        self.events.on_event(Event("b", "stopped"))
        self.events.on_event(Event("a", "started"))
        for _ in range(2):
            self.assertTrue(self.more.acquire(timeout=5))
        self.assertEqual(
            [("a", nova_event.EVENT_LIFECYCLE_STARTED), ("b", nova_event.EVENT_LIFECYCLE_STOPPED)],
            [(event.get_instance_uuid(), event.transition) for event in self.sent],
        )

    def test_a_failing_listener_does_not_end_it(self) -> None:
        self.events._emit = mock.Mock(side_effect=[RuntimeError("slow"), None])
        with self.assertLogs("kvmdriver.nova.events", "ERROR") as logs:
            self.events.on_event(Event("a", "started"))
            self.events.on_event(Event("b", "started"))
            self.events.close()
        self.assertEqual(2, self.events._emit.call_count)
        self.assertEqual(1, len(logs.output))
