"""Several hosts on one machine: each with its own libvirtd, agent, storage, address and cables.

    runner ── bridge "neighbours" 10.98.0.0/24 ── kvm1, kvm2, ...   libvirtd, agents, migration
           └─ bridge "guests"     10.97.0.0/24 ── kvm1, kvm2, ...   guests; DHCP from the runner

The runner is a laboratory itself (``tests.namespace``), and holds the network, the message bus
and the storage that hosts share. Cables can be cut, healed and slowed, hosts crashed and booted.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import libvirt

from tests import namespace, neighbours
from tests.certificates import Authority
from tests.functional.rabbit import Rabbit

TOP = pathlib.Path(__file__).parents[2]
RUNNER = "10.98.0.1"
GUEST_BRIDGE = "guests"
GUEST_NETWORK = "10.97.0"
STATE = "KVMDRIVER_MULTIHOST_STATE"
NAME = "KVMDRIVER_MULTIHOST_NAME"


def run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if check and done.returncode:
        raise AssertionError(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout


class Host:
    """One host. What happens to it survives a crash: definitions, disks, logs."""

    def __init__(self, laboratory: "Laboratory", number: int):
        self.name = f"kvm{number}"
        self.address = f"10.98.0.{10 + number}"
        self.state = os.path.join(laboratory.state, self.name)
        self.local_storage = os.path.join(self.state, "instances")
        self.log = os.path.join(self.state, "agent.log")
        self._cable = f"host{10 + number}"
        self._guest_cable = f"guest{number}"
        self._laboratory = laboratory
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: libvirt.virConnect | None = None
        os.makedirs(self.local_storage)
        laboratory.authority.equip(f"{self.state}/pki", self.name, self.address)

    @property
    def pid(self) -> int:
        """Process 1 of the host, as the runner numbers it."""
        assert self._process is not None
        with open(f"/proc/{self._process.pid}/task/{self._process.pid}/children") as children:
            return int(children.read().split()[0])

    # The machine

    @property
    def is_on(self) -> bool:
        return self._process is not None

    def boot(self) -> None:
        """Switch it on, and wait until libvirtd answers."""
        ready = os.path.join(self.state, "ready")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(ready)
        self._process = subprocess.Popen(
            namespace.unshare(sys.executable, "-m", "tests.multihost.host"),
            env={
                **os.environ,
                namespace.INSIDE: os.path.join(self.state, "laboratory"),
                namespace.ADDRESS: self.address,
                namespace.FIRST: os.environ[namespace.INSIDE],
                namespace.PKI: f"{self.state}/pki",
                NAME: self.name,
                STATE: self._laboratory.state,
            },
            stdout=open(f"{self.state}/output", "ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            namespace.wait_for(lambda: os.path.exists(ready), 60)
        except AssertionError:
            with open(f"{self.state}/output") as output:
                raise AssertionError(f"{self.name}: {output.read()[-3000:]}") from None

    def crash(self) -> None:
        """Power loss: every process of the host ends at once; its cables go with it."""
        if self._process is None:
            return
        self.forget_connection()
        with contextlib.suppress(ProcessLookupError, IndexError):
            os.kill(self.pid, signal.SIGKILL)
        self._process.wait(30)
        self._process = None
        for cable in (self._cable, self._guest_cable):
            run("ip", "link", "del", cable, check=False)

    def run(self, *command: str, check: bool = True) -> str:
        """A command on this host; its output."""
        return run("nsenter", "-t", str(self.pid), "-a", "--", *command, check=check)

    # The cable to the other hosts

    def cut(self) -> None:
        run("ip", "link", "set", self._cable, "down")

    def heal(self) -> None:
        run("ip", "link", "set", self._cable, "up")

    def slow(self, mbit: float) -> None:
        """Limit what leaves this host, in Mbit/s; 0 lifts the limit (tc-tbf(8))."""
        self.run("tc", "qdisc", "del", "dev", neighbours.INTERFACE, "root", check=False)
        if mbit:
            self.run(
                "tc", "qdisc", "add", "dev", neighbours.INTERFACE, "root", "tbf",
                "rate", f"{mbit}mbit", "burst", "256kb", "latency", "200ms",
            )  # fmt: skip

    # libvirtd

    @property
    def uri(self) -> str:
        return f"qemu:///system?socket={self.state}/laboratory/run/libvirt-sock"

    def libvirt(self) -> libvirt.virConnect:
        """A connection of the test's own, opened again when the daemon was killed."""
        if self._connection is None or not self._connection.isAlive():
            self._connection = libvirt.open(self.uri)
        return self._connection

    def forget_connection(self) -> None:
        """The daemon at the other end has been killed."""
        self._connection = None

    def kill_libvirtd(self) -> None:
        self.forget_connection()
        self.run("sh", "-c", f"kill -9 $(cat {namespace.PIDFILE})")

    def start_libvirtd(self) -> None:
        self.run(
            *("env", f"PYTHONPATH={TOP}", sys.executable, "-c"),
            "from tests import namespace; namespace.start_libvirtd()",
        )

    def domains(self) -> dict[str, str]:
        """UUID of every domain here, with its state: running, paused or off."""
        if not self.is_on:
            return {}
        names = {libvirt.VIR_DOMAIN_RUNNING: "running", libvirt.VIR_DOMAIN_PAUSED: "paused"}
        return {
            domain.UUIDString(): names.get(domain.state()[0], "off")
            for domain in self.libvirt().listAllDomains()
        }

    def kill_qemu(self, uuid: str) -> bool:
        """Kill a guest's QEMU; False when it has none here."""
        found = self.run("pgrep", "-f", f"qemu-system.*-uuid {uuid}", check=False).split()
        for pid in found:
            self.run("kill", "-9", pid, check=False)
        return bool(found)

    # The agent

    def start_agent(self) -> None:
        served = self.agent_log().count("serves topic")
        script = (
            f"echo $$ > {self.state}/agent.pid; exec {os.path.dirname(sys.executable)}/kvmdriver-agent"
            f" --config-file {self.config} --log-file {self.log} --debug"
        )
        subprocess.Popen(
            ["nsenter", "-t", str(self.pid), "-a", "--", "setsid", "sh", "-c", script],
            stdout=subprocess.DEVNULL,
            stderr=open(f"{self.log}.err", "ab"),
        )
        try:
            namespace.wait_for(lambda: self.agent_log().count("serves topic") > served, 60)
        except AssertionError:
            raise AssertionError(f"{self.name}: {self.agent_log()[-3000:]}") from None

    def kill_agent(self) -> None:
        """All of its processes at once."""
        if not self.is_on:
            return
        with open(f"{self.state}/agent.pid") as file:
            self.run("kill", "-9", "--", f"-{file.read().strip()}", check=False)

    @property
    def config(self) -> str:
        return os.path.join(self.state, "kvmdriver.conf")

    def configure(self, instances_path: str | None = None, **migration: object) -> None:
        """Write the agent's configuration.

        :param migration: options of [kvm_migration]; None leaves the default of one, where the
            laboratory otherwise has everything in the clear.
        """
        options = {
            "inbound_address": self.address,
            "transport": "tcp",
            "native_tls": False,
            **migration,
        }
        lines = "".join(
            f"{name} = {value}\n" for name, value in options.items() if value is not None
        )
        with open(self.config, "w") as file:
            file.write(
                f"[DEFAULT]\ntransport_url = {self._laboratory.bus_url}\n"
                "[kvm]\nvirt_type = qemu\ncall_timeout = 20\n"
                "keepalive_interval = 2\n"
                f"[kvm_agent]\nhost = {self.name}\ncall_monitor_timeout = 4\n"
                f"[kvm_storage]\ninstances_path = {instances_path or self.local_storage}\n"
                "image_directories = /\nreserved_disk_mib = 16\n"
                f"[kvm_migration]\n{lines}"
            )

    def agent_log(self) -> str:
        if not os.path.exists(self.log):
            return ""
        with open(self.log) as log:
            return log.read()


