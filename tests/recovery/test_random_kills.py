"""The agent, libvirtd or both are killed at random moments while clients keep them busy.

Four clients send random requests over a real broker to an agent in a process of its own. After each
kill everything is started again, the clients repeat what has failed until it is done, and then the
host must be sound (``judge``) and each instance what its client has made of it. The seed decides
what is asked for, what is killed and when; the threads of the agent run as they like::

    KVMDRIVER_KILL_SEED=42 KVMDRIVER_KILLS=60 python -m tests.namespace \\
        python -m testtools.run tests.recovery.test_random_kills
"""

import os
import random
import re
import select
import shutil
import signal
import sys
import tempfile
import time
import unittest

from oslo_config import cfg

from kvmdriver import conf as options
from kvmdriver import exception, model
from kvmdriver.agent import transport as bus
from kvmdriver.agent.client import ComputeAPI
from tests import namespace
from tests.functional.guests.service import Service
from tests.functional.rabbit import Rabbit
from tests.recovery import host, judge
from tests.recovery.workload import Client, Gate

HOST = "recovery"
CLIENTS = 4
KILLS = int(os.environ.get("KVMDRIVER_KILLS", "60"))
# At most so long after the first request has begun, in seconds: the longest of them take that.
LATEST = 1.5
SETTLED_SECONDS = 120
SOUND_SECONDS = 20
# A broken agent gives one failure after the other; these say enough.
ENOUGH = 8


