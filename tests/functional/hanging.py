"""What hangs in the tests: guests, and servers that send next to nothing."""

import http.server
import os
import signal
import socketserver
import threading
import time
import unittest
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

# What everything that is not concerned has to answer in.
SECONDS = 5.0


def in_time(test: unittest.TestCase, call: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """A call's result, which must come within the time that is promised."""
    began = time.monotonic()
    try:
        return call(*arguments, **named)
    finally:
        took = time.monotonic() - began
        test.assertLess(took, SECONDS, f"{getattr(call, '__name__', call)} took {took:.1f} s")


def hang(test: unittest.TestCase, name: str) -> Callable[[], None]:
    """Stop the QEMU of a domain, as one on dead storage would stand; what is returned wakes it."""
    with open(f"/run/libvirt/qemu/{name}.pid") as pidfile:
        process = os.pidfd_open(int(pidfile.read()))
    test.addCleanup(os.close, process)
    signal.pidfd_send_signal(process, signal.SIGSTOP)

    def wake() -> None:
        try:
            signal.pidfd_send_signal(process, signal.SIGCONT)
        except ProcessLookupError:
            return

    test.addCleanup(wake)
    return wake


class InBackground:
    """A call in a thread, and how it ended."""

    def __init__(self, call: Callable[..., Any], *arguments: Any, **named: Any):
        self.result: Any = None
        self.error: BaseException | None = None

        def work() -> None:
            try:
                self.result = call(*arguments, **named)
            except BaseException as error:
                self.error = error

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def wait(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return self.ended

    @property
    def code(self) -> str | None:
        return getattr(self.error, "code", None)


class _Dripping(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.release()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(1 << 20))
        self.end_headers()
        try:
            while not self.server.over.wait(1):  # type: ignore[attr-defined]
                self.wfile.write(b"x")
        except OSError:
            return

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64


class DrippingServer:
    """An image server that sends a byte a second."""

    def __init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), _Dripping)
        self._server.asked = self.asked = threading.Semaphore(0)  # type: ignore[attr-defined]
        self._server.over = self._over = threading.Event()  # type: ignore[attr-defined]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def image(self, name: str) -> dict[str, str]:
        url = f"http://127.0.0.1:{self._server.server_address[1]}/{name}"
        return {"type": "url", "url": url, "checksum": f"sha256:{name.encode().hex():0>64}"}

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
