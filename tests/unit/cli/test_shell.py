"""The whole way from an agent's answer to a terminal."""

import contextlib
import json
import logging
import os
import pty
import select
import sys
import tty
import unittest
from collections.abc import Iterator
from unittest import mock

from kvmdriver import exception
from kvmdriver.agent.client import ComputeAPI
from kvmdriver.cli import connection, host
from kvmdriver.cli.shell import Shell
from kvmdriver.model import InstanceView, OsView, ProgressView

HOSTILE = "\x1b]0;OWNED\x07\x1b[2J\x9b2J\u202e\x7f\rweb"


class Terminal:
    """A pseudo-terminal, and what has been written to it."""

    def __init__(self) -> None:
        self.master, slave = pty.openpty()
        tty.setraw(slave)  # else the terminal makes CR LF of LF
        self.stream = open(slave, "w", encoding="utf-8", newline="")

    def read(self) -> str:
        self.stream.flush()
        data = b""
        while select.select([self.master], [], [], 0)[0]:
            data += os.read(self.master, 65536)
        return data.decode()

    def close(self) -> None:
        self.stream.close()
        os.close(self.master)


class ShellTest(unittest.TestCase):
    """A test with a terminal, and with a client that calls nobody."""

    def setUp(self) -> None:
        self.terminal = Terminal()
        self.addCleanup(self.terminal.close)
        self.client = mock.create_autospec(ComputeAPI, instance=True)

    @contextlib.contextmanager
    def _root_handlers(self) -> Iterator[None]:
        """cliff adds a handler that would outlive the test."""
        root = logging.getLogger("")
        before, level = list(root.handlers), root.level
        try:
            yield
        finally:
            root.handlers[:] = before
            root.setLevel(level)

    def run_command(self, *arguments: str) -> str:
        """What a command writes to a terminal that is its output and its place for errors."""
        with (
            self._root_handlers(),
            mock.patch.object(sys, "stdout", self.terminal.stream),
            mock.patch.object(sys, "stderr", self.terminal.stream),
            mock.patch.object(Shell, "client", self.client),
        ):
            Shell().run(list(arguments))
            return self.terminal.read()


class TerminalTest(ShellTest):
    def assert_harmless(self, written: str) -> None:
        self.assertIn("OWNED", written, "it was not shown at all")
        found = {c for c in written if ord(c) < 32 or 127 <= ord(c) < 160 or c == "\u202e"}
        self.assertLessEqual(found, {"\n"})

    def test_errors(self) -> None:
        self.client.get_instance.side_effect = exception.MigrationRefused(
            HOSTILE, field=HOSTILE, value=HOSTILE, remedy=HOSTILE, instance=HOSTILE,
            reasons=[{"message": HOSTILE, "remedy": HOSTILE}],
        )  # fmt: skip
        written = self.run_command("server", "show", "web")
        self.assert_harmless(written)
        self.assertEqual(7, written.count(r"\u001b]0;OWNED\u0007\u001b[2J\u009b2J\u202e\u007f"))

    def test_errors_that_are_not_ours(self) -> None:
        self.client.get_instance.side_effect = ValueError(HOSTILE)
        self.assert_harmless(self.run_command("server", "show", "web"))

    def test_logs(self) -> None:
        def log(_name: str) -> None:
            logging.getLogger("kvmdriver.storage").warning("%s came", HOSTILE)
            raise exception.InvalidState("stop")

        self.client.get_instance.side_effect = log
        self.assert_harmless(self.run_command("server", "show", "web"))

    def test_every_format(self) -> None:
        systems = [OsView(short_id=HOSTILE, name=HOSTILE, version=None, family=None, released=None,
                          end_of_life=None)]  # fmt: skip
        self.client.list_systems.return_value = systems
        for kind in ("table", "value", "csv", "json", "yaml"):
            with self.subTest(kind):
                written = self.run_command("os", "list", "-f", kind)
                self.assert_harmless(written)
                if kind == "json":
                    self.assertEqual(HOSTILE, json.loads(written)[0]["ID"])

    def test_warnings_and_progress(self) -> None:
        view = InstanceView(
            uuid="u", name=HOSTILE, status="running", memory_mib=1, memory_maximum_mib=1, vcpus=1,
            vcpus_maximum=1, warnings=(HOSTILE,),
        )  # fmt: skip

        def create(_instance: object, *, start: bool, on_progress: object) -> InstanceView:
            on_progress(ProgressView(request_id="r", stage=HOSTILE, done=1, total=2))  # type: ignore[operator]
            return view

        self.client.build_and_run_instance.side_effect = create
        written = self.run_command("server", "create", "web", "--image", "/a")
        # the bar itself returns to the start of its line
        self.assert_harmless(written.replace("\r", ""))
        self.assertNotIn("\rweb", written)

    def test_a_console_log(self) -> None:
        log = f"\x1b[32mOK\x1b[0m booted\r\n{HOSTILE}\n"
        self.client.get_console_output.return_value = log
        written = self.run_command("server", "console", "log", "web")
        self.assertTrue(written.startswith("\x1b[32mOK\x1b[0m booted\n"))
        self.assert_harmless(written.replace("\x1b[32m", "").replace("\x1b[0m", ""))
        self.assertEqual(log, self.run_command("server", "console", "log", "web", "--raw"))


class OtherHostTest(ShellTest):
    """A host is named, and no message bus leads there: nothing is done on this one instead."""

    def refused(self, *arguments: str) -> str:
        with (
            self._root_handlers(),
            mock.patch.object(sys, "stdout", self.terminal.stream),
            mock.patch.object(sys, "stderr", self.terminal.stream),
            mock.patch.object(connection, "LocalAgent") as agent,
            mock.patch.object(host, "KVMDriver") as driver,
            mock.patch.object(host, "NestedHost") as nested,
        ):
            self.assertEqual(1, Shell().run(["--host", "elsewhere.example", *arguments]))
            for unused in (agent, driver, nested):
                unused.assert_not_called()
            return self.terminal.read()

    def test_what_needs_an_agent(self) -> None:
        for command in (("server", "list"), ("host", "check"), ("cpu", "show")):
            with self.subTest(command):
                written = self.refused(*command)
                self.assertIn("--host = elsewhere.example", written)
                self.assertIn("transport_url", written)

    def test_what_is_done_on_the_machine_itself(self) -> None:
        for command in ("show", "enable", "disable"):
            with self.subTest(command):
                written = self.refused("host", "nested", command)
                self.assertIn("--host = elsewhere.example", written)
                self.assertIn("code: unsupported", written)
