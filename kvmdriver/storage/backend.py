"""Disk backends: how a disk's file is made. Extension point ``kvmdriver.disk_backends``."""

import abc
import os
from typing import cast

from kvmdriver import plugins
from kvmdriver.progress import Progress, ignore
from kvmdriver.storage.copy import copy_into, create_empty, remove_file, write_error
from kvmdriver.storage.image_cache import CachedImage
from kvmdriver.storage.qemu_img import QemuImg

NAMESPACE = "kvmdriver.disk_backends"


class DiskBackend(abc.ABC):
    """Makes disks of one kind. ``format`` is what the domain's XML names."""

    format: str

    def __init__(self, qemu_img: QemuImg):
        self._qemu_img = qemu_img

    @abc.abstractmethod
    def create(
        self,
        path: str,
        *,
        image: CachedImage | None,
        size_mib: int | None,
        progress: Progress = ignore,
    ) -> None:
        """Make the disk: blank, or with an image's content grown to ``size_mib``.

        The file is made exclusively, as ``create_empty`` does, and removed when this fails.

        :raises kvmdriver.exception.InsufficientResources: the disk is full.
        :raises kvmdriver.exception.StorageError: there is an entry of that name already.
        """


class Qcow2Backend(DiskBackend):
    """A thin overlay over the cached image: milliseconds, and only changes take space."""

    format = "qcow2"

    def create(
        self,
        path: str,
        *,
        image: CachedImage | None,
        size_mib: int | None,
        progress: Progress = ignore,
    ) -> None:
        self._qemu_img.create(
            path,
            "qcow2",
            size_mib=size_mib,
            backing=image.path if image else None,
            backing_format=image.format if image else None,
        )


class RawBackend(DiskBackend):
    """A file of its own: as fast as the file system, shared blocks where it can (XFS, Btrfs)."""

    format = "raw"

    def create(
        self,
        path: str,
        *,
        image: CachedImage | None,
        size_mib: int | None,
        progress: Progress = ignore,
    ) -> None:
        disk = create_empty(path)
        try:
            self._fill(disk, path, image, progress)
            size = (size_mib or 0) * 1024 * 1024
            if size > os.fstat(disk).st_size:
                os.ftruncate(disk, size)
        except BaseException as error:
            remove_file(path)
            if isinstance(error, OSError):
                raise write_error(error, path) from None
            raise
        finally:
            os.close(disk)

    def _fill(self, disk: int, path: str, image: CachedImage | None, progress: Progress) -> None:
        if image is None:
            return
        if image.format != "raw":
            self._qemu_img.convert(image.path, image.format, path, "raw", progress=progress)
            return
        with open(image.path, "rb", buffering=0) as source:
            copy_into(source.fileno(), disk, stage="copy disk", progress=progress)


def load(name: str, qemu_img: QemuImg) -> DiskBackend:
    """Return the backend of that name.

    :raises kvmdriver.exception.ConfigurationError: none is installed under that name.
    """
    cls = plugins.load(NAMESPACE, name, field="kvm_storage.disk_format")
    return cast(DiskBackend, cls(qemu_img))
