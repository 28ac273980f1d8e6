"""What libvirt says that this host and its QEMU can do, parsed once for each connection."""

import dataclasses
import re
from collections.abc import Mapping

from lxml import etree

from kvmdriver import exception
from kvmdriver.hypervisor import xml
from kvmdriver.model import CpuDefinition


@dataclasses.dataclass(frozen=True)
class HostCpu:
    """The host's own CPU as libvirt knows it."""

    architecture: str
    model: str | None
    vendor: str | None
    sockets: int
    cores: int
    threads: int
    features: tuple[str, ...]

    @classmethod
    def parse(cls, node: etree._Element | None, architecture: str) -> "HostCpu":
        topology = node.find("topology") if node is not None else None

        def size(name: str) -> int:
            return int(topology.get(name, "1")) if topology is not None else 1

        return cls(
            architecture=architecture,
            model=node.findtext("model") if node is not None else None,
            vendor=node.findtext("vendor") if node is not None else None,
            sockets=size("sockets"),
            cores=size("cores"),
            threads=size("threads"),
            features=tuple(
                feature.get("name", "")
                for feature in (node.iterfind("feature") if node is not None else ())
            ),
        )


@dataclasses.dataclass(frozen=True)
class HostThread:
    """One logical CPU and its place."""

    id: int
    socket: int
    core: int
    siblings: frozenset[int]


@dataclasses.dataclass(frozen=True)
class HostNumaNode:
    """A NUMA node of the host; memory in KiB, pages as number by size in KiB."""

    id: int
    memory_kib: int
    cpus: tuple[HostThread, ...]
    pages: Mapping[int, int]
    distances: Mapping[int, int]

    @classmethod
    def parse(cls, cell: etree._Element) -> "HostNumaNode":
        return cls(
            id=int(cell.get("id", "0")),
            memory_kib=int(cell.findtext("memory", "0")),
            cpus=tuple(
                HostThread(
                    id=int(cpu.get("id", "0")),
                    socket=int(cpu.get("socket_id", "0")),
                    core=int(cpu.get("core_id", "0")),
                    siblings=frozenset(cpu_set(cpu.get("siblings", cpu.get("id", "0")))),
                )
                for cpu in cell.iterfind("cpus/cpu")
            ),
            pages={
                int(page.get("size", "4")): int(page.text or "0")
                for page in cell.iterfind("pages")
            },
            distances={
                int(sibling.get("id", "0")): int(sibling.get("value", "10"))
                for sibling in cell.iterfind("distances/sibling")
            },
        )


