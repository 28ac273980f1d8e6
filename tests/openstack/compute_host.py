"""One compute host: its switch, neutron's agent and nova-compute, inside its own laboratory."""

import os
import subprocess

from tests import neighbours
from tests.openstack import seed, settings
from tests.openstack.paths import FIRST, HOSTS, PORTS, Paths, url
from tests.openstack.processes import Processes, answers

# A wrapper in place of sudo for services that insist on it: we are root already.
SUDO = '#!/bin/sh\nwhile [ "${1#-}" != "$1" ]; do shift; done\nexec "$@"\n'
DATA_CABLE = "data"


class ComputeHost:
    """What runs on every compute host, the first and the others alike."""

    def __init__(self, paths: Paths, name: str, processes: Processes):
        self.paths = paths
        self.name = name
        self.processes = processes
        self._suffix = "" if name == FIRST else f"-{name}"

    def prepare(self) -> None:
        """What the services expect of the machine."""
        subprocess.run(["hostname", self.name], check=True)
        hosts = os.path.join(self.paths.root, "hosts.txt")
        with open(hosts, "w") as file:
            file.write("127.0.0.1 localhost\n")
            file.writelines(f"{address} {name}\n" for name, address in HOSTS.items())
        subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)
        for directory in ("/run/openvswitch", "/run/netns"):
            os.makedirs(directory, exist_ok=True)
            subprocess.run(["mount", "-t", "tmpfs", "none", directory], check=True)
        own = self.paths.own_instances(self.name)
        os.makedirs(own, exist_ok=True)
        if own != self.paths.instances:
            subprocess.run(["mount", "--bind", own, self.paths.instances], check=True)
        tools = self.paths.data("bin")
        os.makedirs(tools, exist_ok=True)
        with open(os.path.join(tools, "sudo"), "w") as file:
            file.write(SUDO)
        os.chmod(os.path.join(tools, "sudo"), 0o755)
        os.environ["PATH"] = f"{tools}:{self.paths.environment}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        for name in list(os.environ):
            if name.startswith("OS_"):
                del os.environ[name]

    def start_network(self, *bridges: str) -> None:
        """Open vSwitch with the datapath in user space: no kernel module is needed."""
        run, data = "/run/openvswitch", self.paths.data(f"openvswitch{self._suffix}.db")
        if not os.path.exists(data):
            subprocess.run(
                ["ovsdb-tool", "create", data, "/usr/share/openvswitch/vswitch.ovsschema"],
                check=True,
            )
        self.processes.start(
            f"ovsdb{self._suffix}",
            "ovsdb-server",
            data,
            f"--remote=punix:{run}/db.sock",
            f"--remote=ptcp:{PORTS['ovsdb']}:127.0.0.1",
            f"--pidfile={run}/ovsdb-server.pid",
        )
        self.processes.wait_for(f"ovsdb{self._suffix}", lambda: os.path.exists(f"{run}/db.sock"))
        vsctl("--no-wait", "init")
        vsctl("--no-wait", "set", "Open_vSwitch", ".", f"external_ids:system-id={self.name}")
        self.processes.start(
            f"vswitchd{self._suffix}",
            "ovs-vswitchd",
            f"unix:{run}/db.sock",
            "--disable-system",
            f"--pidfile={run}/ovs-vswitchd.pid",
        )
        for bridge in bridges:
            vsctl(
                "--may-exist", "add-br", bridge, "--", "set", "bridge", bridge,
                "datapath_type=netdev",
            )  # fmt: skip
        # bridges that the database knew already come by themselves, in a moment
        self.processes.wait_for(
            f"vswitchd{self._suffix}",
            lambda: os.path.exists(f"/sys/class/net/{bridges[-1]}"),
            20,
        )

    def join(self) -> None:
        """Connect this host's servers with those of the first, and its services with theirs."""
        first = self.paths.laboratory(FIRST)
        there = f"{DATA_CABLE}-{self.name}"
        neighbours.cable(first, there, DATA_CABLE)
        subprocess.run(["ip", "link", "set", DATA_CABLE, "up"], check=True)
        neighbours.run_at(first, "ip", "link", "set", there, "up")
        vsctl("--may-exist", "add-port", "br-phys", DATA_CABLE)
        at_first = ("ovs-vsctl", "--timeout=20", f"--db=tcp:127.0.0.1:{PORTS['ovsdb']}")
        # a port of an earlier cable would stay deaf
        neighbours.run_at(first, *at_first, "--if-exists", "del-port", there)
        neighbours.run_at(first, *at_first, "add-port", "br-phys", there)

    def start_relay(self) -> None:
        services = ("rabbitmq", "keystone", "glance", "placement", "nova", "neutron")
        handle = os.path.join(self.paths.laboratory(FIRST), neighbours.NETWORK_FILE)
        self.processes.start(
            f"relay{self._suffix}",
            self.paths.tool("python"),
            *("-m", "tests.openstack.relay", handle),
            *(str(PORTS[name]) for name in services),
        )
        self.processes.wait_for(f"relay{self._suffix}", lambda: answers(url("keystone", "/v3")))

    def start_agent(self) -> None:
        names = (f"neutron{self._suffix}.conf", "ml2.ini", f"ovs-agent{self._suffix}.ini")
        self.processes.start(
            f"neutron-openvswitch-agent{self._suffix}",
            self.paths.tool("neutron-openvswitch-agent"),
            *(
                word
                for name in names
                for word in ("--config-file", self.paths.etc(f"neutron/{name}"))
            ),
        )

    def start_compute(self, driver: str) -> None:
        """Start nova-compute with ``driver``, or start it anew."""
        self.processes.stop(f"nova-compute{self._suffix}")
        file = self.paths.etc(f"nova/nova-compute{self._suffix}.conf")
        settings.write(file, settings.nova_compute(self.paths, self.name, driver, file))
        self.processes.start(
            f"nova-compute{self._suffix}", self.paths.tool("nova-compute"), "--config-file", file
        )

    def wait_for_compute(self) -> None:
        """Wait until nova knows the host and can place servers there."""
        name = f"nova-compute{self._suffix}"
        self.processes.wait_for(name, lambda: seed.compute_is_up(self.name), 90)
        discover = (
            self.paths.tool("nova-manage"),
            *("--config-file", self.paths.etc("nova/nova.conf"), "cell_v2", "discover_hosts"),
        )
        if self.name != FIRST:
            # the database listens with the first host only
            handle = os.path.join(self.paths.laboratory(FIRST), neighbours.NETWORK_FILE)
            discover = ("nsenter", f"--net={handle}", *discover)
        self.processes.run(f"nova-discover{self._suffix}", *discover)


def vsctl(*arguments: str) -> None:
    subprocess.run(["ovs-vsctl", "--timeout=20", *arguments], check=True)
