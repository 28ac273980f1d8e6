"""Against libvirt's own test driver, which needs no daemon."""

import gc
import os
import socket
import tempfile
import threading
import time
import unittest
from unittest import mock

import libvirt

from kvmdriver import exception
from kvmdriver.hypervisor.connection import Connection

# the domain that libvirt's test driver comes with
GUEST = "6695eb01-f6a4-8304-79aa-97f2502e193f"


class ConnectionTest(unittest.TestCase):
    def setUp(self) -> None:
        self.connection = Connection("test:///default", call_timeout=5, keepalive_interval=0)
        self.addCleanup(self.connection.close)

    def test_opened_when_needed(self) -> None:
        self.assertFalse(self.connection.alive)
        self.assertGreater(self.connection.call_fresh("getLibVersion"), 0)
        self.assertTrue(self.connection.alive)

    def test_errors_are_translated(self) -> None:
        with self.assertRaises(exception.InstanceNotFound):
            self.connection.call_fresh("lookupByName", "nobody", instance="nobody")

    def test_an_error_keeps_its_code_when_the_garbage_collector_frees_a_domain(self) -> None:
        raw = self.connection.raw()
        self.addCleanup(gc.set_threshold, *gc.get_threshold())

        def collect_within() -> None:
            gc.disable()
            cycle: list[object] = [raw.lookupByUUIDString(GUEST)]
            cycle.append(cycle)
            del cycle
            gc.set_threshold(1)
            gc.enable()
            raw.lookupByName("nobody")

        for _ in range(10):
            with self.assertRaises(exception.InstanceNotFound) as caught:
                self.connection.call(collect_within)
            self.assertEqual("Domain not found", caught.exception.message)

    def hanging(self) -> threading.Event:
        """Something to wait for in vain; it comes when the test is over."""
        hang = threading.Event()
        self.addCleanup(hang.set)
        return hang

    def never(self, _uri: str) -> None:
        """Open a connection in vain, for as long as the test lasts."""
        self.hanging().wait()
        raise libvirt.libvirtError("the test is over")

    def test_a_call_that_hangs_leaves_the_connection_to_the_others(self) -> None:
        raw = self.connection.raw()
        with self.assertRaises(exception.HypervisorTimeout) as caught:
            self.connection.call(self.hanging().wait, timeout=0.05)
        self.assertIn("read_timeout", caught.exception.remedy)
        self.assertIs(raw, self.connection.raw())
        self.assertGreater(self.connection.call_fresh("getLibVersion"), 0)

    def test_all_calls_of_a_question_share_its_time(self) -> None:
        hang = self.hanging()
        with self.connection.within(0.2):
            began = time.monotonic()
            for _ in range(3):
                with self.assertRaises(exception.HypervisorTimeout):
                    self.connection.call(hang.wait)
        self.assertLess(time.monotonic() - began, 1)
        self.assertGreater(self.connection.call_fresh("getLibVersion"), 0)

    def test_a_guest_that_hangs_is_told_from_a_libvirtd_that_does(self) -> None:
        raw, hang = self.connection.raw(), self.hanging()
        with self.assertRaises(exception.InstanceUnresponsive) as caught:
            self.connection.call_guest(
                GUEST, lambda _domain: hang.wait(), instance="web", timeout=0.05
            )
        self.assertEqual("web", caught.exception.instance)
        self.assertEqual({GUEST}, self.connection.guests.unanswered())
        self.assertIs(raw, self.connection.raw())

    def test_a_guest_is_asked_again_when_its_late_answer_has_come(self) -> None:
        hang = threading.Event()
        with self.assertRaises(exception.InstanceUnresponsive):
            self.connection.call_guest(GUEST, lambda _domain: hang.wait(), timeout=0.05)
        threading.Timer(0.1, hang.set).start()
        name = self.connection.call_guest(GUEST, lambda domain: domain.name(), timeout=2)
        self.assertEqual("test", name)
        self.assertEqual(set(), self.connection.guests.unanswered())

    def test_a_hung_guest_can_be_switched_off_and_is_free_then(self) -> None:
        hang = self.hanging()
        with self.assertRaises(exception.InstanceUnresponsive):
            self.connection.call_guest(GUEST, lambda _domain: hang.wait(), timeout=0.05)
        self.assertEqual(
            "off", self.connection.call_guest(GUEST, lambda _domain: "off", ends=True)
        )
        name = self.connection.call_guest(GUEST, lambda domain: domain.name(), timeout=1)
        self.assertEqual("test", name)

    def test_a_wait_for_a_guest_that_is_to_go_is_given_up(self) -> None:
        hang, waits = self.hanging(), threading.Event()
        errors: list[exception.KVMDriverError] = []

        def ask(_domain: libvirt.virDomain) -> None:
            waits.set()
            hang.wait()

        def operation() -> None:
            try:
                self.connection.call_guest(GUEST, ask, timeout=60)
            except exception.KVMDriverError as error:
                errors.append(error)

        asking = threading.Thread(target=operation)
        asking.start()
        self.assertTrue(waits.wait(5))
        self.assertEqual(0, self.connection.guests.give_up(GUEST, older_than=60))
        self.assertEqual(1, self.connection.guests.give_up(GUEST, older_than=0))
        asking.join(5)
        self.assertEqual(["instance_unresponsive"], [error.code for error in errors])

    def test_a_libvirtd_that_hangs_fails_everybody_soon_and_then_at_once(self) -> None:
        self.connection.raw()
        hang = self.hanging()
        silent = mock.Mock(getLibVersion=hang.wait)
        self.connection._raw = silent
        outcomes: list[str] = []

        def ask(timeout: float = 0.5) -> None:
            try:
                self.connection.call(hang.wait, timeout=timeout)
            except exception.KVMDriverError as error:
                outcomes.append(error.code)

        began = time.monotonic()
        silence = mock.patch("kvmdriver.hypervisor.connection._SILENCE_SECONDS", 3)
        with silence, mock.patch.object(libvirt, "open", self.never):
            asking = [threading.Thread(target=ask) for _ in range(10)]
            for thread in asking:
                thread.start()
            for thread in asking:
                thread.join(10)
            self.assertLess(time.monotonic() - began, 2.5)
            self.assertEqual(["hypervisor_timeout"] * 10, outcomes)
            # a change may still wait, a question does not
            self.assertTrue(self.connection.alive)
            change = threading.Thread(target=ask, kwargs={"timeout": 60})
            change.start()
            with self.connection.within(3), self.assertRaises(exception.HypervisorTimeout):
                self.connection.call_fresh("getLibVersion")
            self.assertTrue(change.is_alive())
            change.join(10)
            self.assertFalse(change.is_alive(), "the change is woken when the connection goes")
            self.assertEqual("hypervisor_unavailable", outcomes[-1])
            self.assertFalse(self.connection.alive)
            with self.connection.within(0.2), self.assertRaises(exception.HypervisorTimeout):
                self.connection.call_fresh("getLibVersion")

    def test_a_libvirtd_that_was_slow_keeps_its_connection(self) -> None:
        raw, hang, slow = self.connection.raw(), self.hanging(), threading.Event()
        probe = mock.Mock(getLibVersion=slow.wait)
        self.connection._raw = probe
        with self.assertRaises(exception.HypervisorTimeout):
            self.connection.call(hang.wait, timeout=0.05)
        slow.set()
        with self.connection.within(3):
            self.assertEqual(9, self.connection.call(lambda: 9))
        self.assertIs(probe, self.connection.raw())
        self.connection._raw = raw

    def test_one_attempt_opens_the_connection_for_all(self) -> None:
        opened: list[str] = []

        def never(uri: str) -> None:
            opened.append(uri)
            self.never(uri)

        connection = Connection("test:///default", keepalive_interval=0)
        self.addCleanup(connection.close)
        patience = mock.patch("kvmdriver.hypervisor.connection._OPEN_SECONDS", 0.3)
        with patience, mock.patch.object(libvirt, "open", never):
            for _ in range(2):
                with self.assertRaises(exception.HypervisorTimeout):
                    connection.raw()
            began = time.monotonic()
            with self.assertRaises(exception.HypervisorTimeout):
                connection.raw()
            self.assertLess(time.monotonic() - began, 0.2)
            self.assertEqual(1, len(opened))

    def test_a_socket_that_takes_connections_and_does_not_answer(self) -> None:
        path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "mute")
        mute = self.enterContext(socket.socket(socket.AF_UNIX))
        mute.bind(path)
        mute.listen()
        connection = Connection(f"qemu+unix:///system?socket={path}", keepalive_interval=0)
        self.addCleanup(connection.close)
        with connection.within(0.3), self.assertRaises(exception.HypervisorTimeout) as caught:
            connection.raw()
        self.assertIn("does not answer", caught.exception.message)

    def test_a_lost_connection_is_opened_anew_for_harmless_calls(self) -> None:
        raw = self.connection.raw()
        calls = []

        class Dead:
            def getLibVersion(self) -> int:
                calls.append("dead")
                error = libvirt.libvirtError("gone")
                error.err = (
                    libvirt.VIR_ERR_RPC,
                    libvirt.VIR_FROM_RPC,
                    "gone",
                    2,
                    "",
                    "",
                    "",
                    0,
                    0,
                )
                raise error

        self.connection._raw = Dead()  # type: ignore[assignment]
        self.assertGreater(self.connection.call_fresh("getLibVersion"), 0)
        self.assertEqual(["dead"], calls)
        self.assertIsNot(raw, self.connection.raw())

    def test_nobody_there(self) -> None:
        nowhere = Connection("qemu:///system?socket=/nonexistent", keepalive_interval=0)
        with self.assertRaises(exception.HypervisorUnavailable) as caught:
            nowhere.raw()
        self.assertEqual("kvm.uri", caught.exception.field)

    def test_closed_is_closed(self) -> None:
        self.connection.raw()
        self.connection.close()
        with self.assertRaises(exception.HypervisorUnavailable):
            self.connection.raw()
