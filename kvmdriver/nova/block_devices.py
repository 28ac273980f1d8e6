"""Which disks an instance has, with names and buses: nova's block device mapping.

The names and file names are those of Nova's in-tree libvirt driver, so that an instance made by
one driver is the same to the other.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, cast

from nova import block_device
from nova import exception as nova_exception
from nova.objects.image_meta import ImageMeta
from nova.objects.instance import Instance as NovaInstance
from nova.virt import configdrive
from nova.virt import driver as nova_driver
from nova.virt import osinfo as nova_osinfo

from kvmdriver.definition.disks import free_name
from kvmdriver.nova.image_meta import field

BUSES = ("virtio", "scsi", "sata", "ide", "usb", "fdc")


@dataclasses.dataclass(frozen=True)
class Slot:
    """The place of one disk.

    ``file`` is the name of the local file (``disk``, ``disk.eph0``...), None for a volume, whose
    mapping is ``volume``. Sizes in MiB.
    """

    name: str
    bus: str
    device: str = "disk"
    file: str | None = None
    size_mib: int | None = None
    file_system: str | None = None
    volume: Any = None
    boot_order: int | None = None
    tag: str | None = None

    @property
    def mountpoint(self) -> str:
        return f"/dev/{self.name}"


def bus_of(wanted: str | None, image_meta: ImageMeta, device: str, machine: str) -> str:
    """Return the bus of a device: as asked for, else by the image, its system, the machine.

    :raises nova.exception.UnsupportedHardware: there is no such bus.
    """
    properties = image_meta.properties
    if wanted is None:
        if device == "cdrom":
            wanted = properties.get("hw_cdrom_bus") or ("sata" if "q35" in machine else "ide")
        elif device == "floppy":
            wanted = "fdc"
        else:
            wanted = nova_osinfo.HardwareProperties(image_meta).disk_model or "virtio"
    if wanted not in BUSES:
        raise nova_exception.UnsupportedHardware(model=wanted, virt="qemu")
    return cast(str, wanted)


_BUS_OF_PREFIX = {"vd": "virtio", "hd": "ide", "sd": "scsi", "fd": "fdc"}


def bus_of_name(name: str) -> str | None:
    """Return the bus that a target name stands for: libvirt derives a device's place from its name."""
    return _BUS_OF_PREFIX.get(name[:2])


def bare(name: str | None) -> str | None:
    """Return vda for /dev/vda."""
    return block_device.strip_dev(name) if name else None


class Namer:
    """Gives out target names, each once."""

    def __init__(self, taken: Iterable[str | None] = ()):
        self.taken = {name for name in taken if name}

    def take(self, bus: str, wanted: str | None = None, *, last: bool = False) -> str:
        name = wanted
        if name is None or name in self.taken:
            try:
                name = free_name(bus, self.taken, last=last)
            except ValueError as error:
                raise nova_exception.TooManyDiskDevices(maximum=26) from error
        self.taken.add(name)
        return name


def root_device_name(image_meta: ImageMeta, bdm: Any, machine: str) -> str:
    """Return the device name of the root disk, e.g. /dev/vda."""
    device = _root_device(image_meta, bdm)
    wanted = (bdm.disk_bus if bdm is not None else None) or None
    return "/dev/" + free_name(bus_of(wanted, image_meta, device, machine), set())


def _root_device(image_meta: ImageMeta, bdm: Any) -> str:
    if bdm is not None and bdm.device_type:
        return cast(str, bdm.device_type)
    return "cdrom" if field(image_meta, "disk_format") == "iso" else "disk"


def plan(
    instance: NovaInstance,
    image_meta: ImageMeta,
    block_device_info: dict[str, Any] | None,
    machine: str,
) -> list[Slot]:
    """Return all disks of an instance, the root disk first, the config drive last."""
    info = block_device_info or {}
    ephemerals = nova_driver.block_device_info_get_ephemerals(info)
    swap = nova_driver.block_device_info_get_swap(info)
    if not nova_driver.swap_is_usable(swap):
        swap = None
    volumes = nova_driver.block_device_info_get_mapping(info)
    root_name = bare(info.get("root_device_name") or instance.root_device_name)
    namer = Namer(
        [
            *(bare(entry["device_name"]) for entry in ephemerals),
            *(bare(entry["mount_device"]) for entry in volumes),
            bare(swap.get("device_name")) if swap else None,
        ]
    )
    slots = [_root(instance, image_meta, info, volumes, root_name, namer, machine)]
    flavor = instance.flavor
    if not ephemerals and flavor.ephemeral_gb > 0:
        bus = bus_of(None, image_meta, "disk", machine)
        slots.append(
            Slot(
                name=namer.take(bus),
                bus=bus,
                file="disk.local",
                size_mib=flavor.ephemeral_gb * 1024,
                file_system=None,
            )
        )
    for position, entry in enumerate(ephemerals):
        bus = bus_of(entry.get("disk_bus"), image_meta, "disk", machine)
        slots.append(
            Slot(
                name=bare(entry["device_name"]) or namer.take(bus),
                bus=bus,
                file=f"disk.eph{position}",
                size_mib=entry["size"] * 1024,
                file_system=entry.get("guest_format"),
            )
        )
    swap_mib = swap["swap_size"] if swap else flavor.swap
    if swap_mib > 0:
        bus = bus_of(swap.get("disk_bus") if swap else None, image_meta, "disk", machine)
        slots.append(
            Slot(
                name=(bare(swap["device_name"]) if swap else None) or namer.take(bus),
                bus=bus,
                file="disk.swap",
                size_mib=swap_mib,
                file_system="swap",
            )
        )
    root = slots[0]
    slots += [
        volume_slot(entry, image_meta, namer, machine)
        for entry in volumes
        if bare(entry["mount_device"]) != root.name or root.volume is None
    ]
    if configdrive.required_by(instance):
        slots.append(_config_drive(image_meta, namer, machine))
    return slots


