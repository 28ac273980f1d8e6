"""What the host has: for nova's resource tracker and for placement.

Nothing here asks libvirt once per instance, and nothing starts a process: states and sizes come
from one bulk call, disks from their headers.
"""

import json
import os
import time
from typing import Any

import os_resource_classes as orc
from nova import exception as nova_exception
from nova.objects import network_metadata
from nova.objects import numa as nova_numa
from nova.virt import driver as nova_driver
from nova.virt import hardware
from nova.virt import node as nova_node

from kvmdriver.host.memory import total_and_available_mib
from kvmdriver.hypervisor.capabilities import HostNumaNode
from kvmdriver.model.base import is_uuid
from kvmdriver.nova import disks, pci_devices, traits
from kvmdriver.nova.node import Node

_GIB = 1024**3
_ARCHITECTURES = {"x86_64": ("x86_64", "i686")}


def available(node: Node) -> dict[str, Any]:
    """Answer get_available_resource; sizes in MiB and GiB as nova names them."""
    hypervisor = node.hypervisor
    host = hypervisor.host_capabilities()
    total_gb, used_gb, free_gb = disk_gb(node)
    total_mib, available_mib = total_and_available_mib()
    topology = numa_topology(node)
    return {
        "supported_instances": [
            (architecture, virt_type, "hvm")
            for architecture in _ARCHITECTURES.get(host.architecture, (host.architecture,))
            for virt_type in host.virt_types
        ],
        "vcpus": len(shared_cpus(node)),
        "memory_mb": total_mib,
        "local_gb": total_gb,
        "vcpus_used": node.states.vcpus_used(),
        "memory_mb_used": total_mib - available_mib,
        "local_gb_used": used_gb,
        # what nova's own driver says, since neighbours compare it
        "hypervisor_type": "QEMU",
        "hypervisor_version": hypervisor.version_numbers()[0],
        "hypervisor_hostname": hypervisor.hostname(),
        "uuid": nova_node.get_local_node_uuid(),
        "cpu_info": json.dumps(cpu_info(node)),
        "disk_available_least": int(free_gb - over_committed(node) / _GIB),
        "pci_passthrough_devices": json.dumps(pci_devices.inventory(node.conf)),
        "numa_topology": topology._to_json() if topology else None,
        "stats": {"uptime": uptime()},
    }


def disk_gb(node: Node) -> tuple[int, int, int]:
    """Total, used and free GiB of the file system of instances."""
    status = os.statvfs(node.store.root)
    total = status.f_blocks * status.f_frsize
    free = status.f_bavail * status.f_frsize
    used = (status.f_blocks - status.f_bfree) * status.f_frsize
    return total // _GIB, used // _GIB, free // _GIB


def over_committed(node: Node) -> int:
    """Bytes that local qcow2 disks may still grow by, from their headers."""
    total = 0
    for entry in os.scandir(node.store.root):
        if not is_uuid(entry.name) or not entry.is_dir(follow_symlinks=False):
            continue
        layout = node.store.layout(entry.name)
        formats = disks.read_formats(layout)
        for path, kind in formats.items():
            if kind != "qcow2" or os.path.dirname(path) != layout.directory:
                continue
            try:
                size = disks.virtual_size(path, kind)
                total += max(0, size - os.stat(path).st_blocks * 512)
            except OSError:
                continue  # gone in the meantime
    return total


def cpu_info(node: Node) -> dict[str, Any]:
    """Return the host's CPU, in the form that nova keeps and compares before live migration."""
    host = node.hypervisor.host_capabilities()
    cpu = host.cpu
    return {
        "arch": cpu.architecture,
        "model": cpu.model,
        "vendor": cpu.vendor,
        "topology": {
            "cells": max(1, len(host.numa)),
            "sockets": cpu.sockets,
            "cores": cpu.cores,
            "threads": cpu.threads,
        },
        "features": sorted(cpu.features),
    }


def shared_cpus(node: Node) -> set[int]:
    """Host CPUs on which vCPUs float ([compute] cpu_shared_set, or all that are online).

    :raises nova.exception.Invalid: one that is configured is not online.
    """
    conf, online = node.conf, node.hypervisor.online_cpus()
    if conf.vcpu_pin_set:
        wanted = hardware.get_vcpu_pin_set()
    elif conf.compute.cpu_shared_set:
        wanted = hardware.get_cpu_shared_set()
    elif conf.compute.cpu_dedicated_set:
        return set()
    else:
        return online
    return _online(wanted or set(), online, "cpu_shared_set")


def dedicated_cpus(node: Node) -> set[int]:
    """Host CPUs to which vCPUs are pinned ([compute] cpu_dedicated_set)."""
    if not node.conf.compute.cpu_dedicated_set:
        return set()
    wanted = hardware.get_cpu_dedicated_set() or set()
    return _online(wanted, node.hypervisor.online_cpus(), "cpu_dedicated_set")


def _online(wanted: set[int], online: set[int], option: str) -> set[int]:
    missing = wanted - online
    if missing:
        raise nova_exception.Invalid(
            f"[compute] {option} names CPUs that are not online: {sorted(missing)}; "
            f"online are {hardware.format_cpu_spec(online)}"
        )
    return wanted


def numa_topology(node: Node) -> nova_numa.NUMATopology | None:
    """Return the host's NUMA nodes with their CPUs and pages; None where libvirt knows none."""
    host = node.hypervisor.host_capabilities()
    if not host.numa:
        return None
    shared, dedicated = shared_cpus(node), dedicated_cpus(node)
    if not dedicated and (node.conf.vcpu_pin_set or not node.conf.compute.cpu_shared_set):
        # nova allows pinning on hosts that do not tell the two apart
        dedicated = shared
    reserved = hardware.numa_get_reserved_huge_pages() or {}
    affinity = _network_affinity(node)
    return nova_numa.NUMATopology(
        cells=[
            _numa_cell(cell, shared, dedicated, reserved.get(cell.id, {}), affinity(cell.id))
            for cell in host.numa
        ]
    )