class RandomKillTest(unittest.TestCase):
    """One long test."""

    def setUp(self) -> None:
        super().setUp()
        if namespace.INSIDE not in os.environ:
            self.fail("these tests need their laboratory: see the module")
        self.seed = os.environ.get("KVMDRIVER_KILL_SEED") or str(random.randrange(10**6))
        self.state = tempfile.mkdtemp(dir=os.environ[namespace.INSIDE])
        os.chmod(self.state, 0o755)
        self.addCleanup(shutil.rmtree, self.state, ignore_errors=True)
        self.instances = f"{self.state}/instances"
        self.cached: set[str] = set()
        host.wipe(self.state)
        self.addCleanup(host.wipe, self.state)
        host.make_image(f"{self.state}/image.qcow2")
        rabbit = Rabbit()
        self.addCleanup(rabbit.close)
        rabbit.start()
        self.service = Service(self._write_config(rabbit.url), f"{self.state}/agent.log")
        self.addCleanup(self.service.kill)
        self.service.start()
        conf = options.register_opts(cfg.ConfigOpts())
        conf([], project="kvmdriver", default_config_files=[])
        # a dead agent is noticed soon
        conf.set_override("call_monitor_timeout", 2, "kvm_agent")
        self.api = ComputeAPI(conf, transport=bus.rpc_transport(conf, rabbit.url))
        self.addCleanup(self.api.close)

    def _write_config(self, url: str) -> str:
        path = f"{self.state}/agent.conf"
        with open(path, "w") as file:
            file.write(f"""[DEFAULT]
transport_url = {url}
[kvm]
virt_type = qemu
keepalive_interval = 1
keepalive_count = 2
[kvm_agent]
host = {HOST}
[kvm_storage]
instances_path = {self.instances}
image_directories = /
reserved_disk_mib = 16
""")
        return path

    def wait_for_agent(self) -> None:
        """Wait until the agent serves requests, and libvirt answers it."""

        def serves() -> bool:
            try:
                self.api._call("list_instances", HOST, {}, "reads", 10)
            except exception.KVMDriverError:
                return False
            return True

        namespace.wait_for(serves, 60, 0.2)

    def test_random_kills(self) -> None:
        self.wait_for_agent()
        self.canary = host.Canary(self.instances)
        self.api.build_and_run_instance(model.Instance.parse(self.canary.request()), host=HOST)
        self.canary.wait_for_boot()
        self.cached = set(os.listdir(f"{self.instances}/_base"))
        self.gate = Gate()
        self.clients = [
            Client(number, self.seed, self.api, HOST, self.state, self.gate, self.wait_for_agent)
            for number in range(CLIENTS)
        ]
        for client in self.clients:
            client.start()
        chance = random.Random(self.seed)
        failed: list[str] = []
        try:
            for number in range(1, KILLS + 1):
                victims = chance.choice((("agent",), ("libvirtd",), ("agent", "libvirtd")))
                delay = chance.uniform(0, LATEST)
                mark = self._log_size()
                wrong = self._strike(victims, delay)
                if wrong:
                    title = f"kill {number}, {' and '.join(victims)} after {delay:.2f} s:\n"
                    lines = "".join(f"    {line}\n" for line in wrong)
                    failed.append(title + lines + self._log_since(mark))
                    self._begin_again()
                if len(failed) >= ENOUGH:
                    break
        finally:
            for client in self.clients:
                client.stop()
            self.gate.close(SETTLED_SECONDS)
        repeated = sum(client.repeated for client in self.clients)
        done = sum(sum(client.done.values()) for client in self.clients)
        half = sum(client.half_plugged for client in self.clients)
        lost = sum(client.lost for client in self.clients)
        sys.stdout.write(
            f"seed {self.seed}: {number} kills, {done} requests carried out, {repeated} of them"
            f" after an error, {half} guests switched off as libvirtd left half a device in them,"
            f" {lost} as libvirtd had lost them\n"
        )
        if failed:
            self.fail(f"seed {self.seed}, {number} kills\n" + "\n".join(failed))
        self.assertGreater(repeated, KILLS // 4, "the kills have hardly hit anything")

    def _strike(self, victims: tuple[str, ...], delay: float) -> list[str]:
        """Kill in the middle of requests, start again, and judge when nothing is under way."""
        self.gate.open()
        self.gate.wait_until_begun(CLIENTS, 30)
        time.sleep(delay)
        if "agent" in victims:
            self.service.kill()
        if "libvirtd" in victims:
            kill_libvirtd()
            namespace.start_libvirtd()
        if "agent" in victims:
            self.service.start()
        self.wait_for_agent()
        if not self.gate.close(SETTLED_SECONDS):
            return ["requests do not end"]
        wrong = [line for client in self.clients for line in client.failures]
        # after a connection was lost, an agent looks after the host beside its requests
        found: list[str] = []

        def sound() -> bool:
            found[:] = self._broken()
            return not found

        try:
            namespace.wait_for(sound, SOUND_SECONDS, 0.5)
        except AssertionError:
            wrong += found
        return wrong + self.canary.broken()

    def _broken(self) -> list[str]:
        look = judge.Judge(self.instances, (f"{self.state}/snapshots",), content=False)
        seen = look.look(frozenset([self.canary.uuid]))
        wrong = list(seen.broken)
        snapshots = {os.path.relpath(c.snapshot, self.instances)
                     for c in self.clients if c.snapshot}  # fmt: skip
        wrong += [f"{path} belongs to nobody" for path in seen.unowned.keys() - snapshots]
        wrong += [f"the snapshot {path} is missing" for path in snapshots - seen.unowned.keys()]
        expected = {c.instance.uuid: c.instance for c in self.clients if c.instance}
        for uuid in seen.instances.keys() - expected.keys():
            wrong.append(f"{seen.instances[uuid]['name']} is left")
        for uuid, instance in expected.items():
            found = seen.instances.get(uuid)
            if found is None:
                wrong.append(f"{instance.name} is missing")
                continue
            found = {**found, "disks": len(found["disks"]), "nics": len(found["nics"])}
            for what, value in instance.seen_as().items():
                if found[what] != value:
                    wrong.append(f"{instance.name}: {what} is {found[what]}, asked was {value}")
        return wrong

    def _begin_again(self) -> None:
        """A host as it was at first, so that one failure is told once."""
        self.gate.close(SETTLED_SECONDS)
        self.service.kill()
        host.wipe(self.state, self.canary.uuid, self.cached)
        for client in self.clients:
            client.forget()
        self.service.start()
        self.wait_for_agent()

    def _log_size(self) -> int:
        return os.path.getsize(self.service.log) if os.path.exists(self.service.log) else 0

    def _log_since(self, mark: int) -> str:
        """Warnings and errors of the agent."""
        with open(self.service.log) as log:
            log.seek(mark)
            lines = [line for line in log if re.match(r"\S+ \S+ \d+ (WARNING|ERROR) ", line)]
        return "".join(f"      | {line[:300].rstrip()}\n" for line in lines[-15:])


def kill_libvirtd() -> None:
    """Kill libvirtd, and wait until it is dead."""
    with open(namespace.PIDFILE) as pidfile:
        pid = int(pidfile.read())
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        select.select([descriptor], [], [], 30)
    finally:
        os.close(descriptor)
