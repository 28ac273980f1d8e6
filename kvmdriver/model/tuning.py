"""What Nova decides for an instance: placement, limits, identity.

Nova's scheduler pins CPUs, chooses NUMA nodes and page sizes, and its flavors carry limits. None
of it is taken from a request to the agent.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kvmdriver.model.base import Model, Path, ShortText

CpuSet = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=4096)]


class NumaCell(Model):
    """A NUMA node of the guest and where it lies on the host; memory in MiB, pages in KiB."""

    id: int = Field(ge=0)
    cpus: CpuSet
    memory_mib: int = Field(ge=1)
    host_node: int | None = Field(None, ge=0)
    page_kib: int | None = Field(None, ge=1)


class CpuTune(Model):
    """cgroup limits and pins of vCPUs (https://libvirt.org/formatdomain.html#cpu-tuning).

    ``pins`` has a set of host CPUs for each vCPU; periods and quotas are in microseconds.
    """

    shares: int | None = None
    period: int | None = None
    quota: int | None = None
    pins: tuple[CpuSet, ...] = Field((), max_length=4096)
    emulator: CpuSet = ()
    realtime: CpuSet = ()
    realtime_priority: int = 1


class MemoryTune(Model):
    """cgroup limits of memory in KiB (https://libvirt.org/formatdomain.html#memory-tuning)."""

    hard_limit_kib: int | None = None
    soft_limit_kib: int | None = None
    swap_hard_limit_kib: int | None = None
    min_guarantee_kib: int | None = None


class SystemInfo(Model):
    """What the guest reads from its SMBIOS tables."""

    manufacturer: ShortText
    product: ShortText
    version: ShortText
    serial: ShortText | None = None
    uuid: ShortText
    family: ShortText = "Virtual Machine"


class Rng(Model):
    """Limit of the random number generator: ``bytes`` in each ``period`` of milliseconds."""

    bytes: int = Field(ge=1)
    period: int = Field(1000, ge=1)


class Tuning(Model):
    """All of it together. Empty fields leave libvirt's defaults."""

    cells: tuple[NumaCell, ...] = Field((), max_length=4096)
    cpuset: CpuSet = ()
    cpu: CpuTune = CpuTune()
    memory: MemoryTune = MemoryTune()
    block_weight: int | None = None
    locked_memory: bool = False
    shared_memory: bool = False
    file_backed_memory: bool = False
    discard_memory: bool = False
    vmcoreinfo: bool = False
    system: SystemInfo | None = None
    rng_limit: Rng | None = None
    rng_device: Path | None = None
    video_ram_kib: int | None = None
    memory_stats_seconds: int | None = Field(None, ge=0)
    pcie_ports: int | None = Field(None, ge=1)
    scsi_model: ShortText | None = None
    usb_model: ShortText | None = None
    pointer: Literal["tablet", "mouse", "none"] = "tablet"
    boot_menu: bool = False
    iothreads: int = 0

    @model_validator(mode="after")
    def _cells_are_numbered(self) -> Self:
        if [cell.id for cell in self.cells] != list(range(len(self.cells))):
            raise ValueError("cells must be numbered from 0")
        return self
