"""Placement, limits and identity, as Nova has decided.

Source of the elements: https://libvirt.org/formatdomain.html, sections CPU Tuning, NUMA Node
Tuning, Memory Backing, Memory Tuning, Block I/O Tuning and SMBIOS System Information.
"""

from collections.abc import Iterable

from lxml import etree

from kvmdriver.definition.platform import Platform
from kvmdriver.definition.xml import add, element
from kvmdriver.model import Instance, Tuning

NOTHING = Tuning()


def tuning_of(instance: Instance) -> Tuning:
    """Return the instance's tuning, an empty one where it has none."""
    return instance.tuning or NOTHING


def cpu_list(cpus: Iterable[int]) -> str:
    """CPUs as libvirt spells them: 0-3,8."""
    spans: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if spans and cpu == spans[-1][1] + 1:
            spans[-1][1] = cpu
        else:
            spans.append([cpu, cpu])
    return ",".join(f"{low}-{high}" if high > low else str(low) for low, high in spans)


def build_cpu_tune(domain: etree._Element, instance: Instance, _platform: Platform) -> None:
    tune = tuning_of(instance).cpu
    node = element("cputune")
    for name in ("shares", "period", "quota"):
        value = getattr(tune, name)
        if value is not None:
            add(node, name, value)
    for vcpu, cpus in enumerate(tune.pins):
        if cpus:
            add(node, "vcpupin", vcpu=vcpu, cpuset=cpu_list(cpus))
    if tune.emulator:
        add(node, "emulatorpin", cpuset=cpu_list(tune.emulator))
        for iothread in range(1, tuning_of(instance).iothreads + 1):
            add(node, "iothreadpin", iothread=iothread, cpuset=cpu_list(tune.emulator))
    if tune.realtime:
        add(
            node,
            "vcpusched",
            vcpus=cpu_list(tune.realtime),
            scheduler="fifo",
            priority=tune.realtime_priority,
        )
    if len(node):
        domain.append(node)


def build_numa_tune(domain: etree._Element, instance: Instance, _platform: Platform) -> None:
    cells = [cell for cell in tuning_of(instance).cells if cell.host_node is not None]
    if not cells:
        return
    node = add(domain, "numatune")
    nodes = cpu_list(cell.host_node for cell in cells if cell.host_node is not None)
    add(node, "memory", mode="strict", nodeset=nodes)
    for cell in cells:
        add(node, "memnode", cellid=cell.id, mode="strict", nodeset=cell.host_node)


def build_memory_backing(domain: etree._Element, instance: Instance, _platform: Platform) -> None:
    tuning = tuning_of(instance)
    node = element("memoryBacking")
    pages = [cell for cell in tuning.cells if cell.page_kib]
    if pages:
        hugepages = add(node, "hugepages")
        for cell in pages:
            add(hugepages, "page", size=cell.page_kib, unit="KiB", nodeset=cell.id)
    if tuning.cpu.realtime:
        add(node, "nosharepages")
    if tuning.locked_memory or tuning.cpu.realtime:
        add(node, "locked")
    if tuning.file_backed_memory:
        add(node, "source", type="file")
    elif tuning.shared_memory:
        add(node, "source", type="memfd")
    if tuning.file_backed_memory or tuning.shared_memory:
        add(node, "access", mode="shared")
    if tuning.file_backed_memory:
        add(node, "allocation", mode="immediate")
    if tuning.discard_memory:
        add(node, "discard")
    if len(node):
        domain.append(node)


def build_limits(domain: etree._Element, instance: Instance, _platform: Platform) -> None:
    tuning = tuning_of(instance)
    limits = element("memtune")
    for name, value in (
        ("hard_limit", tuning.memory.hard_limit_kib),
        ("soft_limit", tuning.memory.soft_limit_kib),
        ("swap_hard_limit", tuning.memory.swap_hard_limit_kib),
        ("min_guarantee", tuning.memory.min_guarantee_kib),
    ):
        if value is not None:
            add(limits, name, value, unit="KiB")
    if len(limits):
        domain.append(limits)
    if tuning.block_weight is not None:
        add(add(domain, "blkiotune"), "weight", tuning.block_weight)
    if tuning.iothreads:
        add(domain, "iothreads", tuning.iothreads)


def build_system(domain: etree._Element, instance: Instance, _platform: Platform) -> None:
    system = tuning_of(instance).system
    if system is None:
        return
    table = add(add(domain, "sysinfo", type="smbios"), "system")
    for name in ("manufacturer", "product", "version", "serial", "uuid", "family"):
        value = getattr(system, name)
        if value is not None:
            add(table, "entry", value, name=name)
    os = domain.find("os")
    assert os is not None  # noqa: S101 built before this
    add(os, "smbios", mode="sysinfo")
