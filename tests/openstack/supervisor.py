"""The first process of a host's namespaces: brings its services up and keeps them."""

import contextlib
import os
import signal
import subprocess
import sys
import time

from tests.openstack import seed
from tests.openstack.compute_host import ComputeHost
from tests.openstack.control import Control
from tests.openstack.paths import FIRST, Paths
from tests.openstack.processes import Failed, Processes
from tests.openstack.stack import Stack


def supervise(paths: Paths, name: str, driver: str) -> int:
    """Run a host until it is told to stop; does what the commands outside ask for."""
    control = Control(paths, name)
    host = ComputeHost(paths, name, Processes(paths))
    ended: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    try:
        host.prepare()
        if name == FIRST:
            Stack(host, control.report, driver).up()
        else:
            _join(host, control, driver)
    except Exception as error:
        control.report(f"failed: {error}")
        if not isinstance(error, Failed):
            raise
        print(error, file=sys.stderr)
        return 1
    control.report("ready")
    while not ended:
        lines = [
            f"{process:34} {'up' if alive else 'DOWN'}"
            for process, alive in host.processes.alive().items()
        ]
        control.write("processes", "\n".join(lines))
        host.raise_taps()
        wanted = control.lines("restart")
        if wanted:
            driver = wanted[0]
            host.start_compute(driver)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(control.file("restart"))
        time.sleep(0.5)
    _destroy_domains()
    host.processes.stop_all()
    control.report("stopped")
    return 0


def _join(host: ComputeHost, control: Control, driver: str) -> None:
    """Be a second compute host: only what must run there runs there."""
    control.report("network")
    host.start_network("br-int", "br-phys")
    host.join()
    host.start_relay()
    control.report("neutron's agent, nova-compute")
    host.start_agent()
    host.start_compute(driver)
    host.processes.wait_for("nova-compute", lambda: seed.switch_is_up(host.name), 90)
    host.wait_for_compute()
    seed.enable_compute(host.name)


def _destroy_domains() -> None:
    running = subprocess.run(
        ["virsh", "-q", "list", "--uuid"], capture_output=True, text=True, check=False
    )
    for domain in running.stdout.split():
        subprocess.run(["virsh", "-q", "destroy", domain], check=False)
