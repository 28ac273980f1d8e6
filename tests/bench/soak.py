"""What is left of an agent's host after many instances have come and gone.

    python -m tests.namespace python -m tests.bench.soak [CYCLES]

CYCLES (150) times an instance with an image, an interface and a config drive is created over the
message bus and deleted again. Every tenth time a line of a table is printed: memory, threads and
descriptors of the agent (of all its processes together) and of libvirtd, and what there is of
domains, directories, cached images and TAPs. Fails if anything has grown after the warm-up.
"""

import dataclasses
import os
import shutil
import sys
import tempfile
import time
import uuid

import libvirt
from oslo_config import cfg

import tests.functional  # noqa: F401 it chooses the threads of oslo.service, before others do
from kvmdriver import conf as options
from kvmdriver import model
from kvmdriver.agent import transport as bus
from kvmdriver.agent.client import ComputeAPI
from kvmdriver.model.base import is_uuid
from tests import namespace
from tests.functional.base import guest_file
from tests.functional.guests.service import Service
from tests.functional.rabbit import Rabbit
from tests.recovery import judge

EVERY = 10
# By then every thread of every pool has had work, and every module is loaded; libvirtd's threads
# have their memory as well.
WARM = 60
# The agent remembers 1024 answers (agent/methods.py), two of each cycle: objects of Python of 5 KiB in a
# cycle, by tracemalloc, for the first 512 cycles and then no more. The rest is the allocator's, which
# keeps for each thread what that once had, and grows more slowly from cycle to cycle.
KIB_PER_CYCLE = 48
# libvirtd keeps nothing of a domain that has gone.
LIBVIRTD_KIB = 2048


@dataclasses.dataclass(frozen=True)
class Figures:
    """One line of the table."""

    cycle: int
    rss: int
    threads: int
    fds: int
    domains: int
    directories: int
    cached: int
    taps: int
    libvirtd_rss: int
    libvirtd_fds: int


TITLES = (
    "cycle", "RSS KiB", "threads", "fds", "domains", "directories", "_base", "TAPs",
    "libvirtd KiB", "libvirtd fds",
)  # fmt: skip


class Host:
    """The host as it is looked at from outside of the agent."""

    def __init__(self, session: int, instances: str):
        self._session = session
        self._instances = instances
        with open(namespace.PIDFILE) as pidfile:
            self._libvirtd = int(pidfile.read())

    def look(self, cycle: int) -> Figures:
        agent = judge.processes_of(self._session)
        connection = libvirt.open("qemu:///system")
        try:
            domains = len(connection.listAllDomains())
        finally:
            connection.close()
        entries = os.listdir(self._instances)
        return Figures(
            cycle=cycle,
            rss=sum(_status(pid, "VmRSS") for pid in agent),
            threads=sum(_status(pid, "Threads") for pid in agent),
            fds=sum(_descriptors(pid) for pid in agent),
            domains=domains,
            directories=sum(map(is_uuid, entries)),
            cached=len(os.listdir(f"{self._instances}/_base")) if "_base" in entries else 0,
            taps=sum(name.startswith("vnet") for name in os.listdir("/sys/class/net")),
            libvirtd_rss=_status(self._libvirtd, "VmRSS"),
            libvirtd_fds=_descriptors(self._libvirtd),
        )


def _status(pid: int, field: str) -> int:
    """A number of proc(5), status; memory is in KiB there."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(f"{field}:"))


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def grown(lines: list[Figures]) -> list[str]:
    """What has grown after the warm-up that may not have.

    Numbers go up and down by one or two with what happens to be under way: the last must not be
    higher than all that were seen until the end of the warm-up.
    """
    before, end = [line for line in lines if line.cycle <= WARM], lines[-1]
    warm = before[-1]
    found = []
    for name in ("threads", "fds", "domains", "directories", "cached", "taps", "libvirtd_fds"):
        most = max(getattr(line, name) for line in before)
        if getattr(end, name) > most:
            found.append(f"{name}: {most} -> {getattr(end, name)}")
    for name, most in (
        ("rss", KIB_PER_CYCLE * (end.cycle - warm.cycle)),
        ("libvirtd_rss", LIBVIRTD_KIB),
    ):
        more = getattr(end, name) - getattr(warm, name)
        if more > most:
            found.append(f"{name}: {more} KiB more, {most} may be")
    return found


def request() -> model.Instance:
    return model.Instance.parse(
        {
            "name": f"soak-{uuid.uuid4().hex[:8]}",
            "memory": {"current_mib": 64},
            "disks": [{"image": {"type": "file", "path": guest_file("guest.qcow2")}}],
            "nics": [{"type": "network", "source": "default"}],
            "config_drive": {"hostname": "soak", "user_data": "x" * 1000},
        }
    )


def soak(cycles: int, state: str, rabbit: Rabbit) -> list[str]:
    """Run the cycles and print the table; what has grown."""
    instances = os.path.join(state, "instances")
    os.makedirs(instances)
    path = os.path.join(state, "agent.conf")
    with open(path, "w") as file:
        file.write(f"""[DEFAULT]
transport_url = {rabbit.url}
[kvm]
virt_type = qemu
[kvm_agent]
host = soak
[kvm_storage]
instances_path = {instances}
image_directories = /
""")
    conf = options.register_opts(cfg.ConfigOpts())
    conf([], project="kvmdriver", default_config_files=[])
    conf.set_override("host", "soak", "kvm_agent")
    service = Service(path, os.path.join(state, "agent.log"))
    service.start()
    api = ComputeAPI(conf, transport=bus.rpc_transport(conf, rabbit.url))
    try:
        namespace.wait_for(lambda: service.served() >= 1, 60)
        assert service.pid is not None
        host = Host(service.pid, instances)
        print(" ".join(f"{title:>12}" for title in TITLES))
        lines = []
        start = time.monotonic()
        for cycle in range(cycles + 1):
            if cycle:
                instance = request()
                api.build_and_run_instance(instance)
                api.terminate_instance(instance.uuid)
            if cycle % EVERY == 0:
                lines.append(host.look(cycle))
                row = dataclasses.astuple(lines[-1])
                print(" ".join(f"{value:12}" for value in row), flush=True)
        print(f"{cycles} cycles in {time.monotonic() - start:.0f} s")
    finally:
        api.close()
        service.kill()
    return grown(lines)


def main(cycles: int = 150) -> int:
    state = tempfile.mkdtemp(prefix="kvmdriver-soak", dir="/var/tmp")
    os.chmod(state, 0o755)
    rabbit = Rabbit()
    try:
        rabbit.start()
        found = soak(cycles, state, rabbit)
    finally:
        rabbit.close()
        shutil.rmtree(state, ignore_errors=True)
    for line in found:
        print(f"grown after cycle {WARM}: {line}")
    return bool(found)


if __name__ == "__main__":
    status = main(*(int(argument) for argument in sys.argv[1:]))
    # libvirt's threads are at work: leave without taking the interpreter apart
    sys.stdout.flush()
    os._exit(status)
