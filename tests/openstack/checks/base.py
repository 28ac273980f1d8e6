"""Checks against the running stack, with the same command that an operator uses."""

import contextlib
import functools
import json
import os
import subprocess
import time
import unittest
from typing import Any

from tests.openstack.client import Client
from tests.openstack.paths import FIRST, Paths, url

PATHS = Paths.default()
KEY = os.path.join(os.environ.get("KVMDRIVER_GUEST", "/var/tmp/kvmdriver-guest"), "id_ed25519")


class Failed(AssertionError):
    """A command ended with an error; the message is what it printed."""


def run(*command: str, timeout: float = 300) -> str:
    """Run a command of the stack's own directory; what it prints."""
    done = _run(command, timeout)
    if done.returncode:
        raise Failed(f"{' '.join(command)}: {done.stdout[-500:]} {done.stderr[-2000:]}")
    return done.stdout


def _run(command: tuple[str, ...], timeout: float = 300) -> subprocess.CompletedProcess[str]:
    if command[0] == "openstack":
        return _client().run(list(command[1:]), _environment(), timeout)
    path = os.path.join(PATHS.bin, command[0])
    return subprocess.run(
        [path, *command[1:]], capture_output=True, text=True, timeout=timeout, env=_environment()
    )


@functools.cache
def _client() -> Client:
    return Client(PATHS)


def _environment() -> dict[str, str]:
    environment = {name: text for name, text in os.environ.items() if not name.startswith("OS_")}
    with open(os.path.join(PATHS.root, "openrc")) as file:
        for line in file:
            name, _, text = line.removeprefix("export ").strip().partition("=")
            if name != "PATH":
                environment[name] = text.strip('"')
    return environment


def openstack(*arguments: str, timeout: float = 300) -> Any:
    """Run the ``openstack`` command and read its JSON."""
    output = run("openstack", *arguments, "-f", "json", timeout=timeout)
    return json.loads(output) if output.strip() else None


def act(*arguments: str) -> None:
    """Run an ``openstack`` command that prints nothing of interest."""
    run("openstack", *arguments)


def wait_for(condition: Any, seconds: float = 120, what: str = "") -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise Failed(f"waited {seconds:g} s in vain for {what or condition}")
        time.sleep(1)
    return found


class Guest:
    """A server's inside, by ssh through its floating address."""

    def __init__(self, address: str):
        self.address = address

    def run(self, command: str) -> str:
        return run(
            "ssh", "-i", KEY,
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            "-o", "ConnectTimeout=5", "-o", "LogLevel=ERROR",
            f"root@{self.address}", command, timeout=60,
        ).strip()  # fmt: skip

    def answers(self) -> bool:
        try:
            return self.run("echo here") == "here"
        except Failed:
            return False

    def wait(self, seconds: float = 90) -> "Guest":
        wait_for(self.answers, seconds, f"ssh to {self.address}")
        return self

    def boot(self) -> str:
        """Something that is another after each boot."""
        return self.run("cat /proc/sys/kernel/random/boot_id")

    def memory_mib(self) -> int:
        return int(self.run("awk '/MemTotal/{print int($2/1024)}' /proc/meminfo"))

    def write(self, disk: str, line: str) -> None:
        """Put a line at the beginning of a disk."""
        self.run(f"echo '{line}' | dd of=/dev/{disk} bs=512 conv=sync,fsync 2>/dev/null")

    def first_line(self, disk: str) -> str:
        return self.run(f"head -n 1 /dev/{disk}")

    def disks_mib(self) -> dict[str, int]:
        found = {}
        for line in self.run("cat /proc/partitions").splitlines()[2:]:
            _major, _minor, blocks, name = line.split()
            found[name] = int(blocks) // 1024
        return found


