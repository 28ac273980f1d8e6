"""Files from one host to another, over a real socket on this one."""

import contextlib
import json
import os
import shutil
import socket
import ssl
import struct
import tempfile
import threading
import time
import unittest
from typing import Any
from unittest import mock

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

    def make_receiver(self, **fields: Any) -> stream.Receiver:
        expected = {"path": self.target, "size": 1024 * MIB, "exact": False} | fields
        return stream.Receiver({"disk": stream.ExpectedFile(**expected)}, self.server_tls())

    def expect(self, **fields: Any) -> None:
        """Take a file with other properties than that of most tests."""
        self.receiver.close()
        self.receiver = self.make_receiver(**fields)
        self.port = self.receiver.open("127.0.0.1")
        self.addCleanup(self.receiver.close)

    def server_tls(self) -> ssl.SSLContext | None:
        return None

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
        self.assert_refused(self.source(b"x"), "other", reason="no such file")
        self.assert_refused(self.source(b"x"), "../../etc/passwd", reason="not a request")

    def test_half_a_file_is_no_file(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            client.sendall(
                b'{"token": "%s", "name": "disk", "size": 100}\n' % self.receiver.token.encode()
            )
            self.assertEqual(b"ok\n", client.recv(10))
            client.sendall(b"\0" * 8 + b"\0\0\0\x05" + b"abc")
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(b"the sender has gone away\n", client.recv(100))
        self.assertEqual([], os.listdir(self.directory))

    def header(self, **fields: Any) -> bytes:
        data = {"token": self.receiver.token, "name": "disk", "size": 10} | fields
        return json.dumps(data).encode() + b"\n"

    def answer_to(self, *sent: bytes) -> bytes:
        """What the receiver says last to somebody who sends this, in the clear."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as client:
            answer = b""
            for data in sent:
                client.sendall(data)
                answer = client.recv(200)
            return answer

    def test_pieces_stay_inside_of_the_file_and_in_order(self) -> None:
        piece = struct.Struct("!QI")
        for pieces in (
            piece.pack(1 << 40, 1) + b"x",
            piece.pack((1 << 64) - 1, 1) + b"x",
            piece.pack(5, 2) + b"xx" + piece.pack(6, 1) + b"x",
            piece.pack(0, 11) + b"x" * 11,
        ):
            self.assertIn(b"outside of the file", self.answer_to(self.header(), pieces))
        self.assertEqual([], os.listdir(self.directory))

    def test_nonsense_is_refused(self) -> None:
        for line in (
            b"GET / HTTP/1.0\n",
            b"{}\n",
            b"[]\n",
            b"\xff\n",
            b"[" * 4000 + b"\n",
            b'{"a":' * 700 + b"\n",
            self.header(size=True),
            self.header(size=1.5),
            self.header(size=float("inf")),
            self.header(size=float("nan")),
            self.header(size="10"),
            self.header(size=-1),
            self.header(size=1 << 70),
            self.header(token=None),
            self.header(token=["x"]),
            self.header(token="\ud800"),
            self.header(name="../disk"),
            self.header(name=""),
            self.header(more=1),
            self.header() + b"data that must wait",
        ):
            with self.subTest(line[:60]):
                self.assertEqual(b"not a request\n", self.answer_to(line))
        self.assertEqual([], os.listdir(self.directory))

    def test_a_line_without_an_end_is_not_kept(self) -> None:
        with (
            self.assertLogs("kvmdriver.acceptor", "WARNING"),
            contextlib.suppress(ConnectionResetError),
        ):
            self.assertEqual(b"", self.answer_to(b"x" * 100_000))

    def test_the_size_is_the_one_that_was_announced(self) -> None:
        self.expect(size=10, exact=True)
        for size in (0, 9, 11, 1 << 62):
            self.assertIn(b"were announced", self.answer_to(self.header(size=size)))
        self.assertEqual(b"ok\n", self.answer_to(self.header(size=10)))
        self.expect(size=10, exact=False)
        self.assertIn(b"were announced", self.answer_to(self.header(size=11)))

    def test_a_file_comes_once(self) -> None:
        path = self.source(b"content")
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            client.sendall(self.header())
            self.assertEqual(b"ok\n", client.recv(10))
            self.assertIn(b"coming already", self.answer_to(self.header()))
            client.shutdown(socket.SHUT_WR)
            self.assertIn(b"gone away", client.recv(100))
        self.send(path)  # one that failed may come again
        with self.assertRaisesRegex(exception.StorageError, "has come already"):
            self.send(path)
        with open(self.target, "rb") as file:
            self.assertEqual(b"content", file.read())

    def test_a_file_that_is_there_is_not_replaced(self) -> None:
        path = self.source(b"new")
        victim = os.path.join(self.directory, "victim")
        for make in (lambda: os.symlink(victim, self.target), lambda: os.mkdir(self.target)):
            make()
            with self.assertRaisesRegex(exception.StorageError, "File exists"):
                self.send(path)
            self.assertEqual({"source", "arrived"}, set(os.listdir(self.directory)))
            (os.unlink if os.path.islink(self.target) else os.rmdir)(self.target)

    def test_others_cannot_read_a_file(self) -> None:
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        modes = []
        self.expect(accept=lambda part: modes.append(os.stat(part).st_mode & 0o777))
        self.send(self.source(b"secret"))
        self.assertEqual([0o640], modes)
        self.assertEqual(0o640, os.stat(self.target).st_mode & 0o777)

    def test_a_file_that_is_not_accepted_gets_no_name(self) -> None:
        def refuse(part: str) -> None:
            raise exception.ImageUnacceptable("it is not what was offered", value=part)

        self.expect(accept=refuse)
        self.assert_refused(self.source(b"x"), reason="not what was offered")

    def test_free_space_is_kept(self) -> None:
        asked = []

        def require(mib: int) -> None:
            asked.append(mib)
            if sum(asked) > 100:
                raise exception.InsufficientResources("no space for more")

        self.receiver.close()
        expected = stream.ExpectedFile(self.target, 200 * MIB)
        self.receiver = stream.Receiver({"disk": expected}, self.server_tls(), require=require)
        self.port = self.receiver.open("127.0.0.1")
        path = self.source(b"x" * 128 * MIB, 200 * MIB)
        self.assert_refused(path, reason="no space for more")
        self.assertEqual([64, 64], asked)

    def test_a_crowd_costs_no_threads_and_keeps_nobody_out(self) -> None:
        path = self.source(b"content")
        before = threading.active_count()
        with contextlib.ExitStack() as crowd, self.assertLogs("kvmdriver.acceptor") as logged:
            for number in range(400):
                client = crowd.enter_context(
                    socket.create_connection(("127.0.0.1", self.port), 10)
                )
                if number % 2:
                    client.sendall(b'{"token": ')
            self.send(path)
            self.assertLessEqual(threading.active_count(), before + 1)
        with open(self.target, "rb") as file:
            self.assertEqual(b"content", file.read())
        self.assertLess(len(logged.output), 10, "one line for each of them")

    def test_who_does_not_get_on_is_dropped(self) -> None:
        with mock.patch.object(stream, "_GREETING", 0.3):
            self.expect()
        with socket.create_connection(("127.0.0.1", self.port), 10) as client:
            began = time.monotonic()
            with contextlib.suppress(OSError):
                while True:  # each byte on its own would be in time
                    client.sendall(b"x")
                    client.settimeout(0.05)
                    with contextlib.suppress(TimeoutError):
                        if not client.recv(1):
                            break
            self.assertLess(time.monotonic() - began, 5)

    def test_a_receiver_that_is_gone(self) -> None:
        self.receiver.close()
        with self.assertRaises(exception.StorageError):
            self.send(self.source(b"x"))


class EncryptedStreamTest(StreamTest):
    """The same with TLS; what is not encrypted gets nowhere."""

    test_half_a_file_is_no_file = None  # type: ignore[assignment]
    test_pieces_stay_inside_of_the_file_and_in_order = None  # type: ignore[assignment]
    test_nonsense_is_refused = None  # type: ignore[assignment]
    test_the_size_is_the_one_that_was_announced = None  # type: ignore[assignment]
    test_a_file_comes_once = None  # type: ignore[assignment]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.pki = f"{directory.name}/qemu"
        Authority().equip(directory.name, "localhost", "127.0.0.1")

    def server_tls(self) -> ssl.SSLContext | None:
        return stream.tls_context(self.pki, "server")

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
