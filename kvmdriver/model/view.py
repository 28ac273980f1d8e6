"""What the driver answers: instances, the host and progress, as others see them."""

from typing import Any, Literal

from kvmdriver.model.base import Model

Status = Literal[
    "building", "running", "paused", "suspended", "stopped", "crashed", "shutting-down", "deleting",
    "blocked",
]  # fmt: skip


class Address(Model):
    """An address of an instance and how it became known: a DHCP lease, the guest agent or ARP."""

    mac: str
    ip: str
    source: Literal["lease", "agent", "arp", "static"]


class DiskView(Model):
    """A disk as the hypervisor has it; sizes in MiB."""

    name: str
    device: str
    bus: str
    path: str | None
    format: str | None
    size_mib: int | None


class NicView(Model):
    """An interface as the hypervisor has it."""

    mac: str
    type: str
    source: str | None
    model: str | None
    tap: str | None


class InstanceView(Model):
    """An instance as list and show give it; memory in MiB.

    ``unresponsive``: its QEMU owes libvirt an answer. ``unknown``: what only the guest could have
    told, and did not, e.g. ``disks.vda.size_mib`` or ``addresses``.
    """

    uuid: str
    name: str
    status: Status
    task: str | None = None
    memory_mib: int
    memory_maximum_mib: int
    vcpus: int
    vcpus_maximum: int
    autostart: bool = False
    addresses: tuple[Address, ...] = ()
    disks: tuple[DiskView, ...] = ()
    nics: tuple[NicView, ...] = ()
    os_variant: str | None = None
    virt_type: str | None = None
    machine: str | None = None
    firmware: str | None = None
    cpu_mode: str | None = None
    host: str | None = None
    warnings: tuple[str, ...] = ()
    unresponsive: bool = False
    unknown: tuple[str, ...] = ()


class ProgressView(Model):
    """How far a long operation is. ``total`` None: not known."""

    request_id: str
    stage: str
    done: int
    total: int | None
    unit: Literal["bytes", "percent", "steps"] = "bytes"
    finished: bool = False


class Diagnostics(Model):
    """Counters of a running instance: times in ns, memory in KiB, traffic in bytes."""

    state: str
    driver: str = "libvirt"
    cpus: tuple[dict[str, Any], ...]
    memory: dict[str, int]
    disks: tuple[dict[str, Any], ...]
    nics: tuple[dict[str, Any], ...]


class HostView(Model):
    """The host: what it has and what is in use; memory and disk in MiB."""

    host: str
    uri: str
    connected: bool
    hypervisor: str
    hypervisor_version: str
    libvirt_version: str
    architecture: str
    cpu_model: str | None
    cpus: int
    memory_mib: int
    memory_free_mib: int
    disk_mib: int
    disk_free_mib: int
    virt_types: tuple[str, ...]
    instances: int
    instances_running: int
    vcpus_used: int
    memory_used_mib: int
    networks: tuple[str, ...]
    instances_path: str
    orphans: tuple[str, ...] = ()


class CachedImageView(Model):
    """A file of the image cache: sizes in MiB, as a guest sees it and on disk; time in UTC."""

    name: str
    size_mib: int
    disk_mib: int
    last_used: str
    used_by: tuple[str, ...] = ()


class OsView(Model):
    """An operating system that libosinfo knows."""

    short_id: str
    name: str
    version: str | None
    family: str | None
    released: str | None
    end_of_life: str | None


class CpuModelView(Model):
    """A named CPU model on one host; ``missing`` says why it cannot be used."""

    name: str
    vendor: str
    usable: bool
    missing: tuple[str, ...] = ()


class NestedView(Model):
    """Nested virtualization on a host: the CPU, KVM's module and its parameters as they are."""

    vendor: str | None
    cpu_flag: bool
    module: str | None
    loaded: bool
    nested: bool | None
    parameters: dict[str, str] = {}
    configured: str | None = None
    kernel: str


class CpuView(Model):
    """What guests can have as their CPU on a host.

    ``definition`` is the XML of mode host-model, ``flags`` all that a guest can have, ``default``
    those of a guest that asks for nothing.
    """

    host: str
    virt_type: str
    machine: str
    vendor: str | None
    host_cpu: str | None
    modes: tuple[str, ...]
    model: str | None
    definition: str | None
    flags: tuple[str, ...]
    default: tuple[str, ...]
    host_only: tuple[str, ...]
    security_missing: tuple[str, ...]
    nested_policy: str
    nested_flag: str | None
    nested_granted: bool
    models: tuple[CpuModelView, ...]


class CpuComparison(Model):
    """A CPU beside what a host can give."""

    host: str
    result: Literal["identical", "superset", "incompatible"]
    missing: tuple[str, ...] = ()


class GuestCpu(Model):
    """The CPU of a running guest, as XML, with what kind of guest it is."""

    instance: str
    virt_type: str
    machine: str
    definition: str


class CheckView(Model):
    """One line of the host check; ``remedy`` is a command where there is one."""

    name: str
    result: Literal["pass", "warn", "fail"]
    found: str
    remedy: str = ""
