"""What a host of the laboratory does after its libvirtd has come up; ``Host.boot`` starts it."""

import os
import signal
import subprocess

from tests import namespace, neighbours
from tests.multihost import laboratory


def main() -> None:
    name = os.environ[laboratory.NAME]
    state = os.path.join(os.environ[laboratory.STATE], name)
    number = int(name.removeprefix("kvm"))
    subprocess.run(["hostname", name], check=True)
    hosts = os.path.join(state, "hosts.txt")
    with open(hosts, "w") as file:
        file.write("127.0.0.1 localhost\n")
        file.writelines(f"10.98.0.{10 + k} kvm{k}\n" for k in range(1, 10))
    subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)
    first, bridge = os.environ[namespace.FIRST], laboratory.GUEST_BRIDGE
    neighbours.cable(first, f"guest{number}", "guestport")
    neighbours.run_at(first, "ip", "link", "set", f"guest{number}", "master", bridge, "up")
    for command in (
        ("add", bridge, "type", "bridge", "stp_state", "0"),
        ("set", "guestport", "master", bridge, "up"),
        ("set", bridge, "up"),
    ):
        subprocess.run(["ip", "link", *command], check=True)
    with open(os.path.join(state, "ready"), "w"):
        pass
    signal.sigwait([signal.SIGTERM])


if __name__ == "__main__":
    main()
