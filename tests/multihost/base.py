"""What multihost tests share: a laboratory for each class, instances on its hosts, and a look
for leftovers on all of them."""

import concurrent.futures
import contextlib
import json
import os
import sys
import threading
import unittest
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from oslo_config import cfg

from kvmdriver import conf as options
from kvmdriver import model
from kvmdriver.agent import transport as bus
from kvmdriver.agent.client import ComputeAPI
from tests import namespace
from tests.functional.base import Guest, guest_file, public_key
from tests.multihost.laboratory import GUEST_BRIDGE, Host, Laboratory, run

USERFAULTFD = "/proc/sys/vm/unprivileged_userfaultfd"


class MultihostTest(unittest.TestCase):
    """A test with several hosts. They are started once for a class, and are clean after each test."""

    hosts = 2
    post_copy = False
    laboratory: Laboratory

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.laboratory = Laboratory(cls.hosts)
        cls.addClassCleanup(cls.laboratory.close)
        cls.laboratory.start()
        if cls.post_copy:
            cls._allow_post_copy()

    @classmethod
    def _allow_post_copy(cls) -> None:
        """The kernel's switch is one for the whole machine: only one class may turn it on."""
        with open(USERFAULTFD) as file:
            before = file.read().strip()

        def write(value: str) -> None:
            with open(USERFAULTFD, "w") as file:
                file.write(value)

        write("1")
        cls.addClassCleanup(write, before)

    def setUp(self) -> None:
        super().setUp()
        self.made: set[str] = set()
        self.first, self.second, *_others = self.laboratory.hosts
        conf = options.register_opts(cfg.ConfigOpts())
        conf([], project="kvmdriver", default_config_files=[])
        conf.set_override("call_monitor_timeout", 6, "kvm_agent")
        self.conf = conf
        self.api = ComputeAPI(
            conf, host="kvm1", transport=bus.rpc_transport(conf, self.laboratory.bus_url)
        )
        self.addCleanup(self.api.close)

    @contextlib.contextmanager
    def agents(self, *, shared: bool = False, **migration: object) -> Iterator[None]:
        """Agents on all hosts, configured alike; afterwards no trace of a test may be left."""
        path = self.laboratory.shared_storage if shared else None
        for host in self.laboratory.hosts:
            host.configure(path, **migration)
            host.start_agent()
        try:
            yield
            for identity in self.made:
                for host in self.laboratory.hosts:
                    self.api.terminate_instance(identity, host=host.name)
            self.assert_nothing_left()
        except BaseException:
            print(f"{self.id()}:\n{self.logs()}", file=sys.stderr)
            raise
        finally:
            for host in self.laboratory.hosts:
                host.kill_agent()
                if not host.is_on:
                    host.boot()

    def kvmdriver(self, *arguments: str, host: Host | None = None) -> str:
        """What the command line prints, with the configuration of a host."""
        command = os.path.join(os.path.dirname(sys.executable), "kvmdriver")
        return run(command, "--config-file", (host or self.first).config, *arguments)

    def command_line(self, *arguments: str, host: Host | None = None) -> Any:
        """The same, of a command that prints JSON."""
        return json.loads(self.kvmdriver(*arguments, "-f", "json", host=host))

    def restore(self) -> None:
        """The first host returns."""
        self.first.boot()
        self.first.start_agent()

    def assert_nothing_left(self) -> None:
        """No domain, file or QEMU on any host."""
        for host in self.laboratory.hosts:
            self.assertEqual({}, host.domains(), f"domains are left on {host.name}")
            self.assertEqual("", host.run("pgrep", "-f", "qemu-system", check=False))
        for storage in self._storages():
            left = [
                os.path.join(directory, name)
                for directory, _names, files in os.walk(storage)
                for name in files
                if os.path.basename(directory) != "_base" or ".part" in name
            ]
            self.assertEqual([], left, "files are left")

    def _storages(self) -> list[str]:
        local = [host.local_storage for host in self.laboratory.hosts]
        return [*local, self.laboratory.shared_storage]

    def tearDown(self) -> None:
        # whatever a failed test has left must not fail the others
        for host in self.laboratory.hosts:
            for domain in host.libvirt().listAllDomains():
                with contextlib.suppress(Exception):
                    domain.destroy()
                with contextlib.suppress(Exception):
                    domain.undefine()
        for storage in self._storages():
            for name in os.listdir(storage):
                if name != "_base":
                    run("rm", "-rf", os.path.join(storage, name))
        super().tearDown()

    @contextlib.contextmanager
    def meanwhile(self, work: Callable[[], Any]) -> "Iterator[concurrent.futures.Future[Any]]":
        """Something that goes on while the body looks at it, whose end is waited for if that is well."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def run_it() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=run_it, daemon=True).start()
        yield future
        concurrent.futures.wait([future], 300)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        try:
            namespace.wait_for(condition, 60, 0.05)
        except AssertionError as error:
            self.fail(f"{error}\n{self.logs()}")

    def logs(self) -> str:
        """What the agents have said about moves last."""
        lines = []
        for host in self.laboratory.hosts:
            kept = [
                line[:300]
                for line in host.agent_log().splitlines()
                if " DEBUG " not in line
                and any(
                    word in line for word in ("igrat", "vacuat", "ERROR", "WARNING", "guest is")
                )
            ]
            lines += [f"--- {host.name}", *kept[-40:]]
        return "\n".join(lines)

    @staticmethod
    def guest_disk() -> dict[str, Any]:
        return {"image": {"type": "file", "path": guest_file("guest.qcow2")}}

    def create(self, host: Host | None = None, **fields: Any) -> model.InstanceView:
        """An instance that boots the test guest."""
        data: dict[str, Any] = {
            "name": f"guest-{uuid.uuid4().hex[:8]}",
            "memory": {"current_mib": 192},
            "disks": [self.guest_disk()],
            "nics": [{"type": "bridge", "source": GUEST_BRIDGE}],
            "config_drive": {"ssh_keys": [public_key()]},
        } | fields
        request = model.Instance.parse(data)
        self.made.add(request.uuid)
        return self.api.build_and_run_instance(request, host=(host or self.first).name)

    def guest_of(self, view: model.InstanceView) -> Guest:
        """Wait until the guest answers ssh."""
        guest = Guest(self.laboratory.address_of(view.nics[0].mac))
        namespace.wait_for(guest.answers, 90, 0.3)
        return guest

    def where(self, uuid: str) -> dict[str, str]:
        """Hosts that know an instance, and what it does there."""
        return {
            host.name: state
            for host in self.laboratory.hosts
            if (state := host.domains().get(uuid)) is not None
        }
