"""nova's periodic work on a full host: this driver beside Nova's in-tree LibvirtDriver.

    python -m tests.namespace python -m tests.bench.resources [GUESTS] [ROUNDS]

With GUESTS (40) running guests on qcow2 disks, both drivers in one process answer in turn
``get_available_resource``, and the questions of the power-state sync: the number of instances,
and ``get_info`` of each. Prints times, ratios, and how many libvirt calls and processes it took.
"""

import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

import libvirt
from nova import conf as nova_conf
from nova import config as nova_config
from nova import objects, rpc
from nova.virt import fake

DOMAIN = """<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid>
<memory unit='MiB'>16</memory><vcpu>1</vcpu><os><type machine='pc'>hvm</type></os>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator><disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
<source file='{disk}'/><target dev='vda' bus='virtio'/></disk></devices></domain>"""


class Counter:
    """Counts libvirt's calls and the processes that are started."""

    def __init__(self) -> None:
        self.calls = 0
        self.processes = 0
        self._lock = threading.Lock()
        for owner in (libvirt.virConnect, libvirt.virDomain):
            for name in dir(owner):
                # names, numbers and UUIDs are known to the client: no call goes out for them
                if name.startswith("_") or name in ("UUIDString", "UUID", "ID", "name", "connect"):
                    continue
                method = getattr(owner, name)
                if callable(method):
                    setattr(owner, name, self._counted(method))
        popen = subprocess.Popen.__init__

        def counting(process: Any, *arguments: Any, **named: Any) -> None:
            self.processes += 1
            popen(process, *arguments, **named)

        subprocess.Popen.__init__ = counting  # type: ignore[method-assign]

    def _counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            with self._lock:
                self.calls += 1
            return method(*arguments, **named)

        return counted

    def reset(self) -> None:
        self.calls = self.processes = 0


def make_guests(root: str, count: int) -> list[str]:
    base = os.path.join(root, "_base", "base")
    os.makedirs(os.path.dirname(base))
    subprocess.run(["qemu-img", "create", "-q", "-f", "raw", base, "10M"], check=True)
    made = []
    connection = libvirt.open("qemu:///system")
    for number in range(count):
        identity = str(uuid.uuid4())
        directory = os.path.join(root, identity)
        os.mkdir(directory)
        disk = os.path.join(directory, "disk")
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", disk, "1G"],
            check=True,
        )
        with open(os.path.join(directory, "disk.info"), "w") as file:
            json.dump({disk: "qcow2"}, file)
        text = DOMAIN.format(name=f"instance-{number:08x}", uuid=identity, disk=disk)
        connection.defineXML(text).create()
        made.append(identity)
        print(f"\rguests: {number + 1}/{count}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return made


def configure(root: str) -> None:
    objects.register_all()
    conf = nova_conf.CONF
    nova_config.parse_args(["bench", "--config-file", os.devnull])
    nova_conf.neutron.register_dynamic_opts(conf)
    conf.set_override("instances_path", root)
    conf.set_override("state_path", root)
    conf.set_override("host", "bench")
    for name, value in (
        ("virt_type", "qemu"),
        ("connection_uri", "qemu:///system"),
        ("cpu_mode", "none"),
        ("images_type", "qcow2"),
    ):
        conf.set_override(name, value, group="libvirt")
    rpc.set_defaults = mock.Mock()


def load() -> dict[str, Any]:
    from nova.virt.libvirt import driver as in_tree

    from kvmdriver.nova import driver as ours

    made = {}
    for name, cls in (("in-tree", in_tree.LibvirtDriver), ("kvmdriver", ours.NovaDriver)):
        driver = cls(fake.FakeVirtAPI())
        if name == "in-tree":
            driver._host.initialize()
        else:
            driver.init_host("bench")
        made[name] = driver
    return made


def power_sync(driver: Any, instances: list[Any]) -> None:
    """What nova.compute.manager asks in _sync_power_states, one instance after the other."""
    driver.get_num_instances()
    for instance in instances:
        driver.get_info(instance)


def measure(work: Callable[[], Any], rounds: int, counter: Counter) -> tuple[float, int, int]:
    """Median of milliseconds; libvirt calls and processes of one round."""
    work()
    times = []
    for _ in range(rounds):
        counter.reset()
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times), counter.calls, counter.processes


def main(guests: int = 40, rounds: int = 7) -> None:
    root = tempfile.mkdtemp(prefix="kvmdriver-bench", dir="/var/tmp")
    os.chmod(root, 0o755)
    try:
        configure(root)
        instances = [SimpleNamespace(uuid=u, id=u) for u in make_guests(root, guests)]
        counter = Counter()
        drivers = load()
        ours = drivers["kvmdriver"]

        def fresh_sync(driver: Any) -> None:
            forget(driver)
            power_sync(driver, instances)

        def forget(driver: Any) -> None:
            if driver is ours:
                driver.node.states.forget()  # as if a guest had just started

        def fresh_resources(driver: Any) -> None:
            forget(driver)
            driver.get_available_resource("bench")

        # the in-tree driver asks nova's database for its instances; here it gets them for nothing
        with (
            mock.patch("nova.virt.node.get_local_node_uuid", return_value=str(uuid.uuid4())),
            mock.patch.object(objects.InstanceList, "get_by_filters", return_value=instances),
            mock.patch.object(
                objects.BlockDeviceMappingList, "bdms_by_instance_uuid", return_value={}
            ),
        ):
            for title, work in (
                ("get_available_resource", lambda d: d.get_available_resource("bench")),
                ("get_available_resource after an event", fresh_resources),
                ("power-state sync", lambda d: power_sync(d, instances)),
                ("power-state sync after an event", fresh_sync),
            ):
                found = {}
                for name, driver in drivers.items():
                    found[name] = measure(functools.partial(work, driver), rounds, counter)
                print(f"{title}, {guests} running guests")
                for name, (milliseconds, calls, processes) in found.items():
                    print(
                        f"  {name:10} {milliseconds:10.2f} ms {calls:6} libvirt calls "
                        f"{processes:4} processes"
                    )
                print(f"  ratio      {found['in-tree'][0] / found['kvmdriver'][0]:10.0f}")
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
    # libvirt's threads are at work: leave without taking the interpreter apart
    sys.stdout.flush()
    os._exit(0)