def _root(
    instance: NovaInstance,
    image_meta: ImageMeta,
    info: dict[str, Any],
    volumes: list[Any],
    root_name: str | None,
    namer: Namer,
    machine: str,
) -> Slot:
    for entry in volumes:
        first = entry.get("boot_index") == 0
        if first or (root_name and bare(entry["mount_device"]) == root_name):
            return dataclasses.replace(
                volume_slot(entry, image_meta, namer, machine), boot_order=1
            )
    images = nova_driver.block_device_info_get_image(info) if info.get("image") else []
    bdm = images[0] if images else {}
    device = bdm.get("device_type") or _root_device(image_meta, None)
    bus = bus_of(bdm.get("disk_bus"), image_meta, device, machine)
    return Slot(
        name=namer.take(bus, root_name),
        bus=bus,
        device=device,
        file="disk",
        size_mib=instance.flavor.root_gb * 1024 or None,
        boot_order=1,
    )


def volume_slot(entry: Any, image_meta: ImageMeta, namer: Namer, machine: str) -> Slot:
    """Return the place of a volume from its driver block device mapping."""
    device = entry.get("device_type") or "disk"
    name = bare(entry["mount_device"])
    wanted = entry.get("disk_bus") or (bus_of_name(name) if name else None)
    bus = bus_of(wanted, image_meta, device, machine)
    index = entry.get("boot_index")
    return Slot(
        name=name or namer.take(bus),
        bus=bus,
        device=device,
        volume=entry,
        boot_order=index + 1 if index is not None and index >= 0 else None,
    )


def _config_drive(image_meta: ImageMeta, namer: Namer, machine: str) -> Slot:
    from nova.conf import CONF

    device = "disk" if CONF.config_drive_format == "vfat" else "cdrom"
    bus = bus_of(None, image_meta, device, machine)
    # at the far end of its bus, out of the way of what is attached later
    return Slot(name=namer.take(bus, last=True), bus=bus, device=device, file="disk.config")


def rescue_plan(
    slots: list[Slot], image_meta: ImageMeta, rescue_meta: ImageMeta, machine: str
) -> list[Slot]:
    """Return the disks of an instance while it is rescued.

    With ``hw_rescue_device`` or ``hw_rescue_bus`` on the rescue image all of the instance's own
    devices stay where they are and the rescue disk comes last (stable device rescue). Otherwise
    the rescue disk takes the first place and the instance's root disk the second.
    """
    properties = rescue_meta.properties
    device = properties.get("hw_rescue_device")
    bus = properties.get("hw_rescue_bus")
    if device or bus:
        device = device or "disk"
        bus = bus_of(bus, image_meta, device, machine)
        namer = Namer(slot.name for slot in slots)
        own = [dataclasses.replace(slot, boot_order=None) for slot in slots]
        rescue = Slot(
            name=namer.take(bus), bus=bus, device=device, file="disk.rescue", boot_order=1
        )
        return [*own, rescue]
    device = "cdrom" if field(rescue_meta, "disk_format") == "iso" else "disk"
    bus = bus_of(None, image_meta, device, machine)
    namer = Namer()
    rescue = Slot(name=namer.take(bus), bus=bus, device=device, file="disk.rescue", boot_order=1)
    root = slots[0]
    kept = [rescue, dataclasses.replace(root, name=namer.take(root.bus), boot_order=None)]
    for slot in slots:
        if slot.file == "disk.config":
            kept.append(
                dataclasses.replace(
                    slot, name=namer.take(slot.bus, last=True), file="disk.config.rescue"
                )
            )
    return kept


def is_stable_rescue(rescue_meta: ImageMeta) -> bool:
    properties = rescue_meta.properties
    return bool(properties.get("hw_rescue_device") or properties.get("hw_rescue_bus"))


def assign_default_names(
    instance: NovaInstance,
    image_meta: ImageMeta,
    root_name: str,
    machine: str,
    *lists: Iterable[Any],
) -> None:
    """Give every mapping a bus, a device type and a name, and save it."""
    namer = Namer([bare(root_name)])
    bdms = [bdm for entries in lists for bdm in entries or ()]
    namer.taken |= {bare(bdm.device_name) or "" for bdm in bdms}
    for bdm in bdms:
        if bdm.device_name and bdm.disk_bus and bdm.device_type:
            continue
        bdm.device_type = bdm.device_type or "disk"
        bdm.disk_bus = bdm.disk_bus or bus_of(None, image_meta, bdm.device_type, machine)
        if not bdm.device_name:
            bdm.device_name = "/dev/" + namer.take(bdm.disk_bus)
        bdm.save()
