"""Starting, watching and stopping the processes of the stack."""

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping

from tests.openstack.paths import Paths


class Failed(Exception):
    """The stack does not come up; the message says where to look."""


class Processes:
    """Processes by name, each the leader of a session of its own with a log file of its own."""

    def __init__(self, paths: Paths):
        self._paths = paths
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self, name: str, *command: str, environment: Mapping[str, str] | None = None
    ) -> None:
        with open(self._paths.log(name), "ab") as log:
            self._running[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )

    def check(self, name: str) -> None:
        """:raises Failed: the process has ended."""
        status = self._running[name].poll()
        if status is not None:
            raise Failed(f"{name} ended with status {status}: see {self._paths.log(name)}")

    def alive(self) -> dict[str, bool]:
        return {name: process.poll() is None for name, process in self._running.items()}

    def stop(self, name: str, seconds: float = 15) -> None:
        process = self._running.pop(name, None)
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def stop_all(self) -> None:
        """Stop what is running, all at once: nothing of it needs the others to end."""
        for name in reversed(list(self._running)):
            if self._running[name].poll() is None:
                self._running[name].terminate()
        for name in list(self._running):
            self.stop(name, 8)

    def wait_for(self, name: str, condition: Callable[[], bool], seconds: float = 60) -> None:
        """:raises Failed: the process ended, or the condition did not come true in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if name in self._running:
                self.check(name)
            if time.monotonic() > deadline:
                raise Failed(f"{name} is not ready after {seconds:g} s: {self._paths.log(name)}")
            time.sleep(0.1)

    def run(self, name: str, *command: str, environment: Mapping[str, str] | None = None) -> None:
        """Run a command to its end, its output in the log ``name``."""
        self.start(name, *command, environment=environment)
        self.finish(name)

    def finish(self, name: str) -> None:
        """Wait for the end of a process that ends by itself."""
        status = self._running.pop(name).wait()
        if status:
            raise Failed(f"{name} ended with {status}: see {self._paths.log(name)}")

    def run_together(self, jobs: Mapping[str, tuple[str, ...]]) -> None:
        """Run several commands at once, and wait for all of them."""
        for name, command in jobs.items():
            self.start(name, *command)
        for name in jobs:
            self.finish(name)


def answers(address: str) -> bool:
    """Whether anything but an error of the server comes back."""
    try:
        with urllib.request.urlopen(address, timeout=5):  # noqa: S310 addresses of our own
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False
