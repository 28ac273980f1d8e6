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

import msgpack
from oslo_privsep import comm

from kvmdriver.agent import privileged, privsep_helper

CALLER = "/run/kvmdriver/tmp0a_b/privsep.sock"
CONTEXT = "kvmdriver.privsep.context"


class PrivilegedTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        self.arguments = self.directory / "arguments"

    def helper(self, status: int = 0) -> contextlib.AbstractContextManager[object]:
        """A helper in place of oslo.privsep's that notes how it is called."""
        program = self.directory / "helper"
        program.write_text(f'#!/bin/sh\necho "$@" >{self.arguments}\nexit {status}\n')
        program.chmod(0o755)
        return mock.patch.object(privileged, "HELPER", (str(program),))

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
        code = "from kvmdriver.agent import privileged; privileged.HELPER = ('true',); privileged.start()"
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
        self.assertIn("the helper ended with status 3", message)

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


class HelperTest(unittest.TestCase):
    """oslo.privsep's helper, and how it ends when the agent goes."""

    # without the fork, so that the status and the words of the process that serves are seen here
    CODE = (
        "import os; os.fork = lambda: 0; number = os.getpid(); before = iter((0,)); "
        "os.getpid = lambda: next(before, number); "
        "from kvmdriver.agent import privsep_helper; privsep_helper.main()"
    )

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        self.path = str(self.directory / "privsep.sock")
        self.config = self.directory / "kvmdriver.conf"
        self.logging = ""

    def serve(self, *, debug: bool, reads: bool, context: str = CONTEXT) -> tuple[int, str]:
        """The status and the words of a helper whose caller asks one thing and goes."""
        self.config.write_text(f"[DEFAULT]\ndebug = {debug}\n{self.logging}\n")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.path)
            listener.listen()
            helper = subprocess.Popen(
                [
                    *(sys.executable, "-W", "ignore", "-c", self.CODE),
                    *("--config-file", str(self.config), "--privsep_context", context),
                    *("--privsep_sock_path", self.path),
                ],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
            self.addCleanup(helper.kill)
            listener.settimeout(60)
            connection, _ = listener.accept()
            with connection:
                connection.sendall(msgpack.packb((1, (comm.Message.PING.value,))))
                connection.settimeout(60)
                # the answer comes last
                flags = 0 if reads else socket.MSG_PEEK
                seen = b""
                while comm.Message.PONG.value not in seen[-1:]:
                    part = connection.recv(65536, flags)
                    self.assertTrue(part)
                    seen = part if flags else seen + part
            os.unlink(self.path)
        said, _ = helper.communicate(timeout=60)
        return helper.returncode, said

    @unittest.skipUnless(os.geteuid() == 0, "only root has capabilities to keep")
    def test_it_ends_cleanly_when_the_agent_goes(self) -> None:
        for debug in (False, True):
            for reads in (True, False):
                with self.subTest(debug=debug, reads=reads):
                    self.assertEqual((0, ""), self.serve(debug=debug, reads=reads))

    @unittest.skipUnless(os.geteuid() == 0, "only root has capabilities to keep")
    def test_it_opens_no_log_of_the_agent(self) -> None:
        log = self.directory / "agent.log"
        for options in (
            f"log_file = {log}",
            f"log_file = agent.log\nlog_dir = {self.directory}",
            f"log_config_append = {self.directory}/none",
        ):
            self.logging = options
            with self.subTest(options):
                self.assertEqual((0, ""), self.serve(debug=True, reads=True))
                self.assertFalse(log.exists())

    def test_other_errors_are_told(self) -> None:
        done = subprocess.run(
            [
                *privileged.HELPER,
                *("--privsep_context", CONTEXT, "--privsep_sock_path", self.path),
            ],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
        )  # fmt: skip
        self.assertEqual(1, done.returncode)
        self.assertIn("FileNotFoundError", done.stdout)

    def test_an_error_that_cannot_be_told_to_the_agent(self) -> None:
        gone = BrokenPipeError()
        self.assertTrue(privsep_helper.has_hung_up(gone))
        gone.__context__ = PermissionError("capset")
        self.assertFalse(privsep_helper.has_hung_up(gone))
