"""Network interfaces (https://libvirt.org/formatdomain.html#network-interfaces)."""

from lxml import etree

from kvmdriver.definition.platform import Platform
from kvmdriver.definition.xml import add, element
from kvmdriver.model import Instance, Nic, Plug


def build_nics(devices: etree._Element, instance: Instance, _platform: Platform) -> None:
    for nic in instance.nics:
        devices.append(nic_element(nic))


def nic_element(nic: Nic) -> etree._Element:
    """One ``<interface>``, or the ``<hostdev>`` of a PCI function that is passed through whole."""
    if nic.plug is not None:
        return _plugged(nic, nic.plug)
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


def _plugged(nic: Nic, plug: Plug) -> etree._Element:
    if plug.type == "hostdev-pci":
        node = element("hostdev", mode="subsystem", type="pci", managed=True)
        add(node, "source").append(_pci_address(plug.device or ""))
        return node
    managed = True if plug.type == "hostdev" else plug.managed
    hostdev = plug.type == "hostdev"
    node = element("interface", type=plug.type, managed=managed if hostdev else None)
    if nic.mac:
        add(node, "mac", address=nic.mac)
    if hostdev:
        source = add(node, "source")
        address = _pci_address(plug.device or "")
        address.set("type", "pci")
        source.append(address)
    elif plug.type == "bridge":
        add(node, "source", bridge=plug.bridge)
    elif plug.type == "vhostuser":
        add(node, "source", type="unix", mode=plug.mode, path=plug.path)
    elif plug.type == "direct":
        add(node, "source", dev=plug.device, mode=plug.mode)
    elif plug.type == "vdpa":
        add(node, "source", dev=plug.path)
    if plug.target:
        add(node, "target", dev=plug.target, managed=None if hostdev else plug.managed)
    if plug.vlan:
        add(add(node, "vlan"), "tag", id=plug.vlan)
    if plug.port_profile:
        port = add(node, "virtualport", type=plug.port_profile)
        parameters = add(port, "parameters")
        for name, value in plug.port_parameters:
            parameters.set(name, value)
    if nic.model and not hostdev:
        add(node, "model", type=nic.model)
    _add_driver(node, plug)
    if nic.mtu and plug.type in ("ethernet", "bridge", "vhostuser"):
        add(node, "mtu", size=nic.mtu)
    _add_bandwidth(node, plug)
    return node


def _add_driver(node: etree._Element, plug: Plug) -> None:
    driver = element(
        "driver",
        name=plug.driver,
        queues=plug.queues,
        rx_queue_size=plug.rx_queue_size,
        tx_queue_size=plug.tx_queue_size,
        packed="on" if plug.packed else None,
    )
    if driver.attrib:
        node.append(driver)


def _add_bandwidth(node: etree._Element, plug: Plug) -> None:
    bandwidth = element("bandwidth")
    for name, qos in (("inbound", plug.inbound), ("outbound", plug.outbound)):
        if qos is not None:
            add(bandwidth, name, average=qos.average, peak=qos.peak, burst=qos.burst)
    if len(bandwidth):
        node.append(bandwidth)


def _pci_address(text: str) -> etree._Element:
    """0000:81:00.1 as an element."""
    domain, bus, rest = text.split(":")
    slot, _, function = rest.partition(".")
    return element(
        "address",
        domain=f"0x{domain}",
        bus=f"0x{bus}",
        slot=f"0x{slot}",
        function=f"0x{function}",
    )
