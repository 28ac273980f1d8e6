"""Where the files of an arriving instance lie on this host, and which of them the source sends.

Where the hosts share the directory, the files stay what they are. Else this host chooses every
name by itself. An image is taken from the cache of this host only where the instance names its
origin and this host can locate that, just as for an instance that is created here. What only the
source has is received under a new name that no other instance can ask for.
"""

import logging
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping

from kvmdriver import exception
from kvmdriver.model import Disk, Instance, MigrationOffer, MovingDisk, MovingFile
from kvmdriver.model.layout import InstanceLayout
from kvmdriver.operations.context import Context
from kvmdriver.progress import ignore
from kvmdriver.storage import inspect
from kvmdriver.storage.image_cache import Role

LOG = logging.getLogger(__name__)

_RECEIVED = re.compile(r"^received-[0-9a-f]{32}-")
# The longest part of a name that is kept when the image goes on to the next host.
_ORIGIN = 80


def images_of(offer: MigrationOffer) -> Iterator[tuple[str, Disk]]:
    """Return each image that the instance needs, by its name on the source, with its disk."""
    moving = {disk.name: disk for disk in offer.disks}
    for disk in offer.instance.disks:
        if disk.device == "cdrom":
            if disk.file is not None:
                yield os.path.basename(disk.file.path), disk
        elif not offer.full_copy and disk.name in moving:
            backing = moving[disk.name].backing
            if backing is not None:
                yield backing, disk


def shared_images(context: Context, offer: MigrationOffer) -> dict[str, str]:
    """Return where the images are if the hosts share the directory, by name."""
    directory = context.store.cache_directory
    return {name: os.path.join(directory, name) for name, _disk in images_of(offer)}


def images_here(context: Context, offer: MigrationOffer) -> dict[str, str]:
    """Return where the images are that the source need not send, by name. Changes nothing."""
    found = {}
    for name, disk in images_of(offer):
        path = _locate(context, disk, name)
        if path is not None and os.path.exists(path):
            found[name] = path
    return found


def obtain_images(context: Context, offer: MigrationOffer) -> dict[str, str]:
    """Return where each image lies on this host from now on, or will after the source has sent it."""
    sizes = {file.name: file.size for file in offer.files if file.place == "cache"}
    found: dict[str, str] = {}
    for name, disk in images_of(offer):
        if name not in found and _obtain(context, disk, name, sizes.get(name)):
            found[name] = _locate(context, disk, name) or ""
    for name, _disk in images_of(offer):
        if name not in found:
            found[name] = os.path.join(context.store.cache_directory, _received_name(name))
    return found


def is_received(path: str) -> bool:
    """Return whether the name of an image in the cache is that of one sent by another host."""
    return _RECEIVED.match(os.path.basename(path)) is not None


def _received_name(name: str) -> str:
    return f"received-{secrets.token_hex(16)}-{_RECEIVED.sub('', name)[:_ORIGIN]}"


def _locate(context: Context, disk: Disk, name: str) -> str | None:
    """Return the place in the cache of the image that a disk names, if the disk is made of that image."""
    if disk.image is None:
        return None
    try:
        path = context.images.locate(disk.image, _role(disk))
    except exception.KVMDriverError:
        return None
    # without a checksum, a file of that path need not be the same on both hosts: its name tells
    known = disk.image.checksum is not None or (
        os.path.basename(path)[:_ORIGIN] == _RECEIVED.sub("", name)
    )
    return path if known else None


def _obtain(context: Context, disk: Disk, name: str, size: int | None) -> bool:
    """Fetch the image from its origin, or find it in the cache; return whether that worked."""
    if disk.image is None or _locate(context, disk, name) is None:
        return False
    try:
        cached = context.images.get(disk.image, _role(disk), ignore)
    except exception.KVMDriverError as error:
        LOG.info("image %s is to be sent by the source: %s", name, error)
        return False
    return os.path.getsize(cached.path) == size


def _role(disk: Disk) -> Role:
    return "cdrom" if disk.device == "cdrom" else "disk"


