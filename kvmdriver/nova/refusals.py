"""What this driver does not carry out: flavors, images, volumes, devices and shares.

A request is carried out or refused by name; it is never ignored. This module decides and looks at
plain values only. ``kvmdriver.nova.demands`` collects them from nova's objects, and each operation
that brings a guest to life calls it before the operation connects or changes anything.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kvmdriver import exception

_SPECS = (
    "hw:mem_encryption",
    "hw:mem_encryption_model",
    "hw:tpm_model",
    "hw:tpm_version",
    "hw:viommu_model",
    "hw:pmem",
    "hw:ephemeral_encryption",
    "hw:ephemeral_encryption_format",
    "hw:sound_model",
    "hw:redirected_usb_ports",
    "accel:device_profile",
    "pci_passthrough:alias",
)
_CLASSES = ("VGPU", "PGPU", "MEM_ENCRYPTION_CONTEXT")
_CLASS_PREFIXES = ("CUSTOM_PMEM",)
# resources:CLASS and resources<group>:CLASS (nova.scheduler.utils.ResourceRequest)
_RESOURCES = re.compile(r"resources[A-Za-z0-9_-]*:(?P<resource_class>.+)")

_PROPERTIES = (
    "hw_mem_encryption",
    "hw_mem_encryption_model",
    "hw_tpm_model",
    "hw_tpm_version",
    "hw_viommu_model",
    "hw_emulation_architecture",
    "hw_ephemeral_encryption",
    "hw_ephemeral_encryption_format",
    "hw_sound_model",
    "hw_redirected_usb_ports",
    "hw_firmware_stateless",
)

_X86_64 = ("x86_64", "amd64", None)

# QEMU has no read-only IDE and SATA disks; USB and passed-through SCSI devices are untried.
_READ_ONLY_BUSES = ("virtio", "scsi")

_ELSEWHERE = "use a host with nova's own libvirt driver"


@dataclasses.dataclass(frozen=True)
class VolumeDemand:
    """A volume that a server is to have.

    ``access_mode`` is Cinder's: ``rw``, ``ro``, or None for what Cinder does not say.
    ``decrypted`` says that the definition to be started has QEMU decrypt the volume.
    """

    id: str
    name: str
    device: str = "disk"
    bus: str = "virtio"
    encrypted: bool = False
    decrypted: bool = False
    access_mode: str | None = None
    multiattach: bool = False

    @property
    def read_only(self) -> bool:
        return self.access_mode == "ro"


@dataclasses.dataclass(frozen=True)
class Demand:
    """Everything that a server asks of its host.

    ``resource_classes`` are those that placement has allocated for the server, ``mdev_classes``
    those that [devices] and [mdev_*] of nova.conf use for mediated devices. ``pci_aliases`` are
    the devices asked for by alias; devices of ports are no part of it. ``passthrough_ports`` are
    ports with a device of the host, filled in for a live migration only.
    """

    specs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    properties: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    volumes: tuple[VolumeDemand, ...] = ()
    resource_classes: tuple[str, ...] = ()
    mdev_classes: tuple[str, ...] = ()
    pci_aliases: tuple[str, ...] = ()
    accelerators: tuple[str, ...] = ()
    shares: tuple[str, ...] = ()
    passthrough_ports: tuple[str, ...] = ()


def check(demand: Demand) -> None:
    """Refuse a demand with the first reason against it.

    :raises kvmdriver.exception.Unsupported: the demand asks for what this driver does not have.
    """
    for problem in problems(demand):
        raise problem


def problems(demand: Demand) -> Iterator[exception.Unsupported]:
    """Every reason against a demand."""
    yield from _of_specs(demand)
    yield from _of_properties(demand.properties)
    for volume in demand.volumes:
        yield from _of_volume(volume)
    for resource_class in sorted(set(demand.resource_classes)):
        if _is_refused_class(resource_class, demand.mdev_classes):
            yield exception.Unsupported(
                f"kvmdriver gives guests no device of the resource class {resource_class}, which "
                "placement has allocated for the server",
                field="allocations",
                value=resource_class,
                remedy=f"remove the class from the flavor, or {_ELSEWHERE}",
            )
    for kind, names, remedy in (
        ("PCI device by alias", demand.pci_aliases, "remove pci_passthrough:alias"),
        ("accelerator", demand.accelerators, "remove the device profile"),
        ("share", demand.shares, "detach the share from the stopped server"),
        ("port with a device of the host in a live migration", demand.passthrough_ports,
         "migrate the server cold, or detach the port first"),
    ):  # fmt: skip
        for name in names:
            yield exception.Unsupported(
                f"kvmdriver does not support a {kind}: {name}",
                field=kind.split()[0].lower(),
                value=name,
                remedy=f"{remedy}, or {_ELSEWHERE}",
            )


def second_server(volume_id: str, other: str) -> exception.Unsupported:
    """Return the refusal of a volume that another server of this host has."""
    return exception.Unsupported(
        f"the multiattach volume {volume_id} is in use by server {other} on this host, and "
        "kvmdriver gives a volume to one server of a host only",
        field="volume",
        value=volume_id,
        remedy="attach the volume to a server on another host, or detach it from the first one",
    )


def assisted_snapshot(verb: str, volume_id: str, server: str) -> exception.Unsupported:
    """Return the refusal to make or remove a snapshot that Cinder needs the hypervisor for."""
    return exception.Unsupported(
        f"kvmdriver does not {verb} snapshots of the volume {volume_id}, a file that QEMU has open",
        field="volume",
        value=volume_id,
        remedy=f"detach the volume, then {verb} the snapshot",
        instance=server,
    )


def of_suspend(devices: Sequence[str]) -> None:
    """Refuse to suspend a guest with devices of the host: QEMU cannot save their state.

    :param devices: what the guest has of the host, by address or path.
    :raises kvmdriver.exception.Unsupported: there is one.
    """
    if devices:
        raise exception.Unsupported(
            f"the guest has a device of the host, whose state cannot be saved: {devices[0]}",
            field="device",
            value=devices[0],
            remedy="stop the server instead, or detach its port first",
        )


def _of_specs(demand: Demand) -> Iterator[exception.Unsupported]:
    for name, value in sorted(demand.specs.items()):
        resource = _RESOURCES.fullmatch(name)
        wanted = name in _SPECS or (
            resource is not None
            and _is_refused_class(resource["resource_class"], demand.mdev_classes)
        )
        if wanted and not _is_off(value):
            yield _refusal("flavor extra spec", name, value)


def _of_properties(properties: Mapping[str, Any]) -> Iterator[exception.Unsupported]:
    for name in _PROPERTIES:
        value = properties.get(name)
        if value is not None and not _is_off(value):
            yield _refusal("image property", name, value)
    architecture = properties.get("hw_architecture")
    if architecture not in _X86_64:
        yield _refusal("image property", "hw_architecture", architecture)
    vm_mode = properties.get("hw_vm_mode")
    if vm_mode not in (None, "hvm"):
        yield _refusal("image property", "hw_vm_mode", vm_mode)


def _of_volume(volume: VolumeDemand) -> Iterator[exception.Unsupported]:
    if volume.encrypted and not volume.decrypted:
        yield exception.Unsupported(
            f"the volume {volume.id} ({volume.name}) is encrypted, and kvmdriver does not decrypt "
            "volumes: the guest would get the ciphertext as its disk",
            field="volume",
            value=volume.id,
            remedy="detach the volume, or shelve the server and unshelve it on a host with nova's "
            "own libvirt driver",
        )
    if volume.access_mode not in (None, "", "ro", "rw"):
        yield exception.Unsupported(
            f"the volume {volume.id} ({volume.name}) has an access mode that kvmdriver does not "
            "know",
            field="access_mode",
            value=volume.access_mode,
            remedy="use ro or rw",
        )
    writable_only = volume.device == "lun" or (
        volume.device == "disk" and volume.bus not in _READ_ONLY_BUSES
    )
    if volume.read_only and writable_only:
        yield exception.Unsupported(
            f"the volume {volume.id} ({volume.name}) is read-only, which QEMU does not do for a "
            f"{volume.device} on bus {volume.bus}",
            field="access_mode",
            value="ro",
            remedy=f"attach the volume as a disk on bus {' or '.join(_READ_ONLY_BUSES)}, or make "
            "it writable: openstack volume set --read-write VOLUME",
        )


def _is_refused_class(name: str, mdev_classes: tuple[str, ...]) -> bool:
    return name in _CLASSES or name in mdev_classes or name.startswith(_CLASS_PREFIXES)


def _is_off(value: object) -> bool:
    return str(value).lower() in ("false", "no", "0", "off", "")


def _refusal(kind: str, name: str, value: object) -> exception.Unsupported:
    return exception.Unsupported(
        f"kvmdriver does not support the {kind} {name}={value}",
        field=name,
        value=value,
        remedy=f"remove it, or {_ELSEWHERE}",
    )
