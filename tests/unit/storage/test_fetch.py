"""Downloads from servers that are slow, broken or hostile. The servers are real, and ours."""

import contextlib
import hashlib
import ipaddress
import os
import socket
import ssl
import struct
import tempfile
import threading
import unittest
from collections.abc import Callable
from unittest import mock

from kvmdriver import exception
from kvmdriver.storage import fetch, guarded_http
from kvmdriver.storage.image_servers import ImageServers
from kvmdriver.storage.space import Reserve
from tests import certificates

DATA = bytes(range(256)) * 4096
SUM = "sha256:" + hashlib.sha256(DATA).hexdigest()
LOCAL = (ipaddress.ip_network("127.0.0.0/8"),)

Answer = Callable[[socket.socket, str], None]


class Server:
    """Answers each connection with the next of some functions, the last one again and again."""

    def __init__(self, *answers: Answer, tls: ssl.SSLContext | None = None):
        self.requests: list[str] = []
        self._answers = list(answers)
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def url(self, path: str = "/image", host: str = "127.0.0.1") -> str:
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}{path}"

    def _serve(self) -> None:
        while True:
            try:
                client, _peer = self._listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), client:
                if self._tls is not None:
                    client = self._tls.wrap_socket(client, server_side=True)
                with client:
                    request = b""
                    while b"\r\n\r\n" not in request:
                        part = client.recv(4096)
                        if not part:
                            break
                        request += part
                    self.requests.append(request.decode("latin-1"))
                    answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
                    answer(client, self.requests[-1])

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


def head(status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}"] + [f"{k.replace('_', '-')}: {v}" for k, v in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def raw(data: bytes) -> Answer:
    return lambda client, _request: client.sendall(data)


def whole(client: socket.socket, _request: str) -> None:
    client.sendall(head(Content_Length=str(len(DATA)), ETag='"1"') + DATA)


def cut_after(count: int, **headers: str) -> Answer:
    """The whole image is announced, and so many bytes of it come."""
    headers.setdefault("ETag", '"1"')
    return raw(head(Content_Length=str(len(DATA)), **headers) + DATA[:count])


def reset_after(count: int) -> Answer:
    def answer(client: socket.socket, _request: str) -> None:
        client.sendall(head(Content_Length=str(len(DATA)), ETag='"1"') + DATA[:count])
        # with a time of 0 to linger, closing is a reset (socket(7))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return answer


def rest(client: socket.socket, request: str) -> None:
    """The part that a Range header asks for."""
    start = int(request.partition("Range: bytes=")[2].partition("-")[0])
    client.sendall(
        head(
            "206 Partial Content",
            Content_Length=str(len(DATA) - start),
            Content_Range=f"bytes {start}-{len(DATA) - 1}/{len(DATA)}",
        )
        + DATA[start:]
    )


def redirect(url: str) -> Answer:
    return raw(head("302 Found", Location=url))


class FetchTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.target = os.open(
            os.path.join(self.directory, "part"), os.O_RDWR | os.O_CREAT | os.O_EXCL
        )
        self.addCleanup(os.close, self.target)
        # pauses between attempts are not what is tested
        patch = mock.patch.object(guarded_http.Watch, "pause", lambda watch, _s: watch.check())
        patch.start()
        self.addCleanup(patch.stop)

    def serve(self, *answers: Answer, **named: ssl.SSLContext) -> Server:
        server = Server(*answers, **named)
        self.addCleanup(server.close)
        return server

    def rules(self, **changed: object) -> fetch.Rules:
        servers = {"networks": LOCAL, "ports": (range(1, 65536),), **changed.pop("servers", {})}
        return fetch.Rules(
            **{"servers": ImageServers(**servers), "silence": 20, "max_bytes": 1 << 30, **changed}
        )

    def fetch(self, url: str, checksum: str = SUM, progress=None, **changed: object) -> None:
        fetch.download(
            url,
            checksum,
            self.target,
            rules=self.rules(**changed),
            reserve=Reserve(self.target, 0, self.directory),
            progress=progress or (lambda *_report: None),
        )

    def fetched(self) -> bytes:
        return os.pread(self.target, 2 * len(DATA), 0)

    def refused(
        self, url: str, kind: type[exception.KVMDriverError] = exception.ImageNotFound, **changed
    ) -> exception.KVMDriverError:
        with self.assertRaises(kind) as caught:
            self.fetch(url, **changed)
        self.assertTrue(caught.exception.remedy)
        return caught.exception

    def certificate(self, name: str) -> tuple[ssl.SSLContext, str]:
        """What a server of that name needs, and the certificate of its authority."""
        certificates.Authority().equip(self.directory, name, "127.0.0.1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(
            os.path.join(self.directory, "libvirt/servercert.pem"),
            os.path.join(self.directory, "libvirt/private/serverkey.pem"),
        )
        return context, os.path.join(self.directory, "CA/cacert.pem")

    # What is right

    def test_whole(self) -> None:
        seen = []
        self.fetch(self.serve(whole).url(), progress=lambda *report: seen.append(report))
        self.assertEqual(DATA, self.fetched())
        self.assertEqual(("download image", len(DATA), len(DATA)), seen[-1])

    def test_chunked(self) -> None:
        body = b"".join(
            b"%x\r\n%s\r\n" % (len(part), part)
            for part in (DATA[:100], DATA[100:100_000], DATA[100_000:])
        )
        self.fetch(self.serve(raw(head(Transfer_Encoding="chunked") + body + b"0\r\n\r\n")).url())
        self.assertEqual(DATA, self.fetched())

    def test_until_the_end_of_the_connection(self) -> None:
        self.fetch(self.serve(raw(head() + DATA)).url())
        self.assertEqual(DATA, self.fetched())

    def test_https(self) -> None:
        context, authority = self.certificate("images.example")
        server = self.serve(whole, tls=context)
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))]
        with mock.patch("socket.getaddrinfo", return_value=found) as look_up:
            self.fetch(server.url(host="images.example"), servers={"ca_file": authority})
            self.assertEqual(1, look_up.call_count, "the name was looked up a second time")
            self.assertIn(f"Host: images.example:{server.port}\r\n", server.requests[0])
            self.assertEqual(DATA, self.fetched())
            error = self.refused(server.url(host="other.example"), servers={"ca_file": authority})
            self.assertIn("not trusted", error.message)
            error = self.refused(server.url(host="images.example"))
            self.assertIn("image_url_ca_file", error.remedy)

    # What is cut off

    def test_goes_on_where_it_was_cut_off(self) -> None:
        for cut in (cut_after(300_000), reset_after(300_000)):
            server = self.serve(cut, rest)
            self.fetch(server.url())
            self.assertEqual(DATA, self.fetched())
            self.assertIn('If-Range: "1"', server.requests[1])
            self.assertNotIn("Range", server.requests[0])

    def test_goes_on_after_silence(self) -> None:
        kept: list[socket.socket] = []

        def stall(client: socket.socket, request: str) -> None:
            cut_after(1000)(client, request)
            kept.append(client.dup())

        self.fetch(self.serve(stall, rest).url(), silence=0.5)
        self.assertEqual(DATA, self.fetched())
        kept[0].close()

    def test_goes_on_after_a_broken_chunk(self) -> None:
        for broken in (b"zz\r\n", b"-5\r\nabc\r\n", b"64\r\nonly this", b"5\r\nabcdefgh\r\n"):
            begin = head(Transfer_Encoding="chunked", ETag='"1"') + b"%x\r\n" % 1000
            server = self.serve(raw(begin + DATA[:1000] + b"\r\n" + broken), whole)
            with self.subTest(broken):
                self.fetch(server.url())
                self.assertEqual(DATA, self.fetched())
                self.assertEqual(2, len(server.requests))

    def test_starts_over_when_the_server_sends_the_whole(self) -> None:
        self.fetch(self.serve(cut_after(300_000), whole).url())
        self.assertEqual(DATA, self.fetched())

    def test_starts_over_without_a_validator(self) -> None:
        server = self.serve(cut_after(300_000, ETag='W/"1"'), whole)
        self.fetch(server.url())
        self.assertNotIn("Range", server.requests[1])
        self.assertEqual(DATA, self.fetched())

    def test_by_the_time_of_the_last_change(self) -> None:
        date = "Tue, 01 Oct 2024 10:00:00 GMT"
        server = self.serve(cut_after(5, ETag="", Last_Modified=date), rest)
        self.fetch(server.url())
        self.assertIn(f"If-Range: {date}", server.requests[1])

    def test_starts_over_after_another_part_than_was_asked_for(self) -> None:
        for content_range in ("bytes 0-9/1048576", "bytes 5-9/10", "nonsense", ""):
            other = raw(
                head("206 Partial Content", Content_Length="10", Content_Range=content_range)
                + b"0123456789"
            )
            with self.subTest(content_range):
                self.fetch(self.serve(cut_after(5), other, whole).url())
                self.assertEqual(DATA, self.fetched())

    def test_starts_over_when_the_image_has_become_shorter(self) -> None:
        gone = raw(head("416 Range Not Satisfiable", Content_Length="0"))
        self.fetch(self.serve(cut_after(5), gone, whole).url())
        self.assertEqual(DATA, self.fetched())

    def test_a_busy_server_is_asked_again(self) -> None:
        server = self.serve(raw(head("503 Busy", Content_Length="0")), whole)
        self.fetch(server.url())
        self.assertEqual(2, len(server.requests))

    def test_ends_after_some_attempts(self) -> None:
        server = self.serve(cut_after(5), raw(b""))
        self.refused(server.url(), attempts=3)
        self.assertEqual(3, len(server.requests))

    def test_a_closed_port_is_tried_once(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        with mock.patch.object(guarded_http.Watch, "pause", side_effect=AssertionError):
            error = self.refused(f"http://127.0.0.1:{port}/")
        self.assertIn("cannot be connected to", error.message)

    # What never ends

    def test_too_slow(self) -> None:
        def drip(client: socket.socket, _request: str) -> None:
            client.sendall(head(Content_Length=str(len(DATA))))
            stop = threading.Event()
            while not stop.wait(0.05):
                client.sendall(b"x")  # until the other side has gone

        server = self.serve(drip)
        error = self.refused(server.url(), min_rate=64 * 1024, silence=0.5)
        self.assertIn("less than 64 KiB/s", error.message)
        self.assertIn("download_min_rate", error.remedy)
        error = self.refused(server.url(), max_seconds=0.3)
        self.assertIn("download_max_seconds", error.remedy)

    def test_a_header_that_drips(self) -> None:
        def drip(client: socket.socket, _request: str) -> None:
            stop = threading.Event()
            client.sendall(b"HTTP/1.1 200 OK\r\n")
            while not stop.wait(0.05):
                client.sendall(b"X")

        error = self.refused(self.serve(drip).url(), attempts=1, silence=0.5)
        self.assertIn("no answer within", error.message)

    def test_headers_without_end(self) -> None:
        def endless(piece: bytes) -> Answer:
            def answer(client: socket.socket, _request: str) -> None:
                while True:
                    client.sendall(piece * 100)

            return answer

        for piece in (
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 200 " + b"x" * 1000,
            b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n",
        ):
            with self.subTest(piece[:20]):
                self.refused(self.serve(endless(piece)).url(), attempts=2)

    def test_a_body_without_end(self) -> None:
        def endless(client: socket.socket, _request: str) -> None:
            client.sendall(head())
            while True:
                client.sendall(DATA)

        error = self.refused(
            self.serve(endless).url(), exception.ImageUnacceptable, max_bytes=3 << 20
        )
        self.assertIn("max_image_gib", error.remedy)
        self.assertLessEqual(os.fstat(self.target).st_size, 3 << 20)

    def test_cancelled_while_the_server_is_silent(self) -> None:
        class Cancelled(Exception):
            pass

        begun = threading.Event()

        def progress(_stage: str, done: int, *_rest: object) -> None:
            if begun.is_set() and done:
                raise Cancelled

        def silent(client: socket.socket, _request: str) -> None:
            client.sendall(head(Content_Length=str(len(DATA))) + DATA[:10])
            begun.set()
            client.recv(1)  # until the other side has gone

        with self.assertRaises(Cancelled):
            self.fetch(self.serve(silent).url(), progress=progress, silence=60)

    # What is not told, and not asked

    def test_odd_lengths(self) -> None:
        for length in ("-5", "+5", "1e3", "0x10", "five", "5, 5", "", "9" * 30):
            server = self.serve(raw(head(Content_Length=length) + DATA))
            with self.subTest(length):
                self.refused(server.url(), attempts=2)
        two = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345")
        self.refused(self.serve(two).url(), attempts=2)

    def test_what_is_no_http(self) -> None:
        for data in (
            b"",
            b"\n" * 100,
            b"SSH-2.0-OpenSSH\r\n",
            b"HTTP/1.1 abc x\r\n\r\n",
            b"\xff" * 99,
        ):
            with self.subTest(data[:10]):
                self.refused(self.serve(raw(data)).url(), attempts=2)

    def test_words_of_the_server_are_made_harmless(self) -> None:
        evil = "\x1b]0;OWNED\x07\x1b[2J\x9b31m" + "A" * 50_000
        for answer in (
            raw(head(f"404 {evil}")),
            raw(head(f"503 {evil}")),
            redirect(f"gopher://{evil}"),
        ):
            error = self.refused(self.serve(answer).url(), attempts=2)
            text = error.describe()
            self.assertLess(len(text), 1000)
            self.assertEqual(
                [], [letter for letter in text if not letter.isprintable() and letter != "\n"]
            )

    def test_another_checksum_is_not_told(self) -> None:
        server = self.serve(raw(head(Content_Length="6") + b"secret"))
        error = self.refused(server.url(), exception.ImageUnacceptable)
        self.assertNotIn(hashlib.sha256(b"secret").hexdigest(), str(error.to_dict()))

    def test_nothing_of_the_environment(self) -> None:
        proxy = self.serve(raw(head("418 Proxy")))
        server = self.serve(whole)
        with open(os.path.join(self.directory, ".netrc"), "w") as netrc:
            netrc.write("default login root password netrc-secret\n")
        environment = {"HOME": self.directory, "NETRC": os.path.join(self.directory, ".netrc")}
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            environment[name] = proxy.url("")
        with mock.patch.dict(os.environ, environment):
            self.fetch(server.url())
        self.assertNotIn("authorization", server.requests[0].lower())
        self.assertEqual([], proxy.requests)

    # Redirects

    def test_redirects(self) -> None:
        last = self.serve(whole)
        self.fetch(self.serve(redirect(last.url("/a b?x=ä"))).url())
        self.assertIn("GET /a%20b?x=%E4 ", last.requests[0])
        self.fetch(self.serve(redirect("/other"), whole).url())

    def test_redirects_without_end(self) -> None:
        server = self.serve(redirect("/again"))
        self.assertIn("redirects more than", self.refused(server.url()).message)
        self.assertEqual(6, len(server.requests))

    def test_redirects_to_where_images_may_not_come_from(self) -> None:
        for place in (
            "http://169.254.169.254/latest/meta-data/",
            "http://[::ffff:169.254.169.254]/",
            "http://[fd00:ec2::254]/",
            "http://10.0.0.1/",
            "http://user:word@127.0.0.1/",
            "file:///etc/passwd",
            "http://127.0.0.1:99999/",
            "http://[",
            "//" + "a" * 70 + "/",
            "",
        ):
            with self.subTest(place):
                self.refused(self.serve(redirect(place)).url("/" if place else ""))

    def test_a_name_that_resolves_to_metadata(self) -> None:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80))]
        server = self.serve(redirect("http://innocent.example/"))
        with mock.patch("socket.getaddrinfo", side_effect=[_local(server), found]):
            error = self.refused(server.url(host="images.example"))
        self.assertIn("image_url_networks", error.remedy)

    def test_no_way_back_from_https(self) -> None:
        context, authority = self.certificate("images.example")
        server = self.serve(redirect(self.serve(whole).url()), tls=context)
        error = self.refused(server.url(), servers={"ca_file": authority})
        self.assertIn("from https to http", error.message)


def _local(server: Server) -> list[tuple]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))]
