"""Free space that no image may take: the guests of the file system need it."""

import os

from kvmdriver import exception

_MIB = 1024 * 1024
# No disk takes more bytes a second; it says how soon free space must be looked at again.
_FASTEST = 8 * 1024**3


class Reserve:
    """Free space that is kept in the file system of an open file, in MiB."""

    def __init__(self, descriptor: int, mib: int, path: str):
        self._descriptor = descriptor
        self._mib = mib
        self._path = path

    def left(self) -> int:
        """Bytes that can still be written."""
        status = os.fstatvfs(self._descriptor)
        return status.f_bavail * status.f_frsize - self._mib * _MIB

    def require(self, size: int = 0) -> None:
        """Make sure that so many bytes can be written.

        :raises kvmdriver.exception.InsufficientResources: they would touch the reserve.
        """
        left = self.left()
        if size > left or left < 0:
            raise exception.InsufficientResources(
                f"the image needs {-(-size // _MIB)} MiB more on disk, {max(left, 0) // _MIB} MiB "
                f"are free beside the {self._mib} MiB that are kept",
                field="kvm_storage.instances_path",
                value=self._path,
                remedy="free space there, e.g. with: kvmdriver image cache prune --unused",
            )

    def watch(self) -> float:
        """Look at the free space while somebody else writes; seconds until the next look.

        :raises kvmdriver.exception.InsufficientResources: the reserve is touched.
        """
        self.require()
        return max(0.005, min(0.5, self.left() / _FASTEST))
