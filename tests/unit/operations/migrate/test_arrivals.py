"""Ports that migrations take, and give back."""

import socket
import unittest

from kvmdriver import exception
from kvmdriver.operations.migrate.arrivals import Arrivals, parse_ports
from kvmdriver.storage.stream import Receiver

LOCAL = "127.0.0.1"


class ArrivalsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.arrivals = Arrivals()
        with socket.create_server((LOCAL, 0)) as listener:
            first = listener.getsockname()[1]
        self.ports = range(first, first + 1)

    def test_a_range_is_read(self) -> None:
        self.assertEqual(range(49152, 49216), parse_ports("49152-49215"))
        self.assertEqual(range(5000, 5001), parse_ports("5000"))
        self.assertIsNone(parse_ports(""))

    def test_what_is_no_range_is_refused(self) -> None:
        for text in ("x", "10-5", "0-5", "65000-70000", "1-2-3", "-"):
            with self.subTest(text), self.assertRaises(exception.ConfigurationError) as caught:
                parse_ports(text)
            self.assertEqual("kvm_migration.ports", caught.exception.field)

    def test_each_migration_has_its_own(self) -> None:
        self.assertEqual(self.ports[0], self.arrivals.take_port("one", self.ports, LOCAL))
        with self.assertRaises(exception.InsufficientResources):
            self.arrivals.take_port("two", self.ports, LOCAL)
        self.arrivals.end("one")
        self.assertEqual(self.ports[0], self.arrivals.take_port("two", self.ports, LOCAL))

    def test_ports_of_others_are_left_alone(self) -> None:
        with (
            socket.create_server((LOCAL, self.ports[0])),
            self.assertRaises(exception.InsufficientResources),
        ):
            self.arrivals.take_port("one", self.ports, LOCAL)

    def test_without_a_range_libvirt_chooses(self) -> None:
        self.assertIsNone(self.arrivals.take_port("one", None, LOCAL))

    def test_nothing_is_left_at_the_end(self) -> None:
        receiver = self.arrivals.receive("one", Receiver({}), LOCAL, None)
        self.assertEqual(receiver, self.arrivals.receiver("one"))
        self.arrivals.end("one")
        self.arrivals.end("one")
        self.assertIsNone(self.arrivals.receiver("one"))
        self.assertEqual(0, len(self.arrivals))
        with self.assertRaises(OSError):
            socket.create_connection((LOCAL, receiver.port), 1)
