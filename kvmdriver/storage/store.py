"""The directories of instances.

Hosts may share them. The description in a directory is the mark of the host that owns it; it is
there from the first moment of the directory to the last.
"""

import contextlib
import errno
import logging
import os
import re
import shutil
import time
from collections.abc import Container, Sequence

from oslo_utils import uuidutils

from kvmdriver import exception
from kvmdriver.model.base import is_uuid
from kvmdriver.model.evacuation import Description
from kvmdriver.model.layout import CACHE, InstanceLayout
from kvmdriver.storage import description, private
from kvmdriver.storage.copy import remove_file, write_error

LOG = logging.getLogger(__name__)

_MIB = 1024 * 1024
# A directory that is about to be claimed, which takes milliseconds.
_NEW = re.compile(r"\.[0-9a-f-]{36}\.[0-9a-f-]{36}\.new")
_NEW_SECONDS = 3600


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
            private.require_directory(self.root)
        except OSError as error:
            raise exception.ConfigurationError(
                f"cannot make the directory of instances: {error.strerror}",
                field="kvm_storage.instances_path",
                value=self.root,
                remedy="make it, and give it to the user of the agent",
            ) from None

    def create(self, uuid: str) -> InstanceLayout:
        """Make an instance's directory if it is missing: for Nova, whose database says whose it is.

        :raises kvmdriver.exception.StorageError: the file system refuses.
        """
        layout = self.layout(uuid)
        try:
            private.require_directory(layout.directory)
        except OSError as error:
            raise write_error(error, layout.directory) from None
        return layout

    def claim(self, uuid: str, mark: Description) -> InstanceLayout:
        """Make the directory of a new instance, with the mark of its owner in it.

        Of several processes, also on hosts that share the directories, one succeeds: rename(2)
        puts a directory in the place of an empty one at most.

        :raises kvmdriver.exception.InstanceExists: the place is taken; says by whom.
        :raises kvmdriver.exception.StorageError: the file system refuses.
        """
        layout = self.layout(uuid)
        # the operation that was cut off before the mark was written is known by the name
        new = self._new(uuid, mark.building or uuidutils.generate_uuid())
        try:
            private.create_directory(new, 0o700)
            try:
                with description.first(new, mark):
                    os.chmod(new, private.DIRECTORY_MODE)
                    os.rename(new, layout.directory)
            except BaseException:
                shutil.rmtree(new, ignore_errors=True)
                raise
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise self._taken(uuid) from None
            raise write_error(error, layout.directory) from None
        return layout

    def _new(self, uuid: str, operation: str) -> str:
        """Return where an operation makes an instance's directory before it has its place."""
        return os.path.join(self.root, f".{uuid}.{operation}.new")

    def require_free(self, uuid: str) -> None:
        """Tell early that ``claim`` would fail.

        :raises kvmdriver.exception.InstanceExists: the place is taken; says by whom.
        """
        directory = self.layout(uuid).directory
        if not os.path.lexists(directory):
            return
        try:
            if not os.path.islink(directory) and not os.listdir(directory):
                return
        except OSError as error:
            LOG.debug("%s cannot be read: %s", directory, error)
        raise self._taken(uuid)

    def _taken(self, uuid: str) -> exception.InstanceExists:
        directory = self.layout(uuid).directory
        message = (
            f"the directory {directory} has files that no host owns, as they are left by "
            "kvmdriver server delete --keep-disks"
        )
        remedy = f"choose another UUID, or move {directory} away"
        try:
            mark = description.read(directory)
        except exception.StorageError as error:
            message = f"the directory {directory} has a description that {error.message}"
        else:
            if mark is not None:
                unfinished = ", which is still making it" if mark.building else ""
                message = (
                    f"the directory {directory} belongs to the instance {mark.instance.name} "
                    f"of {mark.host}{unfinished}"
                )
                remedy = (
                    f"choose another UUID, or delete that instance on {mark.host}; if {mark.host} "
                    f"does not know it any more, move {directory} away"
                )
        return exception.InstanceExists(message, field="uuid", value=uuid, remedy=remedy)

    def remove(
        self,
        uuid: str,
        host: str,
        host_uuid: str,
        *,
        keep: tuple[str, ...] = (),
        building: str | None = None,
    ) -> bool:
        """Remove an instance's files, except those in ``keep``, if they are this host's.

        :param building: the operation that has not finished making the instance; the mark must name
            it. None: this host has had the instance as a whole. So the mark may have the former
            name of this host, or be missing: it goes last in a deletion, and old files have none.
        :returns: False if the files are not this host's and stay.
        :raises kvmdriver.exception.StorageError: the file system refuses.
        """
        directory = self.layout(uuid).directory
        if building is not None:
            shutil.rmtree(self._new(uuid, building), ignore_errors=True)
        if not os.path.lexists(directory):
            return True
        if not self._may_remove(directory, host, host_uuid, building):
            return False
        mark = os.path.join(directory, description.NAME)
        try:
            remove_entries(directory, keep={mark, *keep})
            # the mark goes last: a removal that is cut off can go on
            remove_file(mark)
        except OSError as error:
            raise exception.StorageError(
                f"could not remove {error.filename or directory}: {error.strerror}",
                field="path",
                value=directory,
                remedy="mend what is wrong with the file system, then delete the instance again",
            ) from None
        with contextlib.suppress(OSError):  # kept disks are in it, or another host has taken it
            os.rmdir(directory)
        return True

    @staticmethod
    def _may_remove(directory: str, host: str, host_uuid: str, building: str | None) -> bool:
        if os.path.islink(directory):
            LOG.warning("%s is a link, and stays", directory)
            return False
        try:
            mark = description.read(directory)
        except exception.StorageError as error:
            LOG.warning("%s stays: its description %s", directory, error.message)
            return False
        if mark is None:
            if building is not None:
                LOG.warning("%s has the mark of no host, and stays", directory)
            return building is None
        # The operation tells hosts apart that were cloned or have one name. A libvirtd that finds no
        # UUID in the firmware makes one at each start, so the UUID of a host may change meanwhile.
        if not mark.is_of(host, host_uuid) or building not in (None, mark.building):
            LOG.warning("%s belongs to %s, and stays", directory, mark.host)
            return False
        return True

    def sweep(self, host: str, host_uuid: str) -> list[str]:
        """Remove what processes of this host left that died in ``claim``; the removed paths."""
        removed = []
        for entry in self._entries():
            if _NEW.fullmatch(entry.name) and _died(entry.path, host, host_uuid):
                shutil.rmtree(entry.path, ignore_errors=True)
                removed.append(entry.path)
        return removed

    def tighten(self, host: str, host_uuid: str, disk_directories: Sequence[str]) -> int:
        """Take from others what older versions have let them do with files; how many were changed.

        Files of instances that belong to other hosts are left to those.

        :param disk_directories: where disks may be besides; theirs have names that begin with the
            UUID of their instance.
        """
        ours = []
        for directory in self.directories():
            with contextlib.suppress(exception.StorageError):
                mark = description.read(directory)
                if mark is None or mark.is_of(host, host_uuid):
                    ours.append(directory)
        count = sum(private.tighten(path) for path in (self.cache_directory, *ours))
        uuids = tuple(f"{os.path.basename(path)}." for path in ours)
        return count + sum(private.tighten(path, uuids) for path in disk_directories)

    def _entries(self) -> list[os.DirEntry[str]]:
        """Return the real directories below the root."""
        if not os.path.isdir(self.root):
            return []
        return [entry for entry in os.scandir(self.root) if entry.is_dir(follow_symlinks=False)]

    def directories(self) -> list[str]:
        """Directories of instances, of this host's and of others' that share the root."""
        return sorted(entry.path for entry in self._entries() if is_uuid(entry.name))

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


def _died(new: str, host: str, host_uuid: str) -> bool:
    """Return whether the process that made a directory to claim is one of this host, and dead."""
    try:
        mark = description.read(new)
        if mark is not None:
            path = os.path.join(new, description.NAME)
            return mark.is_surely_of(host, host_uuid) and private.is_abandoned(path)
    except exception.StorageError as error:
        LOG.debug("%s is incomplete: %s", new, error.message)
    # there is no saying whose it is, but nobody needs so long
    with contextlib.suppress(FileNotFoundError):
        return time.time() - os.stat(new).st_mtime > _NEW_SECONDS
    return False


def remove_entries(directory: str, keep: Container[str]) -> None:
    """Empty a directory, except for the entries whose paths are in ``keep``.

    :raises OSError: the file system refuses.
    """
    for entry in list(os.scandir(directory)):
        if entry.path in keep:
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            remove_file(entry.path)
