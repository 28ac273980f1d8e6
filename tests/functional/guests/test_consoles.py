"""Consoles of a running guest."""

import io
import os
import socket
import threading

from PIL import Image

from kvmdriver import exception
from tests.functional.base import FunctionalTest


class ConsolesTest(FunctionalTest):
    def test_serial_console(self) -> None:
        view = self.create(nics=[], config_drive=None)
        self.wait_for_console(view.name, "login:")
        with self._connect(view.name) as console:
            console.sendall(b"\nroot\n")
            self._expect(console, b"Password:")
            console.sendall(b"kvmdriver\n")
            self._expect(console, b"# ")
            console.sendall(b"echo $((6*7))-answer; exit\n")
            self._expect(console, b"42-answer")
        # what was typed and answered is in the log as well
        self.assertIn("42-answer", self.api.get_console_output(view.name))
        self.assertLessEqual(len(self.api.get_console_output(view.name, kib=1)), 1024)
        # a second client is served, one without the token is not
        with self._connect(view.name) as console:
            console.sendall(b"\n")
            self._expect(console, b"login:")
        host, port, token = self.api.get_serial_console(view.name)
        with socket.create_connection((host, port), 5) as stranger:
            stranger.sendall(b"0" * len(token) + b"\n")
            stranger.settimeout(5)
            self.assertEqual(b"", stranger.recv(10))

    def test_serial_consoles_are_limited(self) -> None:
        view = self.create(nics=[], config_drive=None)
        self.wait_for_console(view.name, "login:")
        host, port, token = self.api.get_serial_console(view.name)
        threads, descriptors = self._threads(), len(os.listdir("/proc/self/fd"))
        for _ in range(300):
            error = self.refused(exception.InstanceBusy, self.api.get_serial_console, view.name)
            self.assertIn("ask again", error.remedy or "")
        self.assertEqual(threads, self._threads())
        self.assertLessEqual(len(os.listdir("/proc/self/fd")), descriptors + 20)
        with socket.create_connection((host, port), 5) as console:
            console.settimeout(20)
            console.sendall(token.encode() + b"\n\n")
            self._expect(console, b"login:")
        with self._connect(view.name) as console:
            console.sendall(b"\n")
            self._expect(console, b"login:")

    @staticmethod
    def _threads() -> list[str]:
        """Threads that wait for or serve consoles; those that serve requests come as needed."""
        return sorted(t.name for t in threading.enumerate() if t.name.startswith("console"))

    def _connect(self, name: str) -> socket.socket:
        host, port, token = self.api.get_serial_console(name)
        self.assertEqual("127.0.0.1", host)
        console = socket.create_connection((host, port), 5)
        console.sendall(token.encode() + b"\n")
        console.settimeout(20)
        return console

    def _expect(self, console: socket.socket, text: bytes) -> None:
        received = b""
        while text not in received:
            data = console.recv(4096)
            self.assertTrue(data, f"the console ended after {received!r}")
            received += data

    def test_vnc_and_screenshot(self) -> None:
        view = self.create(nics=[], config_drive=None, consoles={"vnc_password": "secret12"})
        url = self.api.get_vnc_console(view.name)
        host, _, port = url.removeprefix("vnc://").partition(":")
        self.assertEqual("127.0.0.1", host)
        with socket.create_connection((host, int(port)), 5) as viewer:
            version = viewer.recv(12)
            self.assertTrue(version.startswith(b"RFB 003."))
            viewer.sendall(version)
            count = viewer.recv(1)[0]
            # RFC 6143, 7.1.2: type 2 is VNC authentication, type 1 is none
            self.assertEqual([2], list(viewer.recv(count)))
        self.wait_for_console(view.name, "GUEST: up")
        picture = Image.open(io.BytesIO(self.api.get_screenshot(view.name)))
        self.assertEqual("PNG", picture.format)
        self.assertGreater(len(picture.convert("RGB").getcolors(1 << 24)), 1, "it is blank")

    def test_none(self) -> None:
        view = self.create(
            nics=[], config_drive=None, consoles={"serial": "none", "graphics": "none"}
        )
        self.refused(exception.Unsupported, self.api.get_console_output, view.name)
        self.refused(exception.Unsupported, self.api.get_serial_console, view.name)
        self.refused(exception.Unsupported, self.api.get_vnc_console, view.name)

    def test_diagnostics_and_host(self) -> None:
        view = self.create(nics=[{"type": "user"}], config_drive=None)
        self.wait_for_console(view.name, "GUEST: up")
        counters = self.api.get_diagnostics(view.name)
        self.assertGreater(counters.cpus[0]["time_ns"], 0)
        self.assertGreater(counters.disks[0]["read_bytes"], 1_000_000)
        host = self.api.get_host()
        self.assertEqual((1, 1), (host.instances, host.instances_running))
        self.assertEqual(("default",), host.networks)
        self.assertEqual(("qemu",), host.virt_types)
