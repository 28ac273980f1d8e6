"""The ``openstack`` command without the second that each process of it needs to start.

A test sends hundreds of commands. Here one process has loaded OpenStackClient, and forks for each
command, which so runs as it would by itself: its own arguments, environment, output and exit status.
"""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from typing import Any

from tests import namespace
from tests.openstack.control import Control
from tests.openstack.paths import FIRST, Paths

# what the commands of the tests are made of
_MODULES = (
    "openstackclient.shell",
    "openstackclient.compute.v2.server",
    "openstackclient.compute.v2.service",
    "openstackclient.identity.v3.token",
    "openstackclient.image.v2.image",
    "openstackclient.network.v2.floating_ip",
    "openstackclient.volume.v3.volume",
    "openstack.connection",
)


class Client:
    """Runs commands in the namespaces of a stack's first host. Any thread may call it."""

    def __init__(self, paths: Paths):
        self._path = os.path.join(paths.root, f"client-{os.getpid()}.sock")
        self._server = subprocess.Popen(
            [*Control(paths, FIRST).enter(), sys.executable, "-m", __name__, self._path],
            stdin=subprocess.PIPE,
        )
        atexit.register(self.close)
        namespace.wait_for(lambda: os.path.exists(self._path))

    def close(self) -> None:
        """End the server: it ends with its input."""
        self._server.communicate()
        if os.path.exists(self._path):
            os.unlink(self._path)

    def run(
        self, arguments: list[str], environment: dict[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command; its status and output.

        :param timeout: seconds.
        :raises TimeoutError: the command has not ended by then.
        """
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(self._path)
            connection.sendall(json.dumps([arguments, environment]).encode())
            connection.shutdown(socket.SHUT_WR)
            with connection.makefile("r") as answer:
                status, output, errors = json.load(answer)
        return subprocess.CompletedProcess(["openstack", *arguments], status, output, errors)


def _serve(path: str) -> None:
    for module in _MODULES:
        __import__(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path + ".new")
        listener.listen(64)
        os.rename(path + ".new", path)
        while sys.stdin not in select.select([sys.stdin, listener], [], [])[0]:
            connection = listener.accept()[0]
            if os.fork() == 0:
                listener.close()
                _answer(connection)
            connection.close()


def _answer(connection: socket.socket) -> None:
    status = 1
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        try:
            with connection.makefile("r") as request:
                arguments, environment = json.load(request)
            os.environ.clear()
            os.environ.update(environment)
            null = os.open(os.devnull, os.O_RDONLY)
            for source, target in ((null, 0), (output.fileno(), 1), (errors.fileno(), 2)):
                os.dup2(source, target)
            status = _command(arguments)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            texts = [_all_of(file) for file in (output, errors)]
            connection.sendall(json.dumps([status, *texts]).encode())
            os._exit(0)


def _command(arguments: list[str]) -> int:
    from openstackclient import shell

    try:
        return int(shell.main(arguments) or 0)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


def _all_of(file: Any) -> str:
    file.seek(0)
    text: str = file.read()
    return text


if __name__ == "__main__":
    _serve(sys.argv[1])