def cpu_set(text: str) -> set[int]:
    """CPUs from libvirt's spelling: 0-3,8."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        found |= set(range(int(low), int(high or low) + 1))
    return found


@dataclasses.dataclass(frozen=True)
class HostCapabilities:
    """From virConnectGetCapabilities (https://libvirt.org/formatcaps.html)."""

    architecture: str
    cpu_model: str | None
    uuid: str
    virt_types: tuple[str, ...]
    machines: Mapping[str, str]
    """Machine types by name; the value is the versioned name that an alias stands for."""
    cpu: "HostCpu"
    numa: tuple["HostNumaNode", ...]
    qemu_group: int | None = None
    """The group of QEMU's processes, where libvirt runs them as another user."""

    @property
    def numa_cpus(self) -> dict[int, tuple[int, ...]]:
        """CPUs of each NUMA node."""
        return {node.id: tuple(cpu.id for cpu in node.cpus) for node in self.numa}

    @classmethod
    def parse(cls, text: str) -> "HostCapabilities":
        root = xml.parse(text)
        architecture = root.findtext("host/cpu/arch", "x86_64")
        virt_types: list[str] = []
        machines: dict[str, str] = {}
        for guest in root.iterfind("guest"):
            arch = guest.find("arch")
            if arch is None or arch.get("name") != architecture:
                continue
            virt_types += [domain.get("type", "") for domain in arch.iterfind("domain")]
            for machine in arch.iterfind(".//machine"):
                name = machine.text or ""
                machines[name] = machine.get("canonical", name)
        return cls(
            architecture=architecture,
            cpu_model=root.findtext("host/cpu/model"),
            uuid=root.findtext("host/uuid", ""),
            virt_types=tuple(dict.fromkeys(virt_types)),
            machines=machines,
            cpu=HostCpu.parse(root.find("host/cpu"), architecture),
            numa=tuple(
                HostNumaNode.parse(cell) for cell in root.iterfind("host/topology/cells/cell")
            ),
            qemu_group=_qemu_group(root),
        )


def _qemu_group(root: etree._Element) -> int | None:
    for model in root.iterfind("host/secmodel"):
        if model.findtext("model") == "dac":
            # +USER:+GROUP, both as numbers
            label = re.fullmatch(r"\+\d+:\+(\d+)", model.findtext("baselabel", ""))
            return int(label[1]) if label else None
    return None


@dataclasses.dataclass(frozen=True)
class DomainCapabilities:
    """From virConnectGetDomainCapabilities (https://libvirt.org/formatdomaincaps.html)."""

    emulator: str
    machine: str
    virt_type: str
    max_vcpus: int
    firmwares: frozenset[str]
    secure_boot: bool
    cpu_modes: frozenset[str]
    cpu_models: Mapping[str, bool]
    """Named CPU models; the value tells whether this host can give it to a guest."""
    video_models: frozenset[str]
    rng: bool
    disk_buses: frozenset[str] = frozenset()
    cpu_vendors: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Vendors of the named CPU models; "unknown" for those of nobody in particular."""
    host_model: CpuDefinition | None = None
    """What mode host-model gives."""

    @classmethod
    def parse(cls, text: str) -> "DomainCapabilities":
        root = xml.parse(text)
        modes = {
            mode.get("name", "")
            for mode in root.iterfind("cpu/mode")
            if mode.get("supported") == "yes"
        }
        models = {
            model.text or "": model.get("usable") != "no"
            for model in root.iterfind("cpu/mode[@name='custom']/model")
        }
        vcpu = root.find("vcpu")
        return cls(
            emulator=root.findtext("path", ""),
            machine=root.findtext("machine", ""),
            virt_type=root.findtext("domain", ""),
            max_vcpus=int(vcpu.get("max", "1")) if vcpu is not None else 1,
            firmwares=frozenset(_enum(root, "os", "firmware")),
            secure_boot="yes" in _enum(root, "os/loader", "secure"),
            cpu_modes=frozenset(modes),
            cpu_models=models,
            video_models=frozenset(_enum(root, "devices/video", "modelType")),
            rng="virtio" in _enum(root, "devices/rng", "model"),
            disk_buses=frozenset(_enum(root, "devices/disk", "bus")),
            cpu_vendors={
                model.text or "": model.get("vendor", "unknown")
                for model in root.iterfind("cpu/mode[@name='custom']/model")
            },
            host_model=_definition(root.find("cpu/mode[@name='host-model']")),
        )


def cpu_definition(node: etree._Element) -> CpuDefinition:
    """Return a CPU from ``<cpu>`` or from a ``<mode>`` of domain capabilities.

    :raises kvmdriver.exception.InvalidRequest: it names no model.
    """
    return CpuDefinition.parse(
        {
            "model": node.findtext("model") or "",
            "vendor": node.findtext("vendor"),
            "features": [
                {
                    "name": feature.get("name", ""),
                    # host capabilities have none: what they list, the host has
                    "policy": "disable"
                    if feature.get("policy") in ("disable", "forbid")
                    else "require",
                }
                for feature in node.iterfind("feature")
            ],
        }
    )


def parse_definition(text: str) -> CpuDefinition:
    """Return a CPU from ``<cpu>``, ``<capabilities>`` or ``<domainCapabilities>``.

    :raises kvmdriver.exception.InvalidRequest: it is none of them.
    """
    try:
        root = xml.parse(text)
    except etree.XMLSyntaxError as error:
        raise exception.InvalidRequest(f"it is not XML: {error}") from None
    found = {
        "cpu": root,
        "capabilities": root.find("host/cpu"),
        "domainCapabilities": root.find("cpu/mode[@name='host-model']"),
    }.get(str(root.tag))
    if found is None or not found.findtext("model"):
        raise exception.InvalidRequest(f"<{root.tag}> has no CPU with a model in it")
    return cpu_definition(found)


def _definition(node: etree._Element | None) -> CpuDefinition | None:
    if node is None or node.findtext("model") is None:
        return None
    return cpu_definition(node)


def _enum(root: etree._Element, where: str, name: str) -> list[str]:
    return [v.text or "" for v in root.iterfind(f"{where}/enum[@name='{name}']/value")]
