"""Looking at an image before anything else does. Every image is hostile until it has passed here."""

import contextlib
import dataclasses
import logging
import os
import stat
from collections.abc import Iterator
from typing import IO

from oslo_utils.imageutils import format_inspector

from kvmdriver import exception

LOG = logging.getLogger(__name__)

_MIB = 1024 * 1024
_CHUNK = 256 * 1024

# What the inspector calls it -> what the model calls it. A disk with a partition table and nothing
# else is a raw disk.
_FORMATS = {
    "raw": "raw",
    "gpt": "raw",
    "qcow2": "qcow2",
    "vmdk": "vmdk",
    "vdi": "vdi",
    "vhd": "vhd",
    "vhdx": "vhdx",
    "iso": "iso",
}

_QCOW2 = b"QFI\xfb"
# Incompatible features that QEMU's specification of qcow2 knows: dirty, corrupt, data file,
# compression type, extended L2 entries.
_QCOW2_FEATURES = 0b11111
# longest name of a backing file, by the same specification
_QCOW2_NAME = 1023
_MAGIC = {_QCOW2: "qcow2", b"KDMV": "vmdk", b"vhdx": "vhdx"}


@dataclasses.dataclass(frozen=True)
class ImageInfo:
    """What an image is; ``virtual_size`` in bytes."""

    format: str
    virtual_size: int

    @property
    def size_mib(self) -> int:
        return -(-self.virtual_size // _MIB)


def open_regular(path: str, *, follow: bool = True) -> int:
    """Open a file for reading, and nothing that is not a file: no pipe, device or directory.

    :param follow: whether ``path`` may be a symbolic link.
    :raises kvmdriver.exception.ImageNotFound: it is missing or unreadable.
    :raises kvmdriver.exception.ImageUnacceptable: it is something else than a file.
    """
    try:
        # O_NONBLOCK: opening a pipe must not wait for its other end
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    except OSError as error:
        raise unreadable(path, error) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise exception.ImageUnacceptable("the image is not a regular file", value=path)
    return descriptor


def unreadable(path: str, error: OSError) -> exception.ImageNotFound:
    """Return the error for an image that cannot be opened."""
    return exception.ImageNotFound(
        f"cannot read the image: {error.strerror}",
        value=path,
        remedy="check the path and its permissions on the host of the agent",
    )


def header_size(path: str) -> int:
    """Virtual size in bytes of a qcow2 disk of ours, from its header alone.

    Bytes 24 to 31, big-endian (https://www.qemu.org/docs/master/interop/qcow2.html). A process
    for the same costs a thousand times as much. A guest cannot write the header of its disk.

    :raises kvmdriver.exception.ImageUnacceptable: it is no qcow2 image.
    """
    with open(path, "rb") as disk:
        header = disk.read(32)
    if len(header) < 32 or header[:4] != _QCOW2:
        raise exception.ImageUnacceptable("the disk is no qcow2 image", value=path)
    return int.from_bytes(header[24:32], "big")


def header_backing(path: str) -> str | None:
    """Backing file of a qcow2 disk of ours, from its header (bytes 8 to 19); None for none.

    :raises kvmdriver.exception.ImageUnacceptable: it is no qcow2 image.
    """
    with open(path, "rb") as disk:
        header = disk.read(32)
        if len(header) < 32 or header[:4] != _QCOW2:
            raise exception.ImageUnacceptable("the disk is no qcow2 image", value=path)
        offset = int.from_bytes(header[8:16], "big")
        if offset == 0:
            return None
        disk.seek(offset)
        length = min(int.from_bytes(header[16:20], "big"), _QCOW2_NAME)
        return disk.read(length).decode(errors="replace")


def starts_as_qcow2(path: str) -> bool:
    """Return whether a file of the cache is a qcow2 image. Never ask this of a file that guests write."""
    with open(path, "rb") as image:
        return image.read(4) == _QCOW2


def require_content(descriptor: int, path: str) -> None:
    """Require that an open file has content.

    :raises kvmdriver.exception.ImageUnacceptable: the file is empty.
    """
    if os.fstat(descriptor).st_size == 0:
        raise exception.ImageUnacceptable(
            "the image is empty, it has 0 bytes",
            value=path,
            remedy="look at how it was made or copied, and give its checksum",
        )


def inspect(
    path: str, descriptor: int | None = None, *, declared: str | None = None, max_bytes: int
) -> ImageInfo:
    """Find out what an image is, and refuse it if it could do harm.

    :param path: where it lies, for messages if it is open already.
    :param descriptor: the image if it is open, which has to be what is used afterwards.
    :param declared: the format that the request gives, to be compared with the content.
    :param max_bytes: largest virtual size that is accepted.
    :raises kvmdriver.exception.ImageUnacceptable: damaged, larger than allowed, not of the declared
        format, or referring to other files (backing file, data file, extents).
    """
    with _reader(path, descriptor) as image:
        require_content(image.fileno(), path)
        file_size = os.fstat(image.fileno()).st_size
        if image.read(24).startswith(b"# Disk DescriptorFile"):
            # A bare VMDK descriptor is text that names other files of the host.
            raise _unsafe(path, "it is a VMDK descriptor, which refers to other files")
        image.seek(0)
        start = image.read(4)
        image.seek(72)
        features = int.from_bytes(image.read(8), "big")
        image.seek(0)
        inspector = _detect(image, path)
    found = _FORMATS.get(str(inspector))
    if found == "raw" and start in _MAGIC:
        raise exception.ImageUnacceptable(
            f"the image starts like {_MAGIC[start]}, but the rest does not fit", value=path
        )
    if found is None:
        raise exception.ImageUnacceptable(
            f"images of format {inspector} are not supported",
            value=path,
            remedy="convert it: qemu-img convert -O qcow2 IMAGE NEW.qcow2",
        )
    if declared is not None and declared != found and {declared, found} != {"raw", "iso"}:
        raise exception.ImageUnacceptable(
            f"the image is declared as {declared}, but its content is {found}",
            field="format",
            value=declared,
            remedy=f"declare it as {found} if that is what you expect it to be",
        )
    try:
        inspector.safety_check()
    except (
        format_inspector.SafetyCheckFailed,
        format_inspector.SafetyViolation,
        format_inspector.ImageFormatError,
    ) as error:
        failures = set(getattr(error, "failures", ()))
        # Extended L2 entries lie within the image and refer to nothing outside of it. oslo.utils
        # does not know them; every other check of its has passed.
        if found != "qcow2" or failures != {"unknown_features"} or features & ~_QCOW2_FEATURES:
            raise _unsafe(path, _reasons(error)) from None
    try:
        size = file_size if found in ("raw", "iso") else inspector.virtual_size
    except Exception as error:
        raise exception.ImageUnacceptable(
            f"the image's size cannot be read: {error}", value=path
        ) from None
    if size > max_bytes:
        raise exception.ImageUnacceptable(
            f"the image unfolds to {size // _MIB} MiB, allowed are {max_bytes // _MIB} MiB",
            value=path,
            remedy="raise [kvm_storage] max_image_gib if you trust the image",
        )
    if size == 0:
        raise exception.ImageUnacceptable("the image has a size of 0", value=path)
    return ImageInfo(
        format=declared if found == "raw" and declared == "iso" else found, virtual_size=size
    )


@contextlib.contextmanager
def _reader(path: str, descriptor: int | None) -> Iterator[IO[bytes]]:
    opened = open_regular(path) if descriptor is None else os.dup(descriptor)
    with os.fdopen(opened, "rb") as image:
        image.seek(0)
        yield image


def _detect(image: IO[bytes], path: str) -> format_inspector.FileInspector:
    wrapper = format_inspector.InspectWrapper(image)
    try:
        # Most headers lie in the first chunk; some VMDKs have theirs at the end.
        while wrapper.formats is None and wrapper.read(_CHUNK):
            pass
        wrapper.close()
        found = wrapper.formats or []
    except format_inspector.ImageFormatError as error:
        raise exception.ImageUnacceptable(f"the image is damaged: {error}", value=path) from None
    except Exception as error:
        LOG.info("inspection of %s failed: %r", path, error)
        raise exception.ImageUnacceptable(
            f"the image is damaged: {type(error).__name__}", value=path
        ) from None
    names = {str(entry): entry for entry in found}
    if len(names) == 1:
        return found[0]
    # Installers are ISO images with a partition table beside it, so that they also boot from USB.
    if set(names) == {"iso", "gpt"}:
        return names["iso"]
    raise _unsafe(path, f"it looks like several formats at once: {', '.join(sorted(names))}")


def _reasons(error: Exception) -> str:
    failures = getattr(error, "failures", None)
    if failures:
        return "; ".join(f"{name}: {reason}" for name, reason in failures.items())
    return str(error)


def _unsafe(path: str, reason: str) -> exception.ImageUnacceptable:
    return exception.ImageUnacceptable(
        f"the image is refused because it could do harm: {reason}",
        value=path,
        remedy="if you trust it, convert it to a plain image: qemu-img convert -O qcow2 IMAGE NEW",
    )


def require_overlay(path: str, size: int, backing: str | None) -> None:
    """Refuse a qcow2 disk from another host if it is not the one that was agreed on.

    Fields: https://www.qemu.org/docs/master/interop/qcow2.html.

    :param size: its virtual size in bytes.
    :param backing: the name of its backing file, whatever its directory; None for none.
    :raises kvmdriver.exception.ImageUnacceptable: it has another size or backing file, or its data
        lies in another file.
    """
    with open(path, "rb") as disk:
        header = disk.read(80)
        offset, length = int.from_bytes(header[8:16], "big"), int.from_bytes(header[16:20], "big")
        # the name lies in the first cluster, which has at most 2 MiB
        if len(header) < 80 or header[:4] != _QCOW2 or offset >= 2 * _MIB:
            raise exception.ImageUnacceptable("the disk is no qcow2 image")
        found = None
        if offset:
            disk.seek(offset)
            found = os.path.basename(disk.read(min(length, 1023)).decode(errors="replace"))
    if int.from_bytes(header[4:8], "big") >= 3 and int.from_bytes(header[72:80], "big") & 1 << 2:
        raise exception.ImageUnacceptable("the data of the disk lies in another file")
    if int.from_bytes(header[24:32], "big") != size:
        raise exception.ImageUnacceptable("the disk has not the size that was offered")
    if found != backing:
        raise exception.ImageUnacceptable("the disk has not the backing file that was offered")
