"""How the agent gets its privileged process without sudo."""

import contextlib
import io
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
from unittest import mock

from kvmdriver.agent import privileged

CALLER = "/run/kvmdriver/tmp0a_b/privsep.sock"
CONTEXT = "kvmdriver.privsep.context"


class PrivilegedTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        self.arguments = self.directory / "arguments"

    def helper(self, status: int = 0) -> contextlib.AbstractContextManager[object]:
        """A helper in place of oslo.privsep's that notes how it is called, beside our program."""
        program = self.directory / privileged.HELPER
        program.write_text(f'#!/bin/sh\necho "$@" >{self.arguments}\nexit {status}\n')
        program.chmod(0o755)
        start = self.directory / "kvmdriver-privsep-start"
        start.touch()
        # as a package has it, a link in another directory
        link = self.directory / "bin" / start.name
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(start)
        return mock.patch.object(sys, "argv", [str(link)])

    def ask(self, path: str = CALLER) -> tuple[int, str]:
        """Both sides, with a thread in place of systemd."""
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        name = str(self.directory / "socket")
        listener.bind(name)
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(privileged.serve(privileged.read(connection)).encode())

        thread = threading.Thread(target=serve)
        thread.start()
        errors = io.StringIO()
        words = ["--privsep_context", CONTEXT, "--privsep_sock_path", path]
        with (
            mock.patch.object(privileged, "SOCKET", name),
            mock.patch.object(sys, "argv", [sys.argv[0], *words]),
            contextlib.redirect_stderr(errors),
        ):
            status = privileged.ask()
        thread.join()
        return status, errors.getvalue()

    def test_started(self) -> None:
        with self.helper():
            self.assertEqual((0, ""), self.ask())
        self.assertEqual(
            f"--config-file /etc/kvmdriver/kvmdriver.conf --privsep_context {CONTEXT} "
            f"--privsep_sock_path {CALLER}\n",
            self.arguments.read_text(),
        )

    def test_systemd_has_the_socket_open_too(self) -> None:
        caller, served = socket.socketpair()
        self.addCleanup(caller.close)
        self.addCleanup(served.close)
        with self.helper():
            program = sys.argv[0]
        code = f"import sys; sys.argv = [{program!r}]; from kvmdriver.agent import privileged; privileged.start()"
        caller.sendall(f"{CONTEXT}\n{CALLER}\n".encode())
        caller.shutdown(socket.SHUT_WR)
        # "served" stays open in this process, as it does in systemd
        subprocess.run([sys.executable, "-c", code], stdin=served, check=True, timeout=60)
        caller.settimeout(10)
        self.assertEqual("started", privileged.read(caller))

    def test_the_helper_fails(self) -> None:
        with self.helper(status=3):
            status, message = self.ask()
        self.assertEqual(1, status)
        self.assertIn("privsep-helper ended with status 3", message)

    def test_what_is_refused(self) -> None:
        for request, words in (
            ("", "not one of kvmdriver's contexts"),
            ("os.system\n/run/kvmdriver/a/privsep.sock\n", "not one of kvmdriver's contexts"),
            (f"{CONTEXT}\n/tmp/a/privsep.sock\n", "set TMPDIR=/run/kvmdriver"),
            (f"{CONTEXT}\n/run/kvmdriver/../a/privsep.sock\n", "set TMPDIR"),
            (f"{CONTEXT}\n{CALLER}\n--config-dir\n", "set TMPDIR"),
            (f"{CONTEXT} --config-file x\n{CALLER}\n", "not one of kvmdriver's contexts"),
        ):
            with self.subTest(request), self.helper():
                self.assertIn(words, privileged.serve(request))
                self.assertFalse(os.path.exists(self.arguments))

    def test_nobody_listens(self) -> None:
        errors = io.StringIO()
        words = ["--privsep_context", CONTEXT, "--privsep_sock_path", CALLER]
        with (
            mock.patch.object(privileged, "SOCKET", str(self.directory / "none")),
            mock.patch.object(sys, "argv", [sys.argv[0], *words]),
            contextlib.redirect_stderr(errors),
        ):
            self.assertEqual(1, privileged.ask())
        self.assertIn("systemctl enable --now kvmdriver-privsep.socket", errors.getvalue())
