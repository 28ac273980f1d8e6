"""What spawning costs besides libvirt and qemu-img, and the whole beside plain libvirt.

    python -m tests.namespace python -m tests.bench.spawn [ROUNDS]

In each round an instance is spawned by the driver, and a domain of the same definition with an
overlay of the same image by qemu-img and libvirt alone; both are paused in turn by removing them
again. Prints a table; nothing here is a test, since times are the machine's.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from typing import Any

import libvirt
from oslo_config import cfg

from kvmdriver import conf as options
from kvmdriver import model
from kvmdriver.driver import KVMDriver
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.hypervisor import Hypervisor
from kvmdriver.storage.qemu_img import QemuImg
from tests import namespace

GUEST = os.environ.get("KVMDRIVER_GUEST", "/var/tmp/kvmdriver-guest")


class Clock:
    """Adds up the time spent in some functions."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wrap(self, owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def timed(*args: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **named)
            finally:
                self.seconds += time.perf_counter() - start

        setattr(owner, name, timed)


def timed(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def make_driver(state: str) -> KVMDriver:
    conf = options.register_opts(cfg.ConfigOpts())
    conf([], project="kvmdriver", default_config_files=[])
    conf.set_override("virt_type", "qemu", "kvm")
    conf.set_override("instances_path", f"{state}/instances", "kvm_storage")
    conf.set_override("image_directories", ["/"], "kvm_storage")
    driver = KVMDriver(conf)
    driver.init_host()
    return driver


def request() -> model.Instance:
    return model.Instance.parse(
        {
            "name": f"bench-{uuid.uuid4().hex[:8]}",
            "memory": {"current_mib": 128},
            "disks": [{"image": {"type": "file", "path": f"{GUEST}/guest.qcow2"}}],
            "nics": [{"type": "network", "source": "default"}],
            "config_drive": {"hostname": "bench", "user_data": "x" * 1000},
            "os_variant": "debian11",
        }
    )


def plain(connection: libvirt.virConnect, xml: str, base: str, disk: str) -> None:
    """The same domain, by hand."""
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, disk], check=True
    )
    connection.defineXML(xml).create()


def main(rounds: int) -> None:
    if namespace.INSIDE not in os.environ:
        sys.exit(__doc__)
    state = tempfile.mkdtemp(dir=os.environ[namespace.INSIDE])
    os.chmod(state, 0o755)
    driver = make_driver(state)
    connection = libvirt.open("qemu:///system")
    others = Clock()
    others.wrap(Hypervisor, "define")
    others.wrap(Domain, "start")
    others.wrap(QemuImg, "_run")
    totals, overheads, plains = [], [], []
    for number in range(rounds + 1):
        others.seconds = 0
        instance = request()
        total = timed(lambda: driver.spawn(instance))  # noqa: B023 called at once
        overhead = total - others.seconds
        domain = connection.lookupByUUIDString(instance.uuid)
        xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        base = next(
            f"{state}/instances/_base/{name}" for name in os.listdir(f"{state}/instances/_base")
        )
        keep = f"{state}/config"
        shutil.copy(f"{state}/instances/{instance.uuid}/disk.config", keep)
        driver.destroy(instance.uuid)
        disk = f"{state}/plain.qcow2"
        directory = f"{state}/instances/{instance.uuid}"
        xml = (
            xml.replace(f"{directory}/disk.config", keep)
            .replace(f"{directory}/disk'", f"{disk}'")
            .replace(directory, state)
        )
        by_hand = timed(lambda: plain(connection, xml, base, disk))  # noqa: B023
        other = connection.lookupByUUIDString(instance.uuid)
        other.destroy()
        other.undefine()
        if number:  # the first round fills the caches
            totals.append(total)
            overheads.append(overhead)
            plains.append(by_hand)
    driver.close()
    shutil.rmtree(state, ignore_errors=True)

    def line(name: str, values: list[float]) -> str:
        milliseconds = [1000 * value for value in values]
        return (
            f"{name:44} {statistics.median(milliseconds):9.1f} {min(milliseconds):9.1f} "
            f"{max(milliseconds):9.1f}"
        )

    print(f"{'ms, ' + str(rounds) + ' rounds':44} {'median':>9} {'min':>9} {'max':>9}")
    print(line("spawn by kvmdriver", totals))
    print(line("  of it not define, create and qemu-img", overheads))
    print(line("qemu-img, define and create by hand", plains))
    ratio = statistics.median(totals) / statistics.median(plains)
    print(f"kvmdriver / by hand: {ratio:.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
