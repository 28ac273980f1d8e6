"""Against libvirt's own test driver, which needs no daemon."""

import threading
import unittest

import libvirt

from kvmdriver import exception
from kvmdriver.hypervisor.connection import Connection


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

    def test_a_hanging_call_costs_an_error_not_a_thread(self) -> None:
        self.connection.raw()
        hang = threading.Event()
        self.addCleanup(hang.set)
        events = []
        self.connection.events.subscribe(lambda event: events.append(event.kind))
        with self.assertRaises(exception.HypervisorTimeout) as caught:
            self.connection.call(hang.wait, timeout=0.05)
        self.assertIn("call_timeout", caught.exception.remedy)
        self.assertFalse(self.connection.alive)
        # the next call opens a new connection
        self.assertGreater(self.connection.call_fresh("getLibVersion"), 0)

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
