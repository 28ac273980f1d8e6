"""The agent as operators run it: a service of its own, on a real broker."""

import os
import signal
import subprocess
import sys
import uuid
from typing import Any

from kvmdriver.agent import transport as bus
from kvmdriver.agent.client import ComputeAPI
from tests import namespace
from tests.functional.base import FunctionalTest
from tests.functional.rabbit import Rabbit


class Service:
    """kvmdriver-agent in a process group of its own."""

    def __init__(self, path: str, log: str):
        self._command = [
            os.path.join(os.path.dirname(sys.executable), "kvmdriver-agent"),
            "--config-file", path, "--log-file", log, "--debug",
        ]  # fmt: skip
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.DEVNULL,
            stderr=open(f"{self.log}.err", "ab"),
            start_new_session=True,
        )

    @property
    def pid(self) -> int | None:
        """Its first process, which leads a session of its own; None while it does not run."""
        return self._process.pid if self._process is not None else None

    def kill(self) -> None:
        """All of its processes at once, as a power failure of the agent alone would."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    def stop(self) -> int:
        """As an init system does; the exit status."""
        assert self._process is not None
        self._process.terminate()
        status = self._process.wait(60)
        self._process = None
        return status

    def served(self) -> int:
        """How often it has begun to serve requests."""
        return self._read().count("serves topic")

    def tail(self) -> str:
        return self._read()[-4000:]

    def _read(self) -> str:
        if not os.path.exists(self.log):
            return ""
        with open(self.log) as log:
            return log.read()


class AgentTest(FunctionalTest):
    """A test with kvmdriver-agent in another process, and a client on the broker."""

    rabbit: Rabbit
    tls = False
    host: str | None = None
    """Name of the agent; one of its own for each test when None."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.rabbit = Rabbit(tls=cls.tls)
        cls.addClassCleanup(cls.rabbit.close)
        cls.rabbit.start()

    def setUp(self) -> None:
        super().setUp()
        # the in-process agent of the base class stays, for what it tells about leftovers
        self.starts = 0
        self.conf = self.make_conf()
        name = self.host or f"agent-{uuid.uuid4().hex[:8]}"
        self.conf.set_override("host", name, "kvm_agent")
        self.conf.set_override("call_monitor_timeout", 4, "kvm_agent")
        path = os.path.join(self.state, "agent.conf")
        with open(path, "w") as config:
            config.write(self._config())
        self.service = Service(path, os.path.join(self.state, "agent.log"))
        self.addCleanup(self.service.kill)
        self.remote = self.make_remote()
        self.addCleanup(self.remote.close)
        self.service.start()
        self.wait_for_agent()

    def make_remote(self) -> ComputeAPI:
        """A client of the agent."""
        transport = bus.rpc_transport(self.conf, self.rabbit.url)
        return ComputeAPI(self.conf, transport=transport)

    def _config(self) -> str:
        return f"""[DEFAULT]
transport_url = {self.rabbit.url}
[kvm_agent]
host = {self.conf.kvm_agent.host}
{self._host_config()}"""

    def _host_config(self) -> str:
        return f"""[kvm]
virt_type = qemu
[kvm_storage]
instances_path = {self.instances}
image_directories = /
image_url_networks = 127.0.0.0/8
image_url_ports = 1-65535
reserved_disk_mib = 16
"""

    def wait_for_agent(self) -> None:
        self.starts += 1
        try:
            namespace.wait_for(lambda: self.service.served() >= self.starts, 60)
        except AssertionError:
            self.fail(self.service.tail())

    def restart_agent(self) -> None:
        self.service.start()
        self.wait_for_agent()

    def remote_create(self, **fields: Any):  # type: ignore[no-untyped-def]
        request = self.request(**fields)
        self.made.add(request.uuid)
        return self.remote.build_and_run_instance(request)
