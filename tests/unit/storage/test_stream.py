"""Files from one host to another, over a real socket on this one."""

import os
import shutil
import socket
import ssl
import tempfile
import time
import unittest

from kvmdriver import exception
from kvmdriver.storage import stream
from tests.certificates import Authority

MIB = 1024 * 1024


class StreamTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.target = os.path.join(self.directory, "arrived")
        self.receiver = self.make_receiver()
        self.port = self.receiver.open("127.0.0.1")
        self.addCleanup(self.receiver.close)

    def make_receiver(self) -> stream.Receiver:
        return stream.Receiver({"disk": self.target})

    def tls(self) -> ssl.SSLContext | None:
        return None

    def source(self, content: bytes, size: int | None = None) -> str:
        path = os.path.join(self.directory, "source")
        with open(path, "wb") as file:
            file.write(content)
            file.truncate(size or len(content))
        return path

    def send(self, path: str, name: str = "disk", token: str | None = None) -> None:
        stream.send(
            path,
            name,
            address="127.0.0.1",
            port=self.port,
            token=token or self.receiver.token,
            tls=self.tls(),
        )

    def assert_refused(self, *arguments: str, reason: str) -> None:
        with self.assertRaises(exception.StorageError) as caught:
            self.send(*arguments)
        self.assertIn(reason, str(caught.exception))
        self.assertEqual(["source"], os.listdir(self.directory), "something is left")

    def test_content_arrives(self) -> None:
        content = os.urandom(3 * MIB + 17)
        self.send(self.source(content))
        with open(self.target, "rb") as file:
            self.assertEqual(content, file.read())

    def test_holes_stay_holes(self) -> None:
        path = self.source(b"start", 200 * MIB)
        self.send(path)
        self.assertEqual(200 * MIB, os.path.getsize(self.target))
        self.assertLess(os.stat(self.target).st_blocks * 512, MIB)

    def test_an_open_file_is_sent_from_its_start(self) -> None:
        with tempfile.TemporaryFile() as file:
            file.write(b"written just now")
            file.flush()
            stream.send(
                file.fileno(), "disk", address="127.0.0.1", port=self.port,
                token=self.receiver.token, tls=self.tls(),
            )  # fmt: skip
        with open(self.target, "rb") as arrived:
            self.assertEqual(b"written just now", arrived.read())

    def test_an_empty_file(self) -> None:
        self.send(self.source(b""))
        self.assertEqual(0, os.path.getsize(self.target))

    def test_the_token_must_be_right(self) -> None:
        self.assert_refused(self.source(b"x"), "disk", "guessed", reason="not allowed")

    def test_only_files_that_are_expected(self) -> None:
        self.assert_refused(self.source(b"x"), "../../etc/passwd", reason="no such file")

    def test_half_a_file_is_no_file(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            client.sendall(
                b'{"token": "%s", "name": "disk", "size": 100}\n' % self.receiver.token.encode()
            )
            self.assertEqual(b"ok\n", client.recv(10))
            client.sendall(b"\0" * 8 + b"\0\0\0\x05" + b"abc")
        self.receiver.close()
        for _ in range(50):
            if not os.listdir(self.directory):
                break
            time.sleep(0.05)
        self.assertEqual([], os.listdir(self.directory))

    def test_pieces_stay_inside_of_the_file(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            client.sendall(
                b'{"token": "%s", "name": "disk", "size": 10}\n' % self.receiver.token.encode()
            )
            client.recv(10)
            client.sendall((1 << 40).to_bytes(8, "big") + b"\0\0\0\x01x" + b"\0" * 12)
            self.assertEqual(b"", client.recv(10))
        self.assertFalse(os.path.exists(self.target))

    def test_nonsense_is_refused(self) -> None:
        for line in (b"GET / HTTP/1.0\n", b"{}\n", b"[]\n", b"\xff\n"):
            with socket.create_connection(("127.0.0.1", self.port)) as client:
                client.sendall(line)
                self.assertEqual(b"not a request\n", client.recv(100))

    def test_a_receiver_that_is_gone(self) -> None:
        self.receiver.close()
        with self.assertRaises(exception.StorageError):
            self.send(self.source(b"x"))


class EncryptedStreamTest(StreamTest):
    """The same with TLS; what is not encrypted gets nowhere."""

    test_half_a_file_is_no_file = None  # type: ignore[assignment]
    test_pieces_stay_inside_of_the_file = None  # type: ignore[assignment]
    test_nonsense_is_refused = None  # type: ignore[assignment]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.pki = f"{directory.name}/qemu"
        Authority().equip(directory.name, "localhost", "127.0.0.1")

    def make_receiver(self) -> stream.Receiver:
        return stream.Receiver({"disk": self.target}, stream.tls_context(self.pki, "server"))

    def tls(self) -> ssl.SSLContext | None:
        return stream.tls_context(self.pki, "client")

    def test_a_stranger_is_not_listened_to(self) -> None:
        path = self.source(b"x")
        other = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, other)
        Authority().equip(other, "localhost", "127.0.0.1")
        for tls in (None, stream.tls_context(f"{other}/qemu", "client")):
            with self.assertRaises(exception.StorageError):
                stream.send(
                    path, "disk", address="127.0.0.1", port=self.port,
                    token=self.receiver.token, tls=tls,
                )  # fmt: skip
        self.assertFalse(os.path.exists(self.target))
