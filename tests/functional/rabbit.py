"""A RabbitMQ of the test's own, on a port of its own."""

import os
import shutil
import subprocess
import tempfile

from tests import broker, namespace
from tests.certificates import Authority

EXAMPLES = os.path.join(os.path.dirname(__file__), "../../etc/rabbitmq")


def example(name: str, changes: dict[str, str]) -> str:
    """A file of etc/rabbitmq with other values for some of its own; each must be in it."""
    with open(os.path.join(EXAMPLES, name)) as file:
        text = file.read()
    for old, new in changes.items():
        assert old in text, f"{name} has no {old}"
        text = text.replace(old, new)
    return text


class Rabbit:
    """A broker that can be stopped and started again with what it had.

    :param tls: it has the configuration that is in etc/rabbitmq, which is TLS only.
    """

    def __init__(self, address: str = "127.0.0.1", *, tls: bool = False) -> None:
        self._address = address
        # a range of its own for each worker process of the tests
        self.port = port = 20000 + os.getpid() % 5000 * 3
        self.directory = tempfile.mkdtemp(prefix="kvmdriver-rabbit", dir="/var/tmp")
        # Debian's commands start the broker for root, as its own user; other users start it directly
        path = os.environ["PATH"]
        if os.geteuid() == 0:
            shutil.chown(self.directory, "rabbitmq", "rabbitmq")
        else:
            path = f"/usr/lib/rabbitmq/bin:{path}"
        self.ca: str | None = None
        config = self._configure_tls() if tls else None
        self._process: subprocess.Popen[bytes] | None = None
        self._environment = {
            **os.environ,
            "PATH": path,
            **broker.environment(
                self.directory,
                f"kvmdriver{port}",
                port=port,
                distribution_port=port + 1,
                epmd_port=port + 2,
                address=address,
                config=config,
            ),
            "RABBITMQ_CTL_ERL_ARGS": f"-setcookie kvmdriver{port}",
        }

    @property
    def url(self) -> str:
        return f"rabbit://guest:guest@{self._address}:{self.port}/"

    def _configure_tls(self) -> str:
        directory = os.path.join(self.directory, "tls")
        Authority().equip(directory, "localhost", self._address)
        self.ca = f"{directory}/qemu/ca-cert.pem"
        config = os.path.join(self.directory, "rabbitmq.conf")
        with open(config, "w") as file:
            file.write(
                example(
                    "rabbitmq.conf",
                    {
                        "listeners.ssl.default = 5671": f"listeners.ssl.1 = {self._address}:{self.port}",
                        "/etc/rabbitmq/tls/ca.pem": self.ca,
                        "/etc/rabbitmq/tls/server.pem": f"{directory}/qemu/server-cert.pem",
                        "/etc/rabbitmq/tls/server.key": f"{directory}/qemu/server-key.pem",
                    },
                )
            )
        return config

    def add_user(self, kind: str, name: str, password: str) -> None:
        """Make a user as etc/rabbitmq/kvmdriver-users does; ``kind``: host, client or watcher."""
        done = subprocess.run(
            [os.path.join(EXAMPLES, "kvmdriver-users"), kind, name],
            input=f"{password}\n",
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert not done.returncode, done.stdout + done.stderr

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
        return broker.answers(self.port, self._address, self.ca)

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