class StackTest(unittest.TestCase):
    """Servers that are gone afterwards, whatever happened."""

    maxDiff = None

    def create(self, name: str, *arguments: str, flavor: str = "small") -> dict[str, Any]:
        self.addCleanup(self.remove, name)
        # what comes later on the command line wins, but networks add up
        network = () if "--nic" in arguments else ("--network", "private")
        image = () if "--volume" in arguments else ("--image", "guest")
        server = openstack(
            "server", "create", "--flavor", flavor, *image, *network,
            "--key-name", "default", "--wait", *arguments, name,
        )  # fmt: skip
        self.assertEqual("ACTIVE", server["status"])
        return server

    def create_volume(self, name: str, *arguments: str) -> str:
        """A volume of 1 GiB unless the arguments say otherwise; its id."""
        size = () if "--size" in arguments else ("--size", "1")
        volume = str(openstack("volume", "create", *size, *arguments, name)["id"])
        self.addCleanup(self.remove_volume, volume)
        self.wait_for_volume(volume, "available")
        return volume

    def remove_volume(self, volume: str) -> None:
        """Delete a volume, whatever state it is in, and wait until it is gone."""
        with contextlib.suppress(Failed):
            act("volume", "delete", "--force", volume)
            wait_for(lambda: volume not in run("openstack", "volume", "list"), 60, "the deletion")

    def wait_for_volume(self, volume: str, status: str) -> None:
        def reached() -> bool:
            found = openstack("volume", "show", volume)["status"]
            if found.startswith("error"):
                raise Failed(f"volume {volume} is in state {found}")
            return bool(found == status)

        wait_for(reached, 60, f"volume {volume} to become {status}")

    def attach(self, server: str, volume: str, guest: Guest) -> None:
        """Attach a volume, the only one, and wait until the guest has seen it."""
        act("server", "add", "volume", server, volume)
        wait_for(lambda: "vdb" in guest.disks_mib(), 30, "the volume")

    def detach(self, server: str, volume: str, guest: Guest) -> None:
        act("server", "remove", "volume", server, volume)
        wait_for(lambda: "vdb" not in guest.disks_mib(), 30, "the volume to go")
        self.wait_for_volume(volume, "available")
        self.assertEqual([], openstack("server", "volume", "list", server))

    def remove(self, name: str) -> None:
        _run(("openstack", "server", "delete", "--wait", name))

    def reach(self, name: str) -> Guest:
        """Give a server a floating address, and wait until ssh answers there."""
        address = openstack("floating", "ip", "create", "public")["floating_ip_address"]
        self.addCleanup(act, "floating", "ip", "delete", address)
        act("server", "add", "floating", "ip", name, address)
        try:
            return Guest(address).wait()
        except Failed as error:
            log = run("openstack", "console", "log", "show", name)
            raise Failed(f"{error}; its console:\n{log[-1500:]}") from None

    def show(self, name: str) -> dict[str, Any]:
        return openstack("server", "show", name)

    def wait_for_status(self, name: str, status: str, seconds: float = 120) -> None:
        def reached() -> bool:
            server = self.show(name)
            if server["status"] == "ERROR" and status != "ERROR":
                raise Failed(f"{name} is in state ERROR: {server.get('fault')}")
            return server["status"] == status and server["OS-EXT-STS:task_state"] is None

        wait_for(reached, seconds, f"{name} to become {status}")

    def assert_nothing_left(self, server: dict[str, Any], host: str = FIRST) -> None:
        """Nothing of a deleted server is in libvirt, on disk, in the switch or in placement."""
        uuid = server["id"]
        there = "" if host == FIRST else f"{host}/"
        self.assertNotIn(uuid, run(f"{there}virsh", "-q", "list", "--all", "--uuid"))
        own = PATHS.own_instances(host)
        self.assertEqual([], [name for name in os.listdir(own) if name.startswith(uuid)])
        self.assertNotIn(uuid, run(f"{there}ovs-vsctl", "list", "Interface"))
        token = openstack("token", "issue")["id"]
        allocations = json.loads(
            subprocess.run(
                [
                    os.path.join(PATHS.bin, "curl"), "-s", "-H", f"X-Auth-Token: {token}",
                    url("placement", f"/allocations/{uuid}"),
                ],
                capture_output=True, text=True, check=True,
            ).stdout
        )  # fmt: skip
        self.assertEqual({}, allocations["allocations"])