def wanted_files(offer: MigrationOffer, images: Mapping[str, str]) -> tuple[MovingFile, ...]:
    """Return what the source has to send, by the names that the files have there."""
    files = [
        file
        for file in offer.files
        if file.place == "instance" or is_received(images.get(file.name, ""))
    ]
    if offer.kind == "cold":
        files += [
            MovingFile(place="instance", name=disk.file, size=disk.length or 0)
            for disk in offer.disks
        ]
    return tuple(files)


def placed(
    context: Context, offer: MigrationOffer, images: Mapping[str, str] | None = None
) -> Instance:
    """Return the instance with its files where this host keeps them.

    :param images: where its images are, by their names; without them, those of a shared cache, or
        those that the instance itself names.
    :raises kvmdriver.exception.InvalidRequest: a disk's file is none of the instance's own.
    """
    layout = context.store.layout(offer.instance.uuid)
    shared = sees_marker(context, offer)
    if images is None and shared:
        images = shared_images(context, offer)
    moving = {disk.name: disk for disk in offer.disks}
    found = []
    for position, disk in enumerate(offer.instance.disks):
        if disk.device == "cdrom":
            if disk.file is not None:
                path = _cdrom(context, disk, images, f"disks.{position}")
                disk = disk.changed(file={"path": path, "format": "raw"})
        elif disk.file is None or disk.name not in moving:
            raise exception.InvalidRequest(
                f"disk {disk.name} of the instance is not among the disks that move",
                field="offer.disks",
                remedy="offer every disk of the instance",
            )
        else:
            path = disk_path(layout, offer, moving[disk.name], shared=shared)
            disk = disk.changed(file={"path": path, "format": moving[disk.name].format})
        found.append(disk)
    return offer.instance.changed(disks=tuple(found))


def sees_marker(context: Context, offer: MigrationOffer) -> bool:
    """Return whether the directory of the instance is the source's own, too."""
    layout = context.store.layout(offer.instance.uuid)
    return os.path.exists(layout.file(offer.marker))


def _cdrom(context: Context, disk: Disk, images: Mapping[str, str] | None, field: str) -> str:
    assert disk.file is not None  # noqa: S101 the caller has looked
    if images is not None:
        return images[os.path.basename(disk.file.path)]
    if disk.image is None:
        raise exception.InvalidRequest(
            "it is not known which image the CD has",
            field=f"{field}.image",
            remedy="name the image, or leave the drive empty: remove its file",
        )
    return context.images.locate(disk.image, "cdrom")


def disk_path(
    layout: InstanceLayout, offer: MigrationOffer, moving: MovingDisk, *, shared: bool
) -> str:
    """Return where the file of a disk lies on this host.

    :raises kvmdriver.exception.InvalidRequest: the shared file cannot be one of a disk.
    """
    if not shared:
        first = next((d.name for d in offer.instance.disks if d.device == "disk"), None)
        return layout.disk(moving.name, first=moving.name == first)
    if moving.file not in _disk_names(offer.instance.uuid, moving.name):
        raise exception.InvalidRequest(
            f"a file {moving.file} is not one of disk {moving.name}",
            field="offer.disks",
            value=moving.file,
            remedy=f"names of its file: {', '.join(_disk_names(offer.instance.uuid, moving.name))}",
        )
    return layout.file(moving.file)


def _disk_names(uuid: str, name: str) -> tuple[str, ...]:
    """Return the names that the file of a disk can have: when made, and after a move."""
    moved = [f"{stem}.{name}.{suffix}" for stem in ("disk", uuid) for suffix in ("qcow2", "raw")]
    return ("disk", f"disk.{name}", *moved)


def accept_disk(
    context: Context, disk: MovingDisk, images: Mapping[str, str]
) -> Callable[[str], None] | None:
    """Return the check that a received disk must pass before it gets its name; None for a raw disk.

    Its backing file is called as it is here afterwards.
    """
    if disk.format != "qcow2":
        return None

    def accept(part: str) -> None:
        inspect.require_overlay(part, disk.size, disk.backing)
        if disk.backing is not None:
            context.qemu_img.rename_backing(part, images[disk.backing])

    return accept
