"""A RabbitMQ of the test's own, on a port of its own."""

import os
import shutil
import subprocess
import tempfile

from tests import broker, namespace


class Rabbit:
    """A broker that can be stopped and started again with what it had."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self._address = address
        # a range of its own for each worker process of the tests
        self.port = port = 20000 + os.getpid() % 5000 * 3
        self.directory = tempfile.mkdtemp(prefix="kvmdriver-rabbit", dir="/var/tmp")
        shutil.chown(self.directory, "rabbitmq", "rabbitmq")
        self._process: subprocess.Popen[bytes] | None = None
        self._environment = {
            **os.environ,
            **broker.environment(
                self.directory,
                f"kvmdriver{port}",
                port=port,
                distribution_port=port + 1,
                epmd_port=port + 2,
                address=address,
            ),
            "RABBITMQ_CTL_ERL_ARGS": f"-setcookie kvmdriver{port}",
        }

    @property
    def url(self) -> str:
        return f"rabbit://guest:guest@{self._address}:{self.port}/"

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["setsid", "rabbitmq-server"],
            env=self._environment,
            stdout=open(f"{self.directory}/output", "ab"),
            stderr=subprocess.STDOUT,
        )
        namespace.wait_for(self._answers, 60, 0.2)

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            with open(f"{self.directory}/output") as output:
                raise AssertionError(f"RabbitMQ ended: {output.read()[-2000:]}")
        return broker.answers(self.port, self._address)

    def kill(self) -> None:
        """Stop the broker at once; what it keeps on disk stays."""
        if self._process is not None:
            subprocess.run(["kill", "-9", "--", f"-{self._process.pid}"], check=False)
            self._process.wait(10)
            # the Erlang machine left the group of the shell that started it
            for pid in _users_of(self.port):
                os.kill(pid, 9)
            self._process = None

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


def _users_of(port: int) -> set[int]:
    """Processes that listen on a TCP port of ours (ss(8))."""
    output = subprocess.run(
        ["ss", "-Hltnp", f"sport = :{port}"], capture_output=True, text=True, check=True
    ).stdout
    return {int(part.partition(",")[0]) for part in output.split("pid=")[1:]}
