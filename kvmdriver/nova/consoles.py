"""Consoles of an instance: where to connect, and what the guest has printed."""

import os

import nova.privsep.path
from nova import exception as nova_exception
from nova.console import type as console_type
from nova.objects.instance import Instance as NovaInstance

from kvmdriver import exception
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.nova import definition
from kvmdriver.nova.node import Node

# nova's API returns lines from the end of this much.
MAX_BYTES = 100 * 1024


def output(node: Node, instance: NovaInstance) -> bytes:
    """Return the end of the console log, older files of virtlogd included.

    :raises nova.exception.ConsoleNotAvailable: the instance has no log.
    """
    node.domain(instance)
    path = node.layout(instance).console_log
    found = b""
    for name in (path, path + ".0"):
        wanted = MAX_BYTES - len(found)
        if wanted > 0 and os.path.exists(name):
            found = _tail(name, wanted) + found
    if not found and not os.path.exists(path):
        raise nova_exception.ConsoleNotAvailable()
    return found


def _tail(path: str, size: int) -> bytes:
    """Return the last bytes of a log, which virtlogd makes for root alone.

    A nova-compute that is not root reads the log through nova's own privileged process: nova's
    rootwrap filters let that one start, and no other.
    """
    try:
        with open(path, "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - size))
            return log.read(size)
    except PermissionError:
        return bytes(nova.privsep.path.last_bytes(path, size)[0])


def _graphics(domain: Domain, kind: str) -> tuple[int, int]:
    for node in domain.xml().iterfind(f"devices/graphics[@type='{kind}']"):
        port, tls = int(node.get("port", "-1")), int(node.get("tlsPort", "-1"))
        if port > 0 or tls > 0:
            return port, tls
    raise nova_exception.ConsoleTypeUnavailable(console_type=kind)


def _domain(node: Node, instance: NovaInstance) -> Domain:
    try:
        return node.domain(instance)
    except exception.InstanceNotFound as error:
        raise nova_exception.InstanceNotFound(instance_id=instance.uuid) from error


def vnc(node: Node, instance: NovaInstance) -> console_type.ConsoleVNC:
    port, _ = _graphics(_domain(node, instance), "vnc")
    return console_type.ConsoleVNC(host=node.conf.vnc.server_proxyclient_address, port=port)


def spice(node: Node, instance: NovaInstance) -> console_type.ConsoleSpice:
    port, tls = _graphics(_domain(node, instance), "spice")
    return console_type.ConsoleSpice(
        host=node.conf.spice.server_proxyclient_address,
        port=port,
        tlsPort=tls if tls > 0 else None,
    )


def serial(node: Node, instance: NovaInstance) -> console_type.ConsoleSerial:
    for host, port in definition.serial_endpoints(_domain(node, instance).xml()):
        return console_type.ConsoleSerial(host=host, port=port)
    raise nova_exception.ConsoleTypeUnavailable(console_type="serial")
