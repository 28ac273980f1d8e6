"""What the offer of another host must keep to, whatever this host has. Pure."""

from collections import Counter
from collections.abc import Iterator

from kvmdriver.model import MigrationOffer, Problem
from kvmdriver.operations.migrate.placement import images_of

# Files of an instance besides its disks that a source may send, by the condition for them.
_CONFIG_DRIVE, _KERNEL, _RAMDISK, _NVRAM = "disk.config", "kernel", "ramdisk", "nvram.fd"


def violations(offer: MigrationOffer) -> Iterator[Problem]:
    """Return everything in an offer that no agent of ours offers."""
    yield from _marker(offer)
    yield from _disks(offer)
    yield from _files(offer)


def _violation(
    field: str, message: str, remedy: str = "run the same version of the agent on both hosts"
) -> Problem:
    return Problem(code="invalid_request", field=f"offer.{field}", message=message, remedy=remedy)


def _marker(offer: MigrationOffer) -> Iterator[Problem]:
    # the file proves that the source can write to the directory: it must be one that only it makes
    if offer.marker != marker_of(offer.id):
        yield _violation("marker", f"{offer.marker} is not the marker of migration {offer.id}")


def marker_of(identity: str) -> str:
    """Return the name of the file by which a host recognizes a directory that it shares with the source."""
    return f"migration-{identity}"


def _disks(offer: MigrationOffer) -> Iterator[Problem]:
    mine = {disk.name for disk in offer.instance.disks if disk.device == "disk"}
    for name, count in Counter(disk.name for disk in offer.disks).items():
        if count > 1 or name not in mine:
            yield _violation("disks", f"disk {name} is not one of the instance, or comes twice")
    if offer.kind == "cold" and offer.full_copy:
        yield _violation(
            "full_copy",
            "a stopped instance moves with its disks as they are",
            "leave full_copy out, or move the instance while it runs",
        )
    for disk in offer.disks:
        if disk.format == "raw" and disk.backing is not None:
            yield _violation("disks", f"disk {disk.name} is raw and has a backing file")
        if offer.kind == "cold" and disk.length is None:
            yield _violation("disks", f"the size of the file of disk {disk.name} is missing")


def _files(offer: MigrationOffer) -> Iterator[Problem]:
    instance = offer.instance
    expected = {
        _CONFIG_DRIVE: instance.config_drive is not None,
        _KERNEL: instance.boot.kernel is not None,
        _RAMDISK: instance.boot.initrd is not None,
        _NVRAM: offer.kind == "cold" and instance.boot.firmware == "uefi",
    }
    images = {name for name, _disk in images_of(offer)}
    sizes = {disk.backing: disk.backing_size for disk in offer.disks}
    names = [file.name for file in offer.files]
    if offer.kind == "cold":
        names += [disk.file for disk in offer.disks]
    for name, count in Counter(names).items():
        if count > 1:
            yield _violation("files", f"file {name} comes twice")
    for file in offer.files:
        own = file.place == "instance" and expected.get(file.name, False)
        image = file.place == "cache" and file.name in images
        if not own and not image:
            yield _violation("files", f"file {file.name} is none that the instance needs")
        elif image and sizes.get(file.name, file.size) != file.size:
            yield _violation("files", f"image {file.name} has two sizes")
    missing = images - {file.name for file in offer.files if file.place == "cache"}
    for name in sorted(missing):
        yield _violation(
            "files",
            f"image {name}, which the instance needs, is not offered",
            "look whether it is in the image cache of the source",
        )