def _numa_cell(
    cell: HostNumaNode,
    shared: set[int],
    dedicated: set[int],
    reserved: dict[int, int],
    affinity: network_metadata.NetworkMetadata,
) -> nova_numa.NUMACell:
    cpus = {cpu.id for cpu in cell.cpus}
    usable = shared | dedicated
    siblings = {frozenset(cpu.siblings & usable) for cpu in cell.cpus}
    sockets = {cpu.socket for cpu in cell.cpus}
    return nova_numa.NUMACell(
        id=cell.id,
        socket=sockets.pop() if len(sockets) == 1 else None,
        cpuset=cpus & shared,
        pcpuset=cpus & dedicated,
        memory=cell.memory_kib // 1024,
        cpu_usage=0,
        pinned_cpus=set(),
        memory_usage=0,
        siblings=[set(group) for group in siblings if group],
        mempages=[
            nova_numa.NUMAPagesTopology(
                size_kb=size, total=total, used=0, reserved=reserved.get(size, 0)
            )
            for size, total in sorted(cell.pages.items())
        ],
        network_metadata=affinity,
    )


def _network_affinity(node: Node) -> Any:
    conf = node.conf

    def of(cell: int) -> network_metadata.NetworkMetadata:
        physnets = set()
        for name in conf.neutron.physnets:
            group = getattr(conf, f"neutron_physnet_{name}")
            if not group.numa_nodes:
                raise nova_exception.InvalidNetworkNUMAAffinity(
                    reason=f"[neutron_physnet_{name}] numa_nodes is empty"
                )
            if cell in group.numa_nodes:
                physnets.add(name)
        return network_metadata.NetworkMetadata(
            physnets=physnets, tunneled=cell in conf.neutron_tunnel.numa_nodes
        )

    return of


def uptime() -> str:
    """Return what the command uptime prints, without starting it."""
    with open("/proc/uptime") as file:
        seconds = int(float(file.read().split()[0]))
    days, minutes = divmod(seconds // 60, 24 * 60)
    shown = f"{days} day{'s' if days > 1 else ''}, " if days else ""
    loads = ", ".join(f"{load:.2f}" for load in os.getloadavg())
    clock = time.strftime("%H:%M:%S")
    return (
        f" {clock} up {shown}{minutes // 60:2d}:{minutes % 60:02d},  0 users,  "
        f"load average: {loads}"
    )


def update_provider_tree(
    node: Node, driver: nova_driver.ComputeDriver, provider_tree: Any, name: str
) -> None:
    """Inventory and traits of this host for placement."""
    inventory = provider_tree.data(name).inventory
    ratios = driver._get_allocation_ratios(inventory)
    conf = node.conf
    found = {}
    for kind, total, reserved, ratio in (
        (orc.VCPU, len(shared_cpus(node)), conf.reserved_host_cpus, ratios[orc.VCPU]),
        (orc.PCPU, len(dedicated_cpus(node)), 0, 1.0),
        (
            orc.MEMORY_MB,
            conf.libvirt.file_backed_memory or total_and_available_mib()[0],
            conf.reserved_host_memory_mb,
            ratios[orc.MEMORY_MB],
        ),
        (
            orc.DISK_GB,
            disk_gb(node)[0],
            driver._get_reserved_host_disk_gb_from_config() + _cache_gb(node),
            ratios[orc.DISK_GB],
        ),
    ):
        # placement takes no inventory of nothing
        if total:
            found[kind] = {
                "total": total,
                "min_unit": 1,
                "max_unit": total,
                "step_size": 1,
                "allocation_ratio": ratio,
                "reserved": reserved,
            }
    provider_tree.update_inventory(name, found)
    _withdraw_mediated_devices(provider_tree, name)
    wanted = traits.traits(node, driver.capabilities_as_traits())
    provider_tree.add_traits(name, *sorted(trait for trait, on in wanted.items() if on))
    provider_tree.remove_traits(name, *sorted(trait for trait, on in wanted.items() if not on))


def _withdraw_mediated_devices(provider_tree: Any, name: str) -> None:
    """Have placement hand out no mediated device of this host any more.

    nova's own libvirt driver leaves a provider for each physical GPU, named after libvirt's node
    device (NODE_pci_0000_81_00_0). Servers may still have allocations of them, so the inventory
    stays, but all of it is reserved.
    """
    for uuid in provider_tree.get_provider_uuids(name):
        data = provider_tree.data(uuid)
        if data.name.startswith(f"{name}_pci_"):
            inventory = {
                kind: {**entry, "reserved": entry["total"]}
                for kind, entry in data.inventory.items()
            }
            provider_tree.update_inventory(uuid, inventory)


def _cache_gb(node: Node) -> int:
    """GiB of the image cache, where [workarounds] asks for them to be reserved."""
    if not node.conf.workarounds.reserve_disk_resource_for_image_cache:
        return 0
    try:
        size = sum(entry.stat().st_blocks * 512 for entry in os.scandir(node.images.directory))
    except FileNotFoundError:
        return 0
    return -(-size // _GIB)


def cpu_stats(node: Node) -> dict[str, int]:
    """CPU time of the host in ns by kind, and its frequency in MHz."""
    times, frequency = node.hypervisor.cpu_stats()
    return {
        "kernel": times.get("kernel", 0),
        "idle": times.get("idle", 0),
        "user": times.get("user", 0),
        "iowait": times.get("iowait", 0),
        "frequency": frequency,
    }
