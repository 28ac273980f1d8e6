"""Pins of vCPUs, the emulator and memory that differ on the destination.

nova claims the resources of the destination there, and has the source put the outcome into the
definition. Facts: nova.objects.migrate_data.LibvirtLiveMigrateNUMAInfo.
"""

from typing import Any

from lxml import etree
from nova.objects.image_meta import ImageMeta
from nova.objects.instance import Instance as NovaInstance
from nova.objects.migrate_data import LibvirtLiveMigrateData, LibvirtLiveMigrateNUMAInfo

from kvmdriver.definition.tuning import cpu_list
from kvmdriver.nova import placement
from kvmdriver.nova.node import Node


def claimed(
    node: Node, instance: NovaInstance, image_meta: ImageMeta, topology: Any
) -> LibvirtLiveMigrateNUMAInfo:
    """Return where an instance will be pinned on this host, the destination.

    :param topology: as nova's resource tracker has claimed it.
    """
    tuning = placement.tuning(node, instance, image_meta, topology)
    info = LibvirtLiveMigrateNUMAInfo()
    if tuning.cpu.pins:
        info.cpu_pins = {str(vcpu): set(cpus) for vcpu, cpus in enumerate(tuning.cpu.pins) if cpus}
    if tuning.cpu.emulator:
        info.emulator_pins = set(tuning.cpu.emulator)
    cells = {str(c.id): {c.host_node} for c in tuning.cells if c.host_node is not None}
    if cells:
        info.cell_pins = cells
    if tuning.cpu.realtime:
        info.sched_vcpus = set(tuning.cpu.realtime)
        info.sched_priority = tuning.cpu.realtime_priority
    return info


def replace(running: etree._Element, data: LibvirtLiveMigrateData) -> None:
    """Replace the source's pins in a definition by those of the destination."""
    if "dst_cpu_shared_set_info" in data:
        _replace_cpuset(running, data.dst_cpu_shared_set_info)
    if "dst_numa_info" not in data or data.dst_numa_info is None:
        return
    info = data.dst_numa_info
    tune = running.find("cputune")
    if tune is not None:
        _replace_cpu_pins(tune, info)
    numa = running.find("numatune")
    if numa is not None and "cell_pins" in info:
        nodes: set[int] = set()
        for memory in numa.iterfind("memnode"):
            cell = info.cell_pins.get(memory.get("cellid", ""))
            if cell:
                memory.set("nodeset", cpu_list(cell))
                nodes |= set(cell)
        whole = numa.find("memory")
        if whole is not None and nodes:
            whole.set("nodeset", cpu_list(nodes))


def _replace_cpu_pins(tune: etree._Element, info: LibvirtLiveMigrateNUMAInfo) -> None:
    if "cpu_pins" in info:
        for pin in tune.iterfind("vcpupin"):
            cpus = info.cpu_pins.get(pin.get("vcpu", ""))
            if cpus:
                pin.set("cpuset", cpu_list(cpus))
    if "emulator_pins" in info:
        for tag in ("emulatorpin", "iothreadpin"):
            for pin in tune.iterfind(tag):
                pin.set("cpuset", cpu_list(info.emulator_pins))
    if "sched_vcpus" in info:
        for schedule in tune.iterfind("vcpusched"):
            schedule.set("vcpus", cpu_list(info.sched_vcpus))
            schedule.set("priority", str(info.sched_priority))


def _replace_cpuset(running: etree._Element, shared: set[int]) -> None:
    """Replace the CPUs that floating vCPUs may use; none means all CPUs of the host."""
    vcpu = running.find("vcpu")
    if vcpu is None:
        return
    if shared and vcpu.get("cpuset"):
        vcpu.set("cpuset", cpu_list(shared))
    elif not shared and "cpuset" in vcpu.attrib:
        del vcpu.attrib["cpuset"]
