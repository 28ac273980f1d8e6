"""Views: lists, one instance, diagnostics, the host."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from lxml import etree

from kvmdriver import exception
from kvmdriver.guest.agent import agent_connected
from kvmdriver.host.memory import total_and_available_mib
from kvmdriver.hypervisor import hypervisor as libvirt_host
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.record import Record, TaskName
from kvmdriver.hypervisor.stats import DomainSummary
from kvmdriver.model import (
    Address,
    Diagnostics,
    DiskView,
    HostView,
    InstanceView,
    NicView,
)
from kvmdriver.operations import orphans
from kvmdriver.operations.context import Context

LOG = logging.getLogger(__name__)

_MIB = 1024 * 1024
# The part of the time for a question that may be spent on waiting for a guest.
_FOR_GUESTS = 2 / 3


def list_instances(context: Context) -> list[InstanceView]:
    """Return all instances of ours, by name; the number of libvirt calls does not grow with them.

    Disks and interfaces are left out; ``show`` has them.
    """
    saved, autostarting = context.hypervisor.flagged()
    views = []
    used_networks = set()
    rows = []
    for summary in context.hypervisor.summaries():
        record = context.record(summary.uuid)
        if record is not None:
            rows.append((summary, record))
            if summary.active:
                used_networks |= {n.source for n in record.instance.nics if n.type == "network"}
    leases = _leases(context, used_networks)
    for summary, record in rows:
        addresses = _lease_addresses(record, leases) if summary.active else ()
        views.append(
            _summary_view(context, summary, record, saved).changed(
                autostart=summary.uuid in autostarting, addresses=addresses
            )
        )
    return sorted(views, key=lambda view: view.name)


def _leases(context: Context, networks: set[str | None]) -> dict[str, list[str]]:
    leases: dict[str, list[str]] = {}
    for network in networks:
        # a network that went away has no leases; that is no reason to show nothing at all
        with contextlib.suppress(exception.NetworkNotFound, exception.HypervisorError):
            leases.update(context.hypervisor.leases(network or ""))
    return leases


def _lease_addresses(record: Record, leases: dict[str, list[str]]) -> tuple[Address, ...]:
    return tuple(
        Address(mac=nic.mac or "", ip=ip, source="lease")
        for nic in record.instance.nics
        for ip in leases.get(nic.mac or "", [])
    )


def _summary_view(
    context: Context, summary: DomainSummary, record: Record, saved: set[str]
) -> InstanceView:
    instance = record.instance
    status = summary.status
    if status == "stopped" and summary.uuid in saved:
        status = "suspended"
    task = record.task.name if record.task else None
    if task in (TaskName.CREATE, TaskName.INCOMING, TaskName.EVACUATE):
        status = "building"
    elif task == TaskName.DELETE:
        status = "deleting"
    memory = instance.memory
    return InstanceView(
        uuid=summary.uuid,
        name=summary.name,
        status=status,
        task=task,
        memory_mib=summary.memory_mib,
        memory_maximum_mib=memory.maximum_mib if memory else summary.memory_maximum_mib,
        vcpus=summary.vcpus,
        vcpus_maximum=summary.vcpus_maximum,
        os_variant=instance.os_variant,
        virt_type=instance.virt_type,
        machine=instance.machine,
        firmware=instance.boot.firmware,
        cpu_mode=instance.cpu.mode,
        host=context.host,
        unresponsive=summary.unresponsive,
    )


def show(context: Context, name_or_uuid: str) -> InstanceView:
    """Return one instance with its disks, interfaces and addresses.

    The sizes of the disks and some addresses need an answer of the guest's QEMU or of its agent.
    Where none comes in time they are named as unknown, and the rest is shown.
    """
    domain, record = context.find(name_or_uuid)
    root = domain.xml()
    summary = context.hypervisor.summary(domain)
    saved = {domain.uuid} if summary.status == "stopped" and domain.has_managed_save() else set()
    view = _summary_view(context, summary, record, saved).changed(
        autostart=domain.autostart(),
        nics=tuple(_nic_view(node) for node in root.iterfind("devices/interface")),
    )
    leased, seen = _without_the_guest(context, domain, record) if summary.active else ((), {})
    unknown: list[str] = []
    with context.hypervisor.connection.within(context.conf.kvm.read_timeout * _FOR_GUESTS):
        disks = tuple(_disk_view(domain, node, unknown) for node in root.iterfind("devices/disk"))
        told = _interfaces(domain, libvirt_host.AGENT, unknown) if agent_connected(root) else {}
    return view.changed(
        disks=disks,
        addresses=(*leased, *_others(record, leased, agent=told, arp=seen)),
        unresponsive=context.hypervisor.is_unresponsive(domain),
        unknown=tuple(unknown),
    )


def _disk_view(domain: Domain, node: etree._Element, unknown: list[str]) -> DiskView:
    target, driver, source = node.find("target"), node.find("driver"), node.find("source")
    name = target.get("dev", "") if target is not None else ""
    path = source.get("file") if source is not None else None
    size = None
    if path is not None and name:
        try:
            size = domain.block_info(name)[0] // _MIB
        except (exception.OperationTimeout, exception.HostBusy):
            unknown.append(f"disks.{name}.size_mib")
        except exception.HypervisorUnavailable:
            raise
        except exception.KVMDriverError as error:
            LOG.debug("%s: no size of disk %s: %s", domain.name, name, error)
    return DiskView(
        name=name,
        device=node.get("device", "disk"),
        bus=target.get("bus", "") if target is not None else "",
        path=path,
        format=driver.get("type") if driver is not None else None,
        size_mib=size,
    )


def _nic_view(node: etree._Element) -> NicView:
    def attribute(path: str, *names: str) -> str | None:
        found = node.find(path)
        if found is None:
            return None
        return next((found.get(name) for name in names if found.get(name)), None)

    return NicView(
        mac=attribute("mac", "address") or "",
        type=node.get("type", ""),
        source=attribute("source", "network", "bridge"),
        model=attribute("model", "type"),
        tap=attribute("target", "dev"),
    )


def _without_the_guest(
    context: Context, domain: Domain, record: Record
) -> tuple[tuple[Address, ...], dict[str, Any]]:
    """Return addresses by DHCP, and those that the host's ARP table knows."""
    networks = {nic.source for nic in record.instance.nics if nic.type == "network"}
    leased = _lease_addresses(record, _leases(context, networks))
    return leased, _interfaces(domain, libvirt_host.ARP, [])


