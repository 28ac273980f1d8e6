"""Disk backends: how a disk's file is made. Extension point ``kvmdriver.disk_backends``."""

import abc
import os
from typing import cast

from kvmdriver import plugins
from kvmdriver.progress import Progress, ignore
from kvmdriver.storage.copy import copy_file, write_error
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

        :raises kvmdriver.exception.InsufficientResources: the disk is full; the file is removed.
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
        if image is not None and image.format != "raw":
            self._qemu_img.convert(image.path, image.format, path, "raw", progress=progress)
        elif image is not None:
            copy_file(image.path, path, stage="copy disk", progress=progress)
        try:
            with open(path, "ab") as disk:
                if size_mib is not None and size_mib * 1024 * 1024 > disk.tell():
                    disk.truncate(size_mib * 1024 * 1024)
            os.chmod(path, 0o644)
        except OSError as error:
            raise write_error(error, path) from None


def load(name: str, qemu_img: QemuImg) -> DiskBackend:
    """The backend of that name.

    :raises kvmdriver.exception.ConfigurationError: none is installed under that name.
    """
    cls = plugins.load(NAMESPACE, name, field="kvm_storage.disk_format")
    return cast(DiskBackend, cls(qemu_img))
