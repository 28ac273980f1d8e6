"""Network interfaces (https://libvirt.org/formatdomain.html#network-interfaces)."""

from lxml import etree

from kvmdriver.definition.platform import Platform
from kvmdriver.definition.xml import add, element
from kvmdriver.model import Instance, Nic


def build_nics(devices: etree._Element, instance: Instance, _platform: Platform) -> None:
    for nic in instance.nics:
        devices.append(nic_element(nic))


def nic_element(nic: Nic) -> etree._Element:
    """One ``<interface>``; libvirt makes and removes its TAP device with the guest."""
    node = element("interface", type=nic.type)
    if nic.mac:
        add(node, "mac", address=nic.mac)
    if nic.type == "network":
        add(node, "source", network=nic.source)
    elif nic.type == "bridge":
        add(node, "source", bridge=nic.source)
    add(node, "model", type=nic.model)
    if nic.mtu:
        add(node, "mtu", size=nic.mtu)
    return node
