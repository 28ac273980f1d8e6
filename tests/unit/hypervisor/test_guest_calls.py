"""How many may wait for a guest, and for all of them."""

import threading
import time
import unittest
from unittest import mock

from kvmdriver import exception
from kvmdriver.hypervisor import guest_calls
from kvmdriver.hypervisor.guest_calls import GuestCalls, agent_of


class GuestCallsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.calls = GuestCalls()

    def refused(self, guest: str, seconds: float = 0) -> str:
        with self.assertRaises(exception.KVMDriverError) as caught:
            self.calls.enter(guest, seconds, "web")
        return caught.exception.code

    def test_two_for_one_guest_and_others_are_free(self) -> None:
        first = self.calls.enter("a", 0)
        self.calls.enter("a", 0)
        self.assertEqual("instance_unresponsive", self.refused("a"))
        self.calls.enter("b", 0)
        self.calls.leave(first)
        self.calls.enter("a", 0)

    def test_the_agent_of_a_guest_is_another_one_to_ask(self) -> None:
        self.calls.is_late(self.calls.enter(agent_of("a"), 0))
        self.assertEqual("instance_unresponsive", self.refused(agent_of("a")))
        self.calls.enter("a", 0)
        self.assertNotIn("a", self.calls.unanswered())

    def test_some_of_libvirts_workers_are_left(self) -> None:
        for number in range(guest_calls._ALL):
            self.calls.enter(f"guest-{number}", 0)
        self.assertEqual("agent_busy", self.refused("another"))

    def test_a_late_call_keeps_others_out_until_it_returns(self) -> None:
        late = self.calls.enter("a", 0)
        self.calls.is_late(late)
        began = time.monotonic()
        self.assertEqual("instance_unresponsive", self.refused("a", 0.1))
        self.assertGreaterEqual(time.monotonic() - began, 0.1)
        threading.Timer(0.05, self.calls.leave, (late,)).start()
        self.calls.enter("a", 5)

    def test_what_is_long_overdue_is_not_waited_for(self) -> None:
        self.calls.is_late(self.calls.enter("a", 0))
        with mock.patch.object(guest_calls, "_LOST_AFTER", -1):
            began = time.monotonic()
            self.assertEqual("instance_unresponsive", self.refused("a", 60))
        self.assertLess(time.monotonic() - began, 1)

    def test_callers_that_wait_for_a_guest_are_woken_when_it_ends(self) -> None:
        waits = self.calls.enter("a", 0)
        with self.calls.without_limit("a"):
            self.assertFalse(waits.wake.is_set())
        self.assertTrue(waits.wake.is_set())
        self.calls.enter("a", 0)
        self.calls.enter("a", 0)

    def test_nothing_waits_for_a_libvirtd_that_is_gone(self) -> None:
        waits = self.calls.enter("a", 0)
        self.calls.is_late(waits)
        self.calls.forget()
        self.assertTrue(waits.wake.is_set())
        self.assertEqual(set(), self.calls.unanswered())
