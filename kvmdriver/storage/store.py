"""The directories of instances."""

import contextlib
import os
import shutil

from kvmdriver import exception
from kvmdriver.model.base import is_uuid
from kvmdriver.model.layout import CACHE, InstanceLayout
from kvmdriver.storage import description
from kvmdriver.storage.copy import write_error

_MIB = 1024 * 1024

# QEMU runs as another user: it must be able to pass through, not to look around.
_MODE = 0o711


class InstanceStore:
    """One directory for each instance, below ``root``."""

    def __init__(self, root: str, reserved_mib: int = 0):
        self.root = os.path.abspath(root)
        self._reserved_mib = reserved_mib

    @property
    def cache_directory(self) -> str:
        return os.path.join(self.root, CACHE)

    def layout(self, uuid: str) -> InstanceLayout:
        return InstanceLayout(self.root, uuid)

    def prepare(self) -> None:
        """Make the root directory.

        :raises kvmdriver.exception.ConfigurationError: it cannot be made or written to.
        """
        try:
            os.makedirs(self.root, mode=_MODE, exist_ok=True)
        except OSError as error:
            raise exception.ConfigurationError(
                f"cannot make the directory of instances: {error.strerror}",
                field="kvm_storage.instances_path",
                value=self.root,
                remedy="make it, and give it to the user of the agent",
            ) from None

    def create(self, uuid: str) -> InstanceLayout:
        layout = self.layout(uuid)
        try:
            os.makedirs(layout.directory, mode=_MODE, exist_ok=True)
        except OSError as error:
            raise write_error(error, layout.directory) from None
        return layout

    def remove(self, uuid: str, keep: tuple[str, ...] = ()) -> None:
        """Remove an instance's files, except those in ``keep``; no error if there are none."""
        directory = self.layout(uuid).directory
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)
            return
        for entry in os.scandir(directory):
            if entry.path not in keep:
                os.unlink(entry.path)

    def directories(self) -> list[str]:
        """Directories of instances, of this host's and of others' that share the root."""
        if not os.path.isdir(self.root):
            return []
        return sorted(
            entry.path
            for entry in os.scandir(self.root)
            if entry.is_dir(follow_symlinks=False) and is_uuid(entry.name)
        )

    def orphans(self, known: set[str], host: str) -> list[str]:
        """Directories of no instance in ``known``, nor of another host: reported, never removed."""
        found = []
        for path in self.directories():
            if os.path.basename(path) in known:
                continue
            with contextlib.suppress(exception.StorageError):
                described = description.read(path)
                if described is not None and described.host != host:
                    continue
            found.append(path)
        return found

    def space(self) -> tuple[int, int]:
        """Size and free space of the file system, in MiB."""
        status = os.statvfs(self.root)
        return (
            status.f_blocks * status.f_frsize // _MIB,
            status.f_bavail * status.f_frsize // _MIB,
        )

    def require(self, mib: int) -> None:
        """Make sure that so much can be written.

        :raises kvmdriver.exception.InsufficientResources: it does not fit.
        """
        free = self.space()[1] - self._reserved_mib
        if mib > free:
            raise exception.InsufficientResources(
                f"{mib} MiB are needed on disk, {max(free, 0)} MiB are free",
                field="kvm_storage.instances_path",
                value=self.root,
                remedy="free space there, or move instances_path to a larger file system",
            )
