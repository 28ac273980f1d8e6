"""Counters of a running instance, in nova's two forms."""

import time
from typing import Any

from nova import exception as nova_exception
from nova.objects import diagnostics as nova_diagnostics
from nova.objects.instance import Instance as NovaInstance

from kvmdriver.hypervisor import xml
from kvmdriver.nova.node import Node
from kvmdriver.nova.states import NOVA_STATES

_STATE_NAMES = {
    0: "pending",
    1: "running",
    3: "paused",
    4: "shutdown",
    6: "crashed",
    7: "suspended",
}


def _stats(node: Node, instance: NovaInstance) -> dict[str, Any]:
    domain = node.domain(instance)
    if not domain.is_active():
        raise nova_exception.InstanceNotRunning(instance_id=instance.uuid)
    return node.hypervisor.all_stats(domain)


def legacy(node: Node, instance: NovaInstance) -> dict[str, Any]:
    """Return flat counters, with the names that nova's API has always had."""
    stats = _stats(node, instance)
    found: dict[str, Any] = {}
    for number in range(stats.get("vcpu.maximum", 0)):
        if f"vcpu.{number}.time" in stats:
            found[f"cpu{number}_time"] = stats[f"vcpu.{number}.time"]
    for number in range(stats.get("block.count", 0)):
        name = stats.get(f"block.{number}.name")
        for key, source in (
            ("read_req", "rd.reqs"),
            ("read", "rd.bytes"),
            ("write_req", "wr.reqs"),
            ("write", "wr.bytes"),
            ("errors", "errors"),
        ):
            found[f"{name}_{key}"] = stats.get(f"block.{number}.{source}", -1)
    for number in range(stats.get("net.count", 0)):
        name = stats.get(f"net.{number}.name")
        for direction in ("rx", "tx"):
            found[f"{name}_{direction}"] = stats.get(f"net.{number}.{direction}.bytes", 0)
            for key, source in (("packets", "pkts"), ("errors", "errs"), ("drop", "drop")):
                value = stats.get(f"net.{number}.{direction}.{source}", 0)
                found[f"{name}_{direction}_{key}"] = value
    found["memory"] = stats.get("balloon.maximum", 0)
    for key, value in stats.items():
        if key.startswith("balloon.") and isinstance(value, int):
            found[f"memory-{key.removeprefix('balloon.')}"] = value
    return found


def versioned(node: Node, instance: NovaInstance) -> nova_diagnostics.Diagnostics:
    """Return the object that API microversion 2.48 shows."""
    stats = _stats(node, instance)
    state = node.states.get(instance.uuid)
    found = nova_diagnostics.Diagnostics(
        state=_STATE_NAMES[NOVA_STATES[state.status]],
        driver="libvirt",
        config_drive=bool(instance.config_drive),
        hypervisor=node.conf.kvm.virt_type,
        hypervisor_os="linux",
        uptime=_uptime(instance),
    )
    for number in range(stats.get("vcpu.maximum", 0)):
        if f"vcpu.{number}.time" in stats:
            found.add_cpu(id=number, time=stats[f"vcpu.{number}.time"])
    for number in range(stats.get("block.count", 0)):
        found.add_disk(
            read_bytes=stats.get(f"block.{number}.rd.bytes"),
            read_requests=stats.get(f"block.{number}.rd.reqs"),
            write_bytes=stats.get(f"block.{number}.wr.bytes"),
            write_requests=stats.get(f"block.{number}.wr.reqs"),
            errors_count=stats.get(f"block.{number}.errors"),
        )
    macs = {
        xml.attribute(nic, "target", "dev"): xml.attribute(nic, "mac", "address") or None
        for nic in node.domain(instance).xml().iterfind("devices/interface")
    }
    for number in range(stats.get("net.count", 0)):
        found.add_nic(
            mac_address=macs.get(stats.get(f"net.{number}.name", "")),
            rx_octets=stats.get(f"net.{number}.rx.bytes"),
            rx_packets=stats.get(f"net.{number}.rx.pkts"),
            rx_errors=stats.get(f"net.{number}.rx.errs"),
            rx_drop=stats.get(f"net.{number}.rx.drop"),
            tx_octets=stats.get(f"net.{number}.tx.bytes"),
            tx_packets=stats.get(f"net.{number}.tx.pkts"),
            tx_errors=stats.get(f"net.{number}.tx.errs"),
            tx_drop=stats.get(f"net.{number}.tx.drop"),
        )
    found.memory_details = nova_diagnostics.MemoryDiagnostics(
        maximum=stats.get("balloon.maximum", 0) // 1024,
        used=stats.get("balloon.current", 0) // 1024,
    )
    return found


def _uptime(instance: NovaInstance) -> int:
    launched = instance.launched_at
    return max(0, int(time.time() - launched.timestamp())) if launched else 0


def block_stats(node: Node, instance: NovaInstance, disk: str) -> list[int]:
    """Return reads, bytes read, writes, bytes written and errors of one disk."""
    stats = _stats(node, instance)
    for number in range(stats.get("block.count", 0)):
        if stats.get(f"block.{number}.name") == disk:
            return [
                stats.get(f"block.{number}.{name}", 0)
                for name in ("rd.reqs", "rd.bytes", "wr.reqs", "wr.bytes", "errors")
            ]
    raise nova_exception.DiskNotFound(location=disk)


def volume_usage(node: Node, compute_host_bdms: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return counters of every volume of the host's instances, for nova's periodic usage report."""
    found = []
    for entry in compute_host_bdms:
        instance = entry["instance"]
        for bdm in entry["instance_bdms"]:
            name = bdm["device_name"].removeprefix("/dev/")
            try:
                numbers = block_stats(node, instance, name)
            except nova_exception.NovaException:
                continue
            reads, read_bytes, writes, write_bytes, _errors = numbers
            found.append(
                {
                    "volume": bdm["volume_id"],
                    "instance": instance,
                    "rd_req": reads,
                    "rd_bytes": read_bytes,
                    "wr_req": writes,
                    "wr_bytes": write_bytes,
                }
            )
    return found