def _interfaces(domain: Domain, source: int, unknown: list[str]) -> dict[str, Any]:
    """Return interfaces with the addresses that one source knows; nothing if it does not answer."""
    try:
        return domain.addresses(source)
    except (exception.OperationTimeout, exception.HostBusy):
        unknown.append("addresses")
    except exception.HypervisorUnavailable:
        raise
    except exception.KVMDriverError as error:
        LOG.debug("%s: addresses from source %d: %s", domain.name, source, error)
    return {}


def _others(
    record: Record, known: tuple[Address, ...], **sources: dict[str, Any]
) -> Iterator[Address]:
    """Yield further addresses of the instance's own interfaces, by their source."""
    taken = {address.ip for address in known}
    macs = {nic.mac for nic in record.instance.nics}
    for name, interfaces in sources.items():
        for interface in interfaces.values():
            mac = (interface.get("hwaddr") or "").lower()
            for address in interface.get("addrs") or ():
                ip = address["addr"]
                if mac in macs and ip not in taken and not ip.startswith("fe80:"):
                    taken.add(ip)
                    yield Address.model_validate({"mac": mac, "ip": ip, "source": name})


def diagnostics(context: Context, name_or_uuid: str) -> Diagnostics:
    """Return counters of a running instance.

    :raises kvmdriver.exception.InvalidState: it is not running.
    """
    domain, _record = context.find(name_or_uuid)
    if not domain.is_active():
        raise exception.InvalidState(
            "diagnostics need a running instance",
            field="status",
            value=domain.status(),
            instance=domain.name,
            remedy="start it: kvmdriver server start NAME",
        )
    stats = context.hypervisor.all_stats(domain)

    def group(prefix: str, count: str, names: dict[str, str]) -> tuple[dict[str, object], ...]:
        rows = []
        for index in range(stats.get(count, 0)):
            values = {ours: stats.get(f"{prefix}.{index}.{key}") for key, ours in names.items()}
            rows.append({"id": index, **{k: v for k, v in values.items() if v is not None}})
        return tuple(rows)

    balloon = {
        key.removeprefix("balloon.").replace("-", "_"): value
        for key, value in stats.items()
        if key.startswith("balloon.")
    }
    return Diagnostics(
        state=domain.status(),
        cpus=group("vcpu", "vcpu.maximum", {"time": "time_ns", "state": "state"}),
        memory=balloon,
        disks=group(
            "block",
            "block.count",
            {
                "name": "name",
                "rd.reqs": "read_requests",
                "rd.bytes": "read_bytes",
                "wr.reqs": "write_requests",
                "wr.bytes": "write_bytes",
                "errors": "errors",
                "allocation": "allocation_bytes",
                "capacity": "capacity_bytes",
            },
        ),
        nics=group(
            "net",
            "net.count",
            {
                "name": "tap",
                "rx.bytes": "rx_bytes",
                "rx.pkts": "rx_packets",
                "rx.errs": "rx_errors",
                "rx.drop": "rx_dropped",
                "tx.bytes": "tx_bytes",
                "tx.pkts": "tx_packets",
                "tx.errs": "tx_errors",
                "tx.drop": "tx_dropped",
            },
        ),
    )


def host(context: Context) -> HostView:
    """Return the host and what is in use on it."""
    hypervisor = context.hypervisor
    qemu_version, libvirt_version = hypervisor.versions()
    capabilities = hypervisor.host_capabilities()
    memory, free_memory = total_and_available_mib()
    disk, free_disk = context.store.space()
    instances = list_instances(context)
    running = [i for i in instances if i.status in ("running", "paused", "blocked")]
    return HostView(
        host=context.host,
        uri=hypervisor.connection.uri,
        connected=True,
        hypervisor="QEMU",
        hypervisor_version=qemu_version,
        libvirt_version=libvirt_version,
        architecture=capabilities.architecture,
        cpu_model=capabilities.cpu_model,
        cpus=hypervisor.cpus(),
        memory_mib=memory,
        memory_free_mib=free_memory,
        disk_mib=disk,
        disk_free_mib=free_disk,
        virt_types=capabilities.virt_types,
        instances=len(instances),
        instances_running=len(running),
        vcpus_used=sum(instance.vcpus for instance in running),
        memory_used_mib=sum(instance.memory_mib for instance in running),
        networks=tuple(sorted(name for name, active in hypervisor.networks().items() if active)),
        instances_path=context.store.root,
        orphans=tuple(
            orphan.path for orphan in orphans.find(context, {i.uuid for i in instances})
        ),
    )
