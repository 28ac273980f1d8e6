"""The files of an instance's local disks, and all its disks as the model has them."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

import nova.privsep.fs
from nova import exception as nova_exception
from nova.api.metadata import base as instance_metadata
from nova.objects.instance import Instance as NovaInstance
from nova.virt import configdrive

from kvmdriver.model import Disk, DiskFile
from kvmdriver.model.layout import InstanceLayout
from kvmdriver.nova import images, placement, volumes
from kvmdriver.nova.block_devices import Slot
from kvmdriver.nova.node import Node
from kvmdriver.storage import backend, inspect
from kvmdriver.storage.copy import copy_file, create_empty, remove_file
from kvmdriver.storage.image_cache import CachedImage

_MIB = 1024 * 1024


def file_format(node: Node, layout: InstanceLayout, name: str) -> str:
    """Return the format of a local disk: what ``disk.info`` says, else as configured.

    Never read from the disk itself, which the guest can write.
    """
    if name.startswith("disk.config"):
        return "raw"
    known = read_formats(layout).get(layout.file(name))
    return known or node.conf.kvm_storage.disk_format


def read_formats(layout: InstanceLayout) -> dict[str, str]:
    """Read ``disk.info``: the format of each disk by its path, as Nova's in-tree driver keeps it."""
    try:
        with open(layout.file("disk.info")) as file:
            return dict(json.load(file))
    except (OSError, ValueError):
        return {}


def write_formats(layout: InstanceLayout, formats: dict[str, str]) -> None:
    path = layout.file("disk.info")
    with open(path + ".new", "w") as file:
        json.dump(formats, file)
    os.rename(path + ".new", path)


def to_model(node: Node, instance: NovaInstance, layout: InstanceLayout, slot: Slot) -> Disk:
    """Return a disk at its place, with cache mode, limits and so on."""
    if slot.volume is not None:
        return volumes.to_model(node, slot)
    assert slot.file is not None  # noqa: S101 what is no volume is a file
    config = slot.file.startswith("disk.config")
    file = DiskFile.model_validate(
        {"path": layout.file(slot.file), "format": file_format(node, layout, slot.file)}
    )
    cdrom = slot.device == "cdrom"
    return Disk.model_validate(
        {
            "name": slot.name,
            "device": slot.device,
            "bus": slot.bus,
            "file": file,
            "cache": node.cache_mode("file"),
            "discard": node.conf.libvirt.hw_disk_discard == "unmap" and not cdrom,
            "limits": None if config or cdrom else placement.disk_limits(instance.flavor),
            "boot_order": slot.boot_order,
            "iothread": 1 if slot.bus == "virtio" else None,
        }
    )


def make_files(
    node: Node,
    context: Any,
    instance: NovaInstance,
    slots: Iterable[Slot],
    *,
    image_id: str | None,
) -> None:
    """Make the file of each local disk that has none yet, except for the config drive.

    :param image_id: content of the root or rescue disk; None for a blank one.
    """
    layout = node.store.create(instance.uuid)
    formats = read_formats(layout)
    for slot in slots:
        if slot.file is None or slot.file.startswith("disk.config"):
            continue
        path = layout.file(slot.file)
        if os.path.exists(path):
            continue
        cdrom = slot.device == "cdrom"
        disk_format = "raw" if cdrom else node.conf.kvm_storage.disk_format
        formats[path] = disk_format
        write_formats(layout, formats)
        if slot.file in ("disk", "disk.rescue"):
            _make_root(node, context, instance, slot, path, disk_format, image_id)
        else:
            _make_blank(node, slot, path, disk_format)


def require_files(node: Node, context: Any, instance: NovaInstance, slots: Iterable[Slot]) -> None:
    """Make what an instance that has existed before needs to start again.

    Blank disks that are missing are made, and images under its disks fetched again. A root disk
    that is missing is not: what was on it is lost, and a new one would hide that.

    :raises nova.exception.DiskNotFound: the root disk is missing.
    """
    slots = list(slots)
    layout = node.layout(instance)
    for slot in slots:
        if slot.file is None or slot.file.startswith("disk.config"):
            continue
        path = layout.file(slot.file)
        if not os.path.exists(path):
            if slot.file == "disk":
                raise nova_exception.DiskNotFound(location=path)
            continue
        backing = backing_path(path, file_format(node, layout, slot.file))
        if backing and not os.path.exists(backing):
            _restore_backing(node, context, instance, slot, backing)
    make_files(node, context, instance, slots, image_id=instance.image_ref)


def is_disk_name(name: str) -> bool:
    """Return whether a file of an instance's directory can be one of its disks."""
    return re.fullmatch(r"disk(\.[A-Za-z0-9_]+)*", name) is not None and name != "disk.info"


def make_targets(
    node: Node,
    context: Any,
    instance: NovaInstance,
    slots: Sequence[Slot],
    incoming: Sequence[dict[str, Any]],
) -> None:
    """Make the disks into which a running guest of another host is copied.

    :param incoming: the disks there: name, type, virt_disk_size in bytes, backing_file.
    :raises nova.exception.DiskNotFound: an image under a disk cannot be had here.
    """
    layout = node.store.create(instance.uuid)
    by_name = {slot.file: slot for slot in slots}
    formats = read_formats(layout)
    for disk in incoming:
        name, kind = str(disk["name"]), str(disk["type"])
        if name.startswith("disk.config"):
            continue
        path, backing = layout.file(name), None
        if kind not in ("qcow2", "raw") or name not in by_name:
            raise nova_exception.InvalidDiskInfo(reason=f"{name} is no disk of this server")
        if disk["backing_file"]:
            backing = os.path.join(node.images.directory, os.path.basename(disk["backing_file"]))
            if not os.path.exists(backing):
                _restore_backing(node, context, instance, by_name[name], backing)
        formats[path] = kind
        write_formats(layout, formats)
        node.qemu_img.create_target(
            path,
            kind,
            int(disk["virt_disk_size"]),
            backing=backing,
            backing_format="qcow2" if backing and inspect.starts_as_qcow2(backing) else "raw",
        )


