"""vCPUs and the CPU model (https://libvirt.org/formatdomain.html#cpu-model-and-topology)."""

from lxml import etree

from kvmdriver.definition.platform import Platform
from kvmdriver.definition.tuning import cpu_list, tuning_of
from kvmdriver.definition.xml import add
from kvmdriver.model import Instance, NumaCell
from kvmdriver.model.cpu import DEFAULT_MODEL


def build_vcpus(domain: etree._Element, instance: Instance, _platform: Platform) -> None:
    vcpus = instance.vcpus
    current = vcpus.current if vcpus.current != vcpus.maximum else None
    allowed = tuning_of(instance).cpuset
    add(
        domain,
        "vcpu",
        vcpus.maximum,
        placement="static",
        current=current,
        cpuset=cpu_list(allowed) if allowed else None,
    )


def build_cpu(domain: etree._Element, instance: Instance, _platform: Platform) -> None:
    cpu, vcpus = instance.cpu, instance.vcpus
    memory = instance.memory
    hotplug = memory is not None and memory.growth == "hotplug"
    cells = tuning_of(instance).cells
    plain = cpu.mode in (None, "none")
    details = (cpu.topology, cpu.address_bits, cpu.cache, cells, cpu.features)
    if plain and not hotplug and not any(details):
        return
    node = add(domain, "cpu")
    if cpu.mode == "custom" or (plain and cpu.features):
        node.set("mode", "custom")
        node.set("match", "exact")
        # partial: libvirt checks what it can before the start, and accepts features that an
        # emulator adds on its own
        node.set("check", "none" if plain else "partial")
        # flags need a model to be added to: what QEMU takes when it is told nothing
        add(node, "model", DEFAULT_MODEL if plain else cpu.models[0], fallback="forbid")
    elif not plain:
        node.set("mode", str(cpu.mode))
        if cpu.mode == "host-model":
            node.set("check", "partial")
        elif cpu.mode == "host-passthrough":
            node.set("migratable", "on")
    topology = cpu.topology
    if topology is not None:
        add(
            node,
            "topology",
            sockets=topology.sockets,
            cores=topology.cores,
            threads=topology.threads,
        )
    if cpu.cache is not None:
        add(node, "cache", mode=cpu.cache.mode, level=cpu.cache.level)
    if cpu.address_bits is not None:
        bits = cpu.address_bits
        add(node, "maxphysaddr", mode=bits.mode, bits=bits.bits)
    for feature in cpu.features:
        add(node, "feature", policy=feature.policy, name=feature.name)
    if cells:
        _add_cells(node, cells, shared=tuning_of(instance).shared_memory)
    elif hotplug and memory is not None:
        # libvirt plugs memory modules into NUMA nodes only
        last = vcpus.maximum - 1
        numa = add(node, "numa")
        add(
            numa,
            "cell",
            id=0,
            cpus=f"0-{last}" if last else "0",
            memory=memory.current_mib,
            unit="MiB",
        )


def _add_cells(node: etree._Element, cells: tuple[NumaCell, ...], *, shared: bool) -> None:
    numa = add(node, "numa")
    for cell in cells:
        add(
            numa,
            "cell",
            id=cell.id,
            cpus=cpu_list(cell.cpus) or None,
            memory=cell.memory_mib * 1024,
            unit="KiB",
            memAccess="shared" if shared else None,
        )
