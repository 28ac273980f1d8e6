"""Names that the whole stack agrees on: directories, ports, the password of everything."""

import dataclasses
import os
import sys

# compute hosts and their addresses; everything else runs with the first
HOSTS = {"kvm1": "10.99.0.1", "kvm2": "10.99.0.2"}
FIRST, SECOND = HOSTS
PASSWORD = "stack"  # noqa: S105 nothing of it can be reached from outside
PUBLIC_GATEWAY = "172.29.9.1"
PUBLIC_CIDR = "172.29.9.0/24"

PORTS = {
    "mariadb": 13306,
    "rabbitmq": 15672,
    "rabbitmq-dist": 15673,
    "epmd": 15674,
    "keystone": 15000,
    "glance": 19292,
    "placement": 18778,
    "nova": 18774,
    "neutron": 19696,
    "cinder": 18776,
    "ovsdb": 16640,
}

# the ports that nova's proxies of consoles have by default
CONSOLE_PORTS = {"vnc": 6080, "spice": 6082, "serial": 6083}


def console_url(kind: str) -> str:
    return f"http://127.0.0.1:{CONSOLE_PORTS[kind]}"


def url(service: str, path: str = "") -> str:
    return f"http://127.0.0.1:{PORTS[service]}{path}"


@dataclasses.dataclass(frozen=True)
class Paths:
    """Everything of a stack lies below one directory."""

    root: str

    @classmethod
    def standard(cls) -> "Paths":
        """Where a stack is unless the environment says otherwise."""
        return cls("/var/tmp/kvmdriver-openstack")

    @classmethod
    def default(cls) -> "Paths":
        return cls(os.environ.get("KVMDRIVER_OPENSTACK", cls.standard().root))

    def etc(self, name: str = "") -> str:
        return os.path.join(self.root, "etc", name)

    def data(self, name: str = "") -> str:
        return os.path.join(self.root, "data", name)

    def log(self, name: str) -> str:
        return os.path.join(self.root, "log", f"{name}.log")

    @property
    def bin(self) -> str:
        return os.path.join(self.root, "bin")

    @property
    def instances(self) -> str:
        """``instances_path``: the same text on every host, or live migration refuses."""
        return os.path.join(self.root, "instances")

    def own_instances(self, host: str) -> str:
        """What a host has there, as it is called outside of its namespaces."""
        if host == FIRST or os.path.exists(self.shared):
            return self.instances
        return os.path.join(self.root, f"instances-{host}")

    def state(self, host: str) -> str:
        """``state_path`` of a host's nova-compute."""
        return self.data(f"compute-{host}")

    @property
    def shared(self) -> str:
        """A file that is there while the hosts share ``instances``."""
        return os.path.join(self.root, "instances-are-shared")

    def laboratory(self, host: str) -> str:
        """State of the namespaces in which a host runs: libvirt's directories."""
        return os.path.join(self.root, "hosts", host)

    @property
    def environment(self) -> str:
        """The Python environment that runs this."""
        return sys.prefix

    def tool(self, name: str) -> str:
        return os.path.join(self.environment, "bin", name)

    def installed(self, name: str) -> str:
        """A file that a package has put into the environment's etc."""
        return os.path.join(self.environment, "etc", name)
