"""Laboratories that are neighbours: hosts with addresses of their own on one network.

The first one holds a bridge; one that is started inside of it joins with a pair of virtual cables.
"""

import os
import subprocess

BRIDGE = "neighbours"
INTERFACE = "uplink"
NETWORK_FILE = "network-namespace"


def found(state: str, address: str) -> None:
    """Be the first host: make the network, and leave a handle of its namespace in ``state``."""
    _ip("link", "add", BRIDGE, "type", "bridge", "stp_state", "0", "forward_delay", "0")
    _ip("address", "add", f"{address}/24", "dev", BRIDGE)
    _ip("link", "set", BRIDGE, "up")
    handle = os.path.join(state, NETWORK_FILE)
    with open(handle, "w"):
        pass
    subprocess.run(["mount", "--bind", "/proc/self/ns/net", handle], check=True)


def join(first: str, address: str) -> None:
    """Be another host, with a cable to the bridge of the first, whose state lies in ``first``."""
    port = f"host{address.rpartition('.')[2]}"
    cable(first, port, INTERFACE)
    run_at(first, "ip", "link", "set", port, "master", BRIDGE, "up")
    _ip("address", "add", f"{address}/24", "dev", INTERFACE)
    _ip("link", "set", INTERFACE, "up")


def cable(first: str, there: str, here: str) -> None:
    """Connect an interface ``there``, with the first host, to one ``here``."""
    run_at(
        first, "ip", "link", "add", there, "type", "veth",
        "peer", "name", here, "netns", str(os.getpid()),
    )  # fmt: skip


def run_at(first: str, *command: str) -> None:
    """Run a command in the network of the first host, with the files and processes of this one."""
    subprocess.run(["nsenter", f"--net={os.path.join(first, NETWORK_FILE)}", *command], check=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
