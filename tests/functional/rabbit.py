"""A RabbitMQ of the test's own, on a port of its own."""

import os
import shutil
import socket
import subprocess
import tempfile

from tests import namespace


class Rabbit:
    """A broker that can be stopped and started again with what it had."""

    def __init__(self) -> None:
        # a range of its own for each worker process of the tests
        self.port = port = 20000 + os.getpid() % 5000 * 3
        self.directory = tempfile.mkdtemp(prefix="kvmdriver-rabbit", dir="/var/tmp")
        shutil.chown(self.directory, "rabbitmq", "rabbitmq")
        self._process: subprocess.Popen[bytes] | None = None
        self._environment = {
            **os.environ,
            "HOME": self.directory,
            "RABBITMQ_NODENAME": f"kvmdriver{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(port + 1),
            "ERL_EPMD_PORT": str(port + 2),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": f"{self.directory}/data",
            "RABBITMQ_LOG_BASE": f"{self.directory}/log",
            "RABBITMQ_PID_FILE": f"{self.directory}/pid",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{self.directory}/plugins",
            "RABBITMQ_CONFIG_FILE": f"{self.directory}/none",
            "RABBITMQ_SERVER_START_ARGS": "-setcookie kvmdriver",
            "RABBITMQ_CTL_ERL_ARGS": "-setcookie kvmdriver",
        }

    @property
    def url(self) -> str:
        return f"rabbit://guest:guest@127.0.0.1:{self.port}/"

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
        try:
            with socket.create_connection(("127.0.0.1", self.port), 2) as client:
                # a broker that is ready answers the header of AMQP 0-9-1
                client.settimeout(3)
                client.sendall(b"AMQP\x00\x00\x09\x01")
                return len(client.recv(8)) == 8
        except OSError:
            return False

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
