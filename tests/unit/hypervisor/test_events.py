import threading
import time
import unittest

from kvmdriver.hypervisor.events import Event, EventBus


class EventBusTest(unittest.TestCase):
    def setUp(self) -> None:
        self.bus = EventBus()
        self.bus.start()
        self.addCleanup(self.bus.stop)

    def test_events_come_in_order(self) -> None:
        seen: list[Event] = []
        done = threading.Event()

        def subscriber(event: Event) -> None:
            seen.append(event)
            if event.detail == 99:
                done.set()

        self.bus.subscribe(subscriber)
        for number in range(100):
            self.bus.post(Event("u", "started", number))
        self.assertTrue(done.wait(5))
        self.assertEqual(list(range(100)), [event.detail for event in seen])

    def test_a_failing_subscriber_harms_nobody(self) -> None:
        done = threading.Event()
        self.bus.subscribe(lambda event: 1 / 0)
        self.bus.subscribe(lambda event: done.set())
        with self.assertLogs("kvmdriver.hypervisor.events", "ERROR"):
            self.bus.post(Event("u", "started"))
            self.assertTrue(done.wait(5))

    def test_expectations(self) -> None:
        with self.bus.expect("u", "stopped", "crashed") as expected:
            self.bus.post(Event("other", "stopped"))
            self.bus.post(Event("u", "started"))
            self.bus.post(Event("u", "crashed", 5))
            self.assertEqual(Event("u", "crashed", 5), expected.wait(5))

    def test_details(self) -> None:
        with self.bus.expect("u", "block-job", detail=("vda",)) as expected:
            self.bus.post(Event("u", "block-job", ("vdb", "ready")))
            self.bus.post(Event("u", "block-job", ("vda", "ready")))
            self.assertEqual(("vda", "ready"), expected.wait(5).detail)
        with self.bus.expect("u", "device-removed", detail="net0") as expected:
            self.bus.post(Event("u", "device-removed", "net1"))
            self.assertIsNone(expected.wait(0.1))

    def test_waiting_in_vain_ends(self) -> None:
        start = time.monotonic()
        with self.bus.expect("u", "stopped") as expected:
            self.assertIsNone(expected.wait(0.05))
        self.assertLess(time.monotonic() - start, 5)
        self.assertEqual((), self.bus._subscribers)
