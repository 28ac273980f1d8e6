"""Networks that instances of the agent are plugged into: there and usable, or refused at once."""

import os

from kvmdriver import exception
from kvmdriver.hypervisor.hypervisor import Hypervisor
from kvmdriver.model import Nic

_SYS_NET = "/sys/class/net"


def check(nic: Nic, hypervisor: Hypervisor, *, field: str) -> None:
    """Make sure that the network of an interface exists.

    :param field: path of the interface in the request, e.g. ``nics.0``.
    :raises kvmdriver.exception.NetworkNotFound: it does not exist, or is not active.
    """
    if nic.type == "network":
        _check_network(nic.source or "", hypervisor, f"{field}.source")
    elif nic.type == "bridge" and not os.path.isdir(f"{_SYS_NET}/{nic.source}/bridge"):
        raise exception.NetworkNotFound(
            f"there is no bridge {nic.source!r} on this host",
            field=f"{field}.source",
            value=nic.source,
            remedy=f"make it: ip link add {nic.source} type bridge",
        )


def _check_network(name: str, hypervisor: Hypervisor, field: str) -> None:
    if hypervisor.connection.embedded:
        raise exception.NetworkNotFound(
            "the embedded hypervisor has no libvirt networks",
            field=field,
            value=name,
            remedy="use a bridge or user networking, or start libvirtd",
        )
    networks = hypervisor.networks()
    if name not in networks:
        known = ", ".join(sorted(networks)) or "none"
        raise exception.NetworkNotFound(
            f"there is no network {name!r}",
            field=field,
            value=name,
            remedy=f"networks of this host: {known}",
        )
    if not networks[name]:
        raise exception.NetworkNotFound(
            f"the network {name!r} is not active",
            field=field,
            value=name,
            remedy=f"start it: virsh net-start {name}",
        )
