"""Shares of other machines that volumes are files of: mounted while a server of this host uses one.

os-brick mounts a share, and never unmounts it.
"""

import contextlib
import os
from collections.abc import Iterator

import nova.privsep.fs
from oslo_concurrency import lockutils, processutils
from oslo_log import log as logging

from kvmdriver.hypervisor.hypervisor import Hypervisor

LOG = logging.getLogger(__name__)

# UUID of a server and ID of a volume. The file of a volume changes its name with each snapshot.
User = tuple[str, str]


class Shares:
    """Which volumes of which servers need each mount point.

    Only the first look at a mount point asks libvirt, for the domains that were there before this
    process. From then on a server that is shut off counts as long as its volumes are connected.
    """

    def __init__(self) -> None:
        self._users: dict[str, set[User]] = {}

    @contextlib.contextmanager
    def used(self, hypervisor: Hypervisor, mount_point: str, user: User) -> Iterator[None]:
        """Count a user, for whom the body mounts the share; not if the body fails.

        Another thread that needs the same share waits until the body has ended.
        """
        with _lock(mount_point):
            users = self._users_of(hypervisor, mount_point)
            new = user not in users
            users.add(user)
            try:
                yield
            except BaseException:
                if new:
                    users.discard(user)
                    self._unmount_unused(mount_point)
                raise

    def leave(self, hypervisor: Hypervisor, mount_point: str, user: User) -> None:
        """Unmount the share after its last user. The log tells if that fails."""
        with _lock(mount_point):
            self._users_of(hypervisor, mount_point).discard(user)
            self._unmount_unused(mount_point)

    def _users_of(self, hypervisor: Hypervisor, mount_point: str) -> set[User]:
        if mount_point not in self._users:
            self._users[mount_point] = {
                (uuid, serial)
                for uuid, disks in hypervisor.disk_files().items()
                for serial, path in disks
                if path.startswith(mount_point + os.sep)
            }
        return self._users[mount_point]

    def _unmount_unused(self, mount_point: str) -> None:
        if self._users[mount_point]:
            return
        try:
            if _is_mounted(mount_point):
                nova.privsep.fs.umount(mount_point)
        except processutils.ProcessExecutionError as error:
            LOG.warning(
                "no server uses %s any more, but it stays mounted: %s", mount_point, error.stderr
            )
            return
        with contextlib.suppress(OSError):
            os.rmdir(mount_point)


def _lock(mount_point: str) -> contextlib.AbstractContextManager[object]:
    manager: contextlib.AbstractContextManager[object] = lockutils.lock(f"share-{mount_point}")
    return manager


def _is_mounted(mount_point: str) -> bool:
    """Without a look at the share itself: a server that does not answer would hold us up."""
    # proc(5): octal escapes stand for white space
    escaped = mount_point.replace(" ", r"\040")
    with open("/proc/self/mounts") as mounts:
        return any(line.split()[1] == escaped for line in mounts)
