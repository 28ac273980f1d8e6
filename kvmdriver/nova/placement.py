"""Where an instance runs on the host and how much of it it may use: pins, NUMA, pages, quotas.

The choice itself is nova's (nova.virt.hardware, in its scheduler and resource tracker); it comes
as ``instance.numa_topology``. See https://docs.openstack.org/nova/latest/admin/cpu-topologies.html.
"""

from typing import Any

from nova import exception as nova_exception
from nova.objects.image_meta import ImageMeta
from nova.objects.instance import Instance as NovaInstance
from nova.virt import hardware

from kvmdriver.model import CpuTune, IoLimits, MemoryTune, NumaCell, Tuning
from kvmdriver.nova.node import Node

_CPU_QUOTAS = ("cpu_shares", "cpu_period", "cpu_quota")


def tuning(
    node: Node, instance: NovaInstance, image_meta: ImageMeta, topology: Any = None
) -> Tuning:
    """Placement and limits of an instance on this host.

    :param topology: nova's choice, where it is another one than the instance's own.
    """
    flavor = instance.flavor
    specs = dict(flavor.extra_specs) if "extra_specs" in flavor else {}
    topology = topology or instance.numa_topology
    quotas = {
        name[4:]: int(specs[f"quota:{name}"]) for name in _CPU_QUOTAS if f"quota:{name}" in specs
    }
    shared = sorted(hardware.get_cpu_shared_set() or ())
    cells: tuple[NumaCell, ...] = ()
    pins: tuple[tuple[int, ...], ...] = ()
    emulator: tuple[int, ...] = ()
    realtime: tuple[int, ...] = ()
    if topology is not None and topology.cells:
        cells = tuple(_cell(position, cell) for position, cell in enumerate(topology.cells))
        pins = _pins(node, topology, flavor.vcpus, shared)
        emulator = _emulator(topology, pins)
        if hardware.is_realtime_enabled(flavor):
            mask = hardware.get_realtime_cpu_constraint(flavor, image_meta)
            realtime = tuple(sorted(mask or range(flavor.vcpus)))
            emulator = _emulator_of_realtime(pins, realtime) or emulator
    return Tuning(
        cells=cells,
        cpuset=tuple(shared) if topology is None else (),
        cpu=CpuTune(
            **quotas,
            pins=pins,
            emulator=emulator,
            realtime=realtime,
            realtime_priority=node.conf.libvirt.realtime_scheduler_priority,
        ),
        memory=MemoryTune(
            hard_limit_kib=_mib(specs, "quota:memory_limit"),
            soft_limit_kib=_mib(specs, "quota:memory_reservation"),
        ),
        locked_memory=bool(hardware.get_locked_memory_constraint(flavor, image_meta)),
        shared_memory=_needs_shared_memory(topology),
        file_backed_memory=bool(node.conf.libvirt.file_backed_memory),
        discard_memory=bool(node.conf.libvirt.file_backed_memory),
    )


def _mib(specs: dict[str, str], name: str) -> int | None:
    return int(specs[name]) * 1024 if name in specs else None


def _cell(position: int, cell: Any) -> NumaCell:
    return NumaCell(
        id=position,
        cpus=tuple(sorted(cell.total_cpus)),
        memory_mib=cell.memory,
        host_node=cell.id if cell.id >= 0 else None,
        page_kib=cell.pagesize if cell.pagesize and cell.pagesize > 4 else None,
    )


def _pins(node: Node, topology: Any, vcpus: int, shared: list[int]) -> tuple[tuple[int, ...], ...]:
    pins: list[tuple[int, ...]] = [() for _ in range(vcpus)]
    cpus_of_node = node.hypervisor.host_capabilities().numa_cpus
    for cell in topology.cells:
        for vcpu, cpu in (cell.cpu_pinning or {}).items():
            pins[vcpu] = (cpu,)
        floating = set(cpus_of_node.get(cell.id, ())) & set(
            shared or cpus_of_node.get(cell.id, ())
        )
        for vcpu in cell.cpuset:
            if not pins[vcpu]:
                pins[vcpu] = tuple(sorted(floating))
    return tuple(pins)


def _emulator(topology: Any, pins: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    policy = (
        topology.emulator_threads_policy
        if topology.obj_attr_is_set("emulator_threads_policy")
        else None
    )
    if policy == "isolate":
        reserved = [cpu for cell in topology.cells for cpu in cell.cpuset_reserved or ()]
        if reserved:
            return tuple(sorted(reserved))
    if policy == "share":
        shared = hardware.get_cpu_shared_set()
        if shared:
            return tuple(sorted(shared))
    return tuple(sorted({cpu for pin in pins for cpu in pin}))


def _emulator_of_realtime(
    pins: tuple[tuple[int, ...], ...], realtime: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the CPUs of the emulator, which stays off those of realtime vCPUs."""
    return tuple(
        sorted({cpu for vcpu, pin in enumerate(pins) if vcpu not in realtime for cpu in pin})
    )


def _needs_shared_memory(topology: Any) -> bool:
    """Return whether vhost-user switches need the guest's memory shared: they map its hugepages."""
    return bool(topology and any(cell.pagesize and cell.pagesize > 4 for cell in topology.cells))


_DISK_QUOTAS = tuple(
    f"{kind}_{unit}_sec{suffix}"
    for kind in ("read", "write", "total")
    for unit in ("bytes", "iops")
    for suffix in ("", "_max")
)


def disk_limits(flavor: Any) -> IoLimits | None:
    """quota:disk_* of a flavor; they hold for each of its local disks.

    :raises nova.exception.Invalid: total and read/write limits of one kind together.
    """
    specs = dict(flavor.extra_specs) if "extra_specs" in flavor else {}
    values = {
        name: int(specs[f"quota:disk_{name}"])
        for name in _DISK_QUOTAS
        if int(specs.get(f"quota:disk_{name}", 0))
    }
    if not values:
        return None
    try:
        return IoLimits(**values)
    except ValueError as error:
        raise nova_exception.Invalid(f"flavor extra specs quota:disk_*: {error}") from error