class Laboratory:
    """The network, the message bus, the shared storage, and the hosts."""

    def __init__(self, hosts: int = 2):
        if namespace.ADDRESS not in os.environ:
            raise AssertionError(
                "run these tests in a laboratory with an address: tools/run-tests"
            )
        self.state = os.path.join(os.environ[namespace.INSIDE], "hosts")
        os.makedirs(self.state)
        self.shared_storage = os.path.join(self.state, "shared")
        self.authority = Authority()
        self.rabbit = Rabbit(RUNNER)
        self._dhcp: subprocess.Popen[bytes] | None = None
        self._leases = os.path.join(self.state, "leases")
        self.hosts = [Host(self, number + 1) for number in range(hosts)]

    @property
    def bus_url(self) -> str:
        return self.rabbit.url

    def start(self) -> None:
        self._make_guest_network()
        self._share_storage()
        self.rabbit.start()
        for host in self.hosts:
            host.boot()

    def _make_guest_network(self) -> None:
        run("ip", "link", "add", GUEST_BRIDGE, "type", "bridge", "stp_state", "0")
        run("ip", "address", "add", f"{GUEST_NETWORK}.1/24", "dev", GUEST_BRIDGE)
        run("ip", "link", "set", GUEST_BRIDGE, "up")
        self._dhcp = subprocess.Popen(
            [
                "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0",
                f"--interface={GUEST_BRIDGE}", "--bind-interfaces", "--dhcp-authoritative",
                f"--dhcp-range={GUEST_NETWORK}.50,{GUEST_NETWORK}.250,255.255.255.0,1h",
                f"--dhcp-leasefile={self._leases}", f"--pid-file={self.state}/dnsmasq.pid",
            ],
            stderr=open(f"{self.state}/dnsmasq.log", "ab"),
        )  # fmt: skip

    def _share_storage(self) -> None:
        """A file system that libvirt takes for one that hosts share, by the type that it has."""
        real = f"{self.shared_storage}.d"
        for directory in (real, self.shared_storage):
            os.makedirs(directory)
        run(
            "bindfs", "-o", "subtype=glusterfs,fsname=shared,allow_other,dev,suid",
            real, self.shared_storage,
        )  # fmt: skip

    def address_of(self, mac: str, seconds: float = 90) -> str:
        """The address that a guest got."""
        found: list[str] = []

        def leased() -> bool:
            if os.path.exists(self._leases):
                with open(self._leases) as leases:
                    rows = [line.split() for line in leases]
                found[:] = [row[2] for row in rows if row[1] == mac]
            return bool(found)

        namespace.wait_for(leased, seconds)
        return found[0]

    def close(self) -> None:
        for host in self.hosts:
            host.crash()
        self.rabbit.close()
        if self._dhcp is not None:
            self._dhcp.terminate()
            self._dhcp.wait(10)
        run("ip", "link", "del", GUEST_BRIDGE, check=False)
        run("umount", "-l", self.shared_storage, check=False)
        time.sleep(0.2)
        shutil.rmtree(self.state, ignore_errors=True)
