"""One compute host: its switch, neutron's agent and nova-compute, inside its own laboratory.

nova-compute runs as a user and a group of its own, as packages and DevStack have it. That user is in
the groups of libvirt's socket and of QEMU, and becomes root by sudo and nova-rootwrap.
"""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable

from tests import namespace, neighbours
from tests.openstack import seed, settings, stand_ins
from tests.openstack.paths import FIRST, HOSTS, PORTS, Paths, url
from tests.openstack.processes import Processes, answers

DATA_CABLE = "data"
IFF_UP = 1  # linux/if.h
# the user of nova-compute: a name and a number that no user of the machine has
USER, UID = "stack-nova", 42436


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
        if self.name == FIRST:
            self._add_user()
        own = self.paths.own_instances(self.name)
        for directory in (own, self.paths.state(self.name)):
            os.makedirs(directory, exist_ok=True)
            os.chown(directory, UID, UID)
        if own != self.paths.instances:
            subprocess.run(["mount", "--bind", own, self.paths.instances], check=True)
        self._trust()
        tools = self.paths.data("bin")
        stand_ins.write(tools)
        os.environ["PATH"] = f"{tools}:{self.paths.environment}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        for name in list(os.environ):
            if name.startswith("OS_"):
                del os.environ[name]

    def _add_user(self) -> None:
        """Let the namespaces know the user of nova-compute, who may become root by rootwrap.

        Those of the other hosts are made inside of the first host's, and know the user by that.
        """
        home = self.paths.data("home")
        rootwrap = f"{self.paths.tool('nova-rootwrap')} {self.paths.etc('nova/rootwrap.conf')}"
        self._extend("/etc/passwd", f"{USER}:*:{UID}:{UID}::{home}:/bin/sh\n")
        self._extend("/etc/group", f"{USER}:x:{UID}:\n", _join_groups)
        # the stand-ins' directory comes first
        rights = f"Defaults !secure_path\n{USER} ALL = (root) NOPASSWD: {rootwrap} *\n"
        self._extend("/etc/sudoers", rights)

    def _extend(
        self, path: str, more: str, change: Callable[[str], str] = lambda text: text
    ) -> None:
        """Show the namespaces a file of the machine with changes and more lines."""
        own = self.paths.data(os.path.basename(path))
        with open(path) as theirs, open(own, "w") as file:
            file.write(change(theirs.read()) + more)
        shutil.copymode(path, own)
        subprocess.run(["mount", "--bind", own, path], check=True)

    def _trust(self) -> None:
        """Hosts let each other in by ssh, as nova wants it for resizing to another host."""
        directory = self.paths.data("home/.ssh")
        key = os.path.join(directory, "id_ed25519")
        if not os.path.exists(key):
            os.makedirs(directory, mode=0o700)
            make = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f")
            subprocess.run([*make, key], check=True)
            shutil.copy(f"{key}.pub", os.path.join(directory, "authorized_keys"))
            with open(os.path.join(directory, "config"), "w") as file:
                file.write("StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\n")
                file.write("LogLevel ERROR\n")
        host_key = self.paths.data(f"ssh-key-{self.name}")
        if not os.path.exists(host_key):
            subprocess.run(
                ["dropbearkey", "-t", "ed25519", "-f", host_key], check=True, capture_output=True
            )
        home = self.paths.data("home")
        for path in (home, directory, *(entry.path for entry in os.scandir(directory))):
            os.chown(path, UID, UID)
        self.processes.start(
            f"ssh{self._suffix}",
            *("dropbear", "-F", "-E", "-s", "-r", host_key, "-p", f"{HOSTS[self.name]}:22"),
            *("-P", f"/run/openvswitch/{self.name}.pid"),
        )

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
                # seconds until a server that has moved without a word is looked for everywhere
                "other_config:mac-aging-time=15",
            )  # fmt: skip
        # bridges that the database knew already come by themselves, in a moment
        self.processes.wait_for(
            f"vswitchd{self._suffix}",
            lambda: os.path.exists(f"/sys/class/net/{bridges[-1]}"),
            20,
        )

    def raise_taps(self) -> None:
        """Switch interfaces of servers on that are off.

        Open vSwitch in user space writes back the flags of a device that it has read a moment ago
        (lib/netdev-linux.c, update_flags): what libvirt has switched on in the meantime is off
        again, and the server is not reached. The switch of the kernel leaves flags alone.
        """
        for name in os.listdir("/sys/class/net"):
            if not name.startswith("tap"):
                continue
            # one that goes at this moment is ENOENT, ENODEV or, while it is read, EINVAL
            with (
                contextlib.suppress(OSError),
                open(f"/sys/class/net/{name}/flags") as file,
            ):
                if not int(file.read(), 16) & IFF_UP:
                    subprocess.run(["ip", "link", "set", name, "up"], check=False)

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
        services = ("rabbitmq", "keystone", "glance", "placement", "nova", "neutron", "cinder")
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
        settings.write(file, settings.nova_compute(self.paths, self.name, driver))
        self.processes.start(
            f"nova-compute{self._suffix}",
            *("setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "--inh-caps=-all"),
            *(self.paths.tool("nova-compute"), "--config-file", file),
            environment={"HOME": self.paths.data("home"), "USER": USER, "LOGNAME": USER},
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


def _join_groups(groups: str) -> str:
    """Make the user of nova-compute a member of the groups of libvirt's socket and of QEMU."""
    return re.sub(
        # the last field holds the members
        rf"^((?:{namespace.SOCKET_GROUP}|{namespace.QEMU_GROUP}):\S*:)(\S*)$",
        lambda found: found[1] + ",".join(filter(None, (found[2], USER))),
        groups,
        flags=re.MULTILINE,
    )


def vsctl(*arguments: str) -> None:
    subprocess.run(["ovs-vsctl", "--timeout=20", *arguments], check=True)