def _restore_backing(
    node: Node, context: Any, instance: NovaInstance, slot: Slot, backing: str
) -> None:
    name = os.path.basename(backing)
    if instance.image_ref and name == images.cache_name(instance.image_ref):
        images.get(node, context, instance.image_ref, "disk", instance)
    elif slot.file != "disk":
        _make_base(node, slot)
    if not os.path.exists(backing):
        raise nova_exception.DiskNotFound(location=backing)


def make_boot_files(
    node: Node, context: Any, layout: InstanceLayout, kernel_id: str, ramdisk_id: str | None
) -> None:
    """Put kernel and ramdisk of a direct boot into the instance's directory."""
    for image_id, path in ((kernel_id, layout.kernel), (ramdisk_id, layout.ramdisk)):
        if image_id and not os.path.exists(path):
            copy_file(images.get(node, context, image_id, "file").path, path)


def _make_root(
    node: Node,
    context: Any,
    instance: NovaInstance,
    slot: Slot,
    path: str,
    disk_format: str,
    image_id: str | None,
) -> None:
    maker = backend.load(disk_format, node.qemu_img)
    if not image_id:
        maker.create(path, image=None, size_mib=slot.size_mib or 1)
        return
    role = "cdrom" if slot.device == "cdrom" else "disk"
    image = images.get(node, context, image_id, role, instance)  # type: ignore[arg-type]
    if role == "cdrom":
        copy_file(image.path, path)
        return
    if slot.size_mib is not None and image.size_mib > slot.size_mib:
        raise nova_exception.FlavorDiskSmallerThanImage(
            flavor_size=slot.size_mib * _MIB, image_size=image.size_mib * _MIB
        )
    maker.create(path, image=image, size_mib=slot.size_mib)


def _make_blank(node: Node, slot: Slot, path: str, disk_format: str) -> None:
    base = _make_base(node, slot)
    backend.load(disk_format, node.qemu_img).create(path, image=base, size_mib=slot.size_mib)


def _make_base(node: Node, slot: Slot) -> CachedImage:
    """Make an empty file system or swap area of the slot's size, named as in-tree names it."""
    size_mib = slot.size_mib or 1
    if slot.file_system == "swap":
        name, label, kind = f"swap_{size_mib}", None, "swap"
    else:
        kind = slot.file_system or node.conf.default_ephemeral_format or "ext4"
        digest = hashlib.sha1(kind.encode(), usedforsecurity=False).hexdigest()[:7]
        name = f"ephemeral_{size_mib // 1024}_{digest}"
        label = "ephemeral0"

    def write(part: str) -> None:
        with open(part, "ab") as file:
            file.truncate(size_mib * _MIB)
        nova.privsep.fs.unprivileged_mkfs(kind, part, label)

    return node.images.make(name, write)


def grow(node: Node, layout: InstanceLayout, slot: Slot) -> None:
    """Grow a disk to the size of its slot. A larger disk is left alone."""
    if slot.file is None or slot.size_mib is None or slot.device != "disk":
        return
    path = layout.file(slot.file)
    disk_format = file_format(node, layout, slot.file)
    if virtual_size(path, disk_format) < slot.size_mib * _MIB:
        node.qemu_img.resize(path, disk_format, slot.size_mib)


def virtual_size(path: str, disk_format: str) -> int:
    """Return the size in bytes of a local disk of ours, from its header."""
    return inspect.header_size(path) if disk_format == "qcow2" else os.path.getsize(path)


def make_config_drive(
    node: Node,
    context: Any,
    instance: NovaInstance,
    path: str,
    *,
    network_info: Any,
    files: Any = None,
    admin_password: str | None = None,
) -> None:
    """Write the config drive with nova's own builder.

    :raises nova.exception.NovaException: it could not be written.
    """
    extra = {"admin_pass": admin_password} if admin_password else {}
    metadata = instance_metadata.InstanceMetadata(
        instance, content=files or [], extra_md=extra, network_info=network_info
    )
    part = path + ".part"
    remove_file(part)  # a killed process may have left it
    # the builder fills a file that is there, and it has the password: only the group may read it
    os.close(create_empty(part))
    try:
        with configdrive.ConfigDriveBuilder(instance_md=metadata) as builder:
            builder.make_drive(part)
        os.rename(part, path)
    finally:
        remove_file(part)


def forget_formats(layout: InstanceLayout, suffix: str) -> None:
    """Remove files whose names end in ``suffix`` from ``disk.info``."""
    formats = read_formats(layout)
    kept = {name: kind for name, kind in formats.items() if not name.endswith(suffix)}
    if kept != formats:
        write_formats(layout, kept)


def backing_path(path: str, disk_format: str) -> str | None:
    """Return the backing file of a local disk of ours; None if it has none."""
    return inspect.header_backing(path) if disk_format == "qcow2" else None


def backing_name(path: str, disk_format: str) -> str:
    """Return the name of the backing file of a local disk of ours; empty if it has none."""
    return os.path.basename(backing_path(path, disk_format) or "")
