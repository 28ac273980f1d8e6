"""From nova's objects to a domain's XML: the adapter defines domains in no other way."""

import random
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from lxml import etree
from nova import exception as nova_exception
from nova.objects.image_meta import ImageMeta
from nova.objects.instance import Instance as NovaInstance
from nova.virt import hardware

from kvmdriver.definition.build import domain_xml
from kvmdriver.nova import disks, metadata, nics, translate
from kvmdriver.nova.block_devices import Slot
from kvmdriver.nova.node import Node


def build(
    node: Node,
    context: Any,
    instance: NovaInstance,
    image_meta: ImageMeta,
    slots: Sequence[Slot],
    network_info: Any,
    *,
    suffix: str = "",
    direct_boot: bool | None = None,
    has_ramdisk: bool | None = None,
) -> etree._Element:
    """Return the definition with which an instance is to be started now.

    :param suffix: of kernel and ramdisk, ``.rescue`` while it is rescued.
    """
    layout = node.layout(instance, suffix)
    if direct_boot is None:
        direct_boot, has_ramdisk = bool(instance.kernel_id), bool(instance.ramdisk_id)
    model = translate.translate(
        node,
        instance,
        image_meta,
        disks=[disks.to_model(node, instance, layout, slot) for slot in slots],
        nics=[nics.translate(node.conf, vif, image_meta, instance.flavor) for vif in network_info],
        layout=layout,
        tcp_ports=_serial_ports(node, instance, image_meta),
        direct_boot=direct_boot,
        has_ramdisk=bool(has_ramdisk),
    )
    emulator = node.capabilities(model.machine).emulator
    return domain_xml(
        model,
        node.platform(layout, emulator),
        metadata.element(context, instance, network_info),
    )


def _serial_ports(node: Node, instance: NovaInstance, image_meta: ImageMeta) -> list[int]:
    """Return the TCP ports of serial consoles: those that the domain has, or free ones of the range."""
    conf = node.conf.serial_console
    if not conf.enabled:
        return []
    count = hardware.get_number_of_serial_ports(instance.flavor, image_meta)
    domain = node.hypervisor.find(instance.uuid)
    if domain is not None:
        own = [port for _host, port in serial_endpoints(domain.xml())]
        if len(own) == count:
            return own
    return free_serial_ports(node, instance, image_meta)


def free_serial_ports(
    node: Node, instance: NovaInstance, image_meta: ImageMeta | None = None
) -> list[int]:
    """Return as many free TCP ports as a new guest needs for serial consoles; none if disabled.

    :raises nova.exception.SocketPortRangeExhaustedException: all are in use.
    """
    conf = node.conf.serial_console
    if not conf.enabled:
        return []
    count = hardware.get_number_of_serial_ports(instance.flavor, image_meta or instance.image_meta)
    free = _free_ports(conf.proxyclient_address, conf.port_range)
    ports = []
    for _ in range(count):
        port = next(free, None)
        if port is None:
            raise nova_exception.SocketPortRangeExhaustedException(host=conf.proxyclient_address)
        ports.append(port)
    return ports


def _free_ports(address: str, port_range: str) -> Iterator[int]:
    first, _, last = port_range.partition(":")
    ports = list(range(int(first), int(last)))
    random.shuffle(ports)
    for port in ports:
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
        yield port


def serial_endpoints(root: etree._Element) -> list[tuple[str, int]]:
    """Return host and port of each serial console on TCP, the first port first."""
    found = []
    for source in root.iterfind("devices/serial[@type='tcp']/source[@mode='bind']"):
        found.append((source.get("host", ""), int(source.get("service", "0"))))
    return found
