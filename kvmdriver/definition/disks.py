"""Disks and CD drives (https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms)."""

from lxml import etree

from kvmdriver.definition.platform import Platform
from kvmdriver.definition.tuning import tuning_of
from kvmdriver.definition.xml import add, element
from kvmdriver.model import Disk, Instance, Volume


def build_disks(devices: etree._Element, instance: Instance, platform: Platform) -> None:
    controllers = {scsi_controller(disk) for disk in all_disks(instance, platform)}
    for index in sorted(index for index in controllers if index is not None):
        devices.append(scsi_controller_element(index, tuning_of(instance).scsi_model))
    # A blank disk is passed over by the firmware, so disks go before CD drives: an installer
    # starts as long as nothing is installed.
    bootable = [disk for disk in instance.disks if disk.device == "disk"]
    bootable += [disk for disk in instance.disks if disk.device == "cdrom" and disk.file]
    direct = instance.boot.kernel is not None
    for disk in instance.disks:
        order = bootable.index(disk) + 1 if disk in bootable and not direct else None
        if instance.tuning is not None:
            order = disk.boot_order  # Nova has decided the order of boot, too
        devices.append(disk_element(disk, boot_order=order))
    if instance.config_drive is not None:
        devices.append(disk_element(config_drive_disk(instance, platform)))


def all_disks(instance: Instance, platform: Platform) -> tuple[Disk, ...]:
    """Return the instance's disks and, where it has one, its config drive."""
    if instance.config_drive is None:
        return instance.disks
    return (*instance.disks, config_drive_disk(instance, platform))


# libvirt derives the place of a SCSI disk from its name, seven to a controller
# (virDomainDiskDefAssignAddress). A controller that is missing it would add as model lsilogic.
_DISKS_PER_SCSI_CONTROLLER = 7


def scsi_controller(disk: Disk) -> int | None:
    """Index of the SCSI controller that a disk sits on; None for other buses."""
    if disk.bus != "scsi" or disk.name is None:
        return None
    number = 0
    for letter in disk.name[2:]:
        number = number * 26 + ord(letter) - ord("a") + 1
    return (number - 1) // _DISKS_PER_SCSI_CONTROLLER


def scsi_controller_element(index: int, model: str | None = None) -> etree._Element:
    return element("controller", type="scsi", index=index, model=model or "virtio-scsi")


_PREFIX = {"virtio": "vd", "scsi": "sd", "sata": "sd", "usb": "sd", "ide": "hd", "fdc": "fd"}


# The places of the first controller: IDE has two channels of two drives, ICH9 six SATA ports.
_FIRST_CONTROLLER = {"ide": 4, "sata": 6, "scsi": _DISKS_PER_SCSI_CONTROLLER, "fdc": 2}


def free_name(bus: str, taken: set[str], *, last: bool = False) -> str:
    """Return a target name on ``bus`` that is not in ``taken``, or the last one of the first controller.

    :raises ValueError: all are taken.
    """
    count = _FIRST_CONTROLLER.get(bus, 26) if last or bus != "scsi" else 26
    letters = "abcdefghijklmnopqrstuvwxyz"[:count]
    for letter in reversed(letters) if last else letters:
        if _PREFIX[bus] + letter not in taken:
            return _PREFIX[bus] + letter
    raise ValueError(f"no place is left on bus {bus}")


def cdrom_bus(instance: Instance) -> str:
    """Bus of CD drives that have none: that of the first CD drive, or what the machine has."""
    for disk in instance.disks:
        if disk.device == "cdrom" and disk.bus:
            return disk.bus
    return "sata" if "q35" in (instance.machine or "") else "ide"


def config_drive_disk(instance: Instance, platform: Platform) -> Disk:
    """Return the config drive as a CD, at the far end of its bus, out of the way of other disks."""
    bus = instance.config_drive_bus or cdrom_bus(instance)
    taken = {disk.name for disk in instance.disks if disk.name}
    return Disk.model_validate(
        {
            "name": free_name(bus, taken, last=True),
            "device": "cdrom",
            "bus": bus,
            "file": {"path": platform.layout.config_drive, "format": "raw"},
        }
    )


def disk_element(disk: Disk, *, boot_order: int | None = None) -> etree._Element:
    """One ``<disk>``; the format is always named, since QEMU must never probe a guest's file."""
    volume = disk.volume
    node = element("disk", type=volume.type if volume else "file", device=disk.device)
    disk_format = disk.file.format if disk.file else volume.format if volume else "raw"
    add(
        node,
        "driver",
        name="qemu",
        type=disk_format,
        cache=disk.cache,
        io=disk.io,
        discard="unmap" if disk.discard else None,
        iothread=disk.iothread,
    )
    if disk.file is not None:
        add(node, "source", file=disk.file.path)
    elif volume is not None:
        _add_volume(node, volume)
    add(node, "target", dev=disk.name, bus=disk.bus)
    if disk.device == "cdrom" or (volume is not None and volume.read_only):
        add(node, "readonly")
    if volume is not None and volume.shareable:
        add(node, "shareable")
    if volume is not None and (volume.physical_block_size or volume.logical_block_size):
        add(
            node,
            "blockio",
            logical_block_size=volume.logical_block_size,
            physical_block_size=volume.physical_block_size,
        )
    if disk.limits is not None:
        limits = disk.limits.model_dump(exclude_none=True)
        if limits:
            iotune = add(node, "iotune")
            for name, value in limits.items():
                add(iotune, name, value)
    if disk.serial:
        add(node, "serial", disk.serial)
    if volume is not None and volume.wwn:
        add(node, "wwn", volume.wwn)
    if boot_order is not None:
        add(node, "boot", order=boot_order)
    return node


def _add_volume(node: etree._Element, volume: Volume) -> None:
    if volume.type == "network":
        source = add(node, "source", protocol=volume.protocol, name=volume.path)
        for host in volume.hosts:
            add(source, "host", name=host.name, port=host.port)
        if volume.auth_secret:
            auth = add(source, "auth", username=volume.user)
            kind = "ceph" if volume.protocol == "rbd" else "iscsi"
            add(auth, "secret", type=kind, uuid=volume.auth_secret)
    else:
        attribute = "dev" if volume.type == "block" else "file"
        source = add(node, "source", **{attribute: volume.path})
    if volume.encryption_secret:
        encryption = add(source, "encryption", format="luks")
        add(encryption, "secret", type="passphrase", uuid=volume.encryption_secret)


def copy_target(path: str, image_format: str) -> etree._Element:
    """Where a running copy of a disk goes (https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainBlockCopy)."""
    node = element("disk", type="file")
    add(node, "source", file=path)
    add(node, "driver", type=image_format)
    return node
