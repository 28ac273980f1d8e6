"""What libvirt says that this host and its QEMU can do, parsed once for each connection."""

import dataclasses
from collections.abc import Mapping

from lxml import etree

from kvmdriver.hypervisor import xml


@dataclasses.dataclass(frozen=True)
class HostCapabilities:
    """From virConnectGetCapabilities (https://libvirt.org/formatcaps.html)."""

    architecture: str
    cpu_model: str | None
    uuid: str
    virt_types: tuple[str, ...]
    machines: Mapping[str, str]
    """Machine types by name; the value is the versioned name that an alias stands for."""

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
        )


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
        )


def _enum(root: etree._Element, where: str, name: str) -> list[str]:
    return [v.text or "" for v in root.iterfind(f"{where}/enum[@name='{name}']/value")]
