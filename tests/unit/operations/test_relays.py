"""Serial consoles: how many there can be, what they cost, and what is left of them."""

import contextlib
import os
import socket
import threading
import types
import unittest
from typing import Any
from unittest import mock

from kvmdriver import exception
from kvmdriver.operations import relays

LOCAL = "127.0.0.1"


class FakeStream:
    """A guest's serial port that answers what it is sent, or takes nothing at all."""

    def __init__(self, _domain: Any, *, stuck: bool = False):
        self.wakeup, self._signal = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stuck = stuck
        self._data = b""
        self.closed = threading.Event()

    def wait_for(self, *, reading: bool, writing: bool) -> None:
        pass

    def woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.wakeup, 4096)

    def receive(self, size: int) -> bytes:
        data, self._data = self._data[:size], self._data[size:]
        return data

    def send(self, data: bytes) -> int:
        if self._stuck:
            return 0
        self._data += data
        os.write(self._signal, b"!")
        return len(data)

    def close(self) -> None:
        os.close(self.wakeup)
        os.close(self._signal)
        self.closed.set()


def domain(number: int = 0) -> Any:
    return types.SimpleNamespace(uuid=f"uuid-{number}", name=f"guest-{number}")


class RelaysTest(unittest.TestCase):
    def setUp(self) -> None:
        self.before = set(threading.enumerate())
        self.relays = relays.Relays()
        self.streams: list[FakeStream] = []
        self.stuck = False

        self.served = threading.Semaphore(0)

        def make(found: Any) -> FakeStream:
            self.streams.append(FakeStream(found, stuck=self.stuck))
            self.served.release()
            return self.streams[-1]

        patch = mock.patch.object(relays, "ConsoleStream", make)
        patch.start()
        self.addCleanup(patch.stop)

    def open(self, number: int = 0, seconds: float = 60, most: int = 64) -> tuple[int, str]:
        return self.relays.open(domain(number), LOCAL, seconds=seconds, most=most)

    def connect(self, port: int, token: str) -> socket.socket:
        client = socket.create_connection((LOCAL, port), 10)
        self.addCleanup(client.close)
        client.sendall(token.encode() + b"\n")
        self.assertTrue(self.served.acquire(timeout=10))
        return client

    def exactly(self, client: socket.socket, count: int) -> bytes:
        received = b""
        while len(received) < count:
            data = client.recv(65536)
            self.assertTrue(data)
            received += data
        return received

    def end(self, *clients: socket.socket) -> None:
        """Have clients go, and wait until nothing is left of them."""
        for client in clients:
            client.close()
        for stream in self.streams:
            self.assertTrue(stream.closed.wait(10))
        for thread in set(threading.enumerate()) - self.before:
            if thread.name.startswith("console-"):
                thread.join(10)
                self.assertFalse(thread.is_alive())
        self.assertEqual(0, len(self.relays))

    def test_what_is_typed_gets_there_and_is_answered(self) -> None:
        port, token = self.open()
        with socket.create_connection((LOCAL, port), 10) as stranger:
            stranger.sendall(b"guessed\n")
            self.assertEqual(b"", stranger.recv(10))
        client = self.connect(port, token + "\nat once")
        self.assertEqual(b"at once\n", self.exactly(client, 8))
        text = os.urandom(300_000)
        writer = threading.Thread(target=client.sendall, args=(text,))
        writer.start()
        self.assertEqual(text, self.exactly(client, len(text)))
        writer.join()
        with self.assertRaises(OSError):
            socket.create_connection((LOCAL, port), 1)
        self.end(client)

    def test_one_instance_has_one_that_waits(self) -> None:
        before = threading.active_count()
        port, token = self.open()
        for _ in range(299):
            with self.assertRaises(exception.InstanceBusy) as caught:
                self.open()
            self.assertIn("ask again", caught.exception.remedy or "")
        self.assertLessEqual(threading.active_count(), before + 1)
        first = self.connect(port, token)
        first.sendall(b"hello")
        self.assertEqual(b"hello", self.exactly(first, 5))
        # one that is open does not keep the next one from taking over
        self.open(seconds=0.1)
        self.assertEqual(2, len(self.relays))

    def test_there_are_at_most_so_many(self) -> None:
        before = threading.active_count()
        descriptors = len(os.listdir("/proc/self/fd"))
        ports = [self.open(number, seconds=1) for number in range(20)]
        expired = next(t for t in set(threading.enumerate()) - self.before if t.name == "console")
        for number in range(20, 300):
            with self.assertRaises(exception.InsufficientResources) as caught:
                self.open(number, most=20)
            self.assertEqual("kvm_console.max_consoles", caught.exception.field)
        self.assertLessEqual(threading.active_count(), before + 1)
        self.assertLessEqual(len(os.listdir("/proc/self/fd")), descriptors + 20 + 3)
        clients = [self.connect(*ports[number]) for number in range(2)]
        for client in clients:
            client.sendall(b"x")
            self.assertEqual(b"x", client.recv(1))
        with self.assertRaises(exception.InsufficientResources):
            self.open(21, most=20)
        expired.join(10)  # it ends with the last port that nobody has connected to
        self.assertFalse(expired.is_alive())
        self.assertEqual(2, len(self.relays))
        self.end(*clients)
        self.assertLessEqual(len(os.listdir("/proc/self/fd")), descriptors)

    def test_a_client_that_leaves_a_guest_that_takes_nothing(self) -> None:
        self.stuck = True
        client = self.connect(*self.open())
        client.sendall(b"x" * 20_000)  # more than is read, less than the kernel takes
        self.end(client)

    def test_an_address_of_another_host(self) -> None:
        with self.assertRaises(exception.ConfigurationError) as caught:
            self.relays.open(domain(), "192.0.2.1", seconds=1, most=1)
        self.assertEqual("kvm_console.listen", caught.exception.field)
        self.assertEqual(0, len(self.relays))
