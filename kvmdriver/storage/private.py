"""Files that only their maker and QEMU may read, made by descriptor and never through a link.

A file gets its mode when it is made. libvirt gives what a guest uses to QEMU's user when the guest
starts, so that modes need to let nobody else in (https://libvirt.org/drvqemu.html#posix-users-groups).
"""

import contextlib
import errno
import fcntl
import logging
import os
import stat
from collections.abc import Iterator

from kvmdriver import exception

LOG = logging.getLogger(__name__)

# libvirt gives a file that a guest uses to QEMU's user and group. libvirt does not give a config
# drive back, nor any other read-only disk, when the guest ends. An agent that is not root reads
# these files as a member of the group.
MODE = 0o640
# QEMU never reads a description, which has the password of the screen.
SECRET_MODE = 0o600
# QEMU runs as another user: it must be able to pass through, not to look around.
DIRECTORY_MODE = 0o711
# what makes a program that we start give its files MODE
UMASK = 0o137

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# writing by the group, anything by others
_TOO_MUCH = 0o027


def create(path: str, mode: int = MODE, *, directory: int | None = None) -> int:
    """Make a file that is not there yet; a descriptor for reading and writing.

    :param directory: descriptor of the directory that ``path`` starts at.
    :raises FileExistsError: there is an entry of that name, be it a link that leads nowhere.
    :raises OSError: the file system refuses.
    """
    descriptor = os.open(path, _NEW, mode, dir_fd=directory)
    # a umask may have taken the group's right to read away
    os.fchmod(descriptor, mode)
    _give(descriptor, os.stat(os.path.dirname(path) or ".", dir_fd=directory))
    return descriptor


def create_directory(path: str, mode: int = DIRECTORY_MODE) -> None:
    """Make a directory that is not there yet.

    :raises FileExistsError: there is an entry of that name.
    :raises OSError: the file system refuses.
    """
    os.mkdir(path, mode)
    descriptor = os.open(path, _DIRECTORY)
    try:
        _give(descriptor, os.stat(os.path.dirname(path) or "."))
    finally:
        os.close(descriptor)


def require_directory(path: str) -> None:
    """Make a directory, and those above it, where they are missing.

    :raises OSError: the file system refuses, or there is something else.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        create_directory(path)
    except FileExistsError:
        if not os.path.isdir(path):
            raise


def _give(descriptor: int, parent: os.stat_result) -> None:
    """Give what root has just made to the user to whom the directory around it belongs.

    Root's command line and an agent that is not root work on the same instances. libvirt gives a
    disk back to the user that it belonged to when its guest was started.
    """
    if os.geteuid() == 0 and parent.st_uid != 0:
        # a file system of another machine may refuse this to its clients' root
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, parent.st_uid, parent.st_gid)


def publish(descriptor: int, directory: int, part: str, name: str) -> None:
    """Give a complete file its name; whatever has that name already stays.

    :param descriptor: the file, open.
    :param directory: descriptor of the directory that has it as ``part``, and shall as ``name``.
    :raises FileExistsError: there is an entry of that name.
    """
    try:
        # by the descriptor (linkat(2), AT_SYMLINK_FOLLOW): the entry may be another file by now
        os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=directory, follow_symlinks=True)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        # a file system without hard links: an empty file of ours keeps the name
        os.close(create(name, directory=directory))
        os.rename(part, name, src_dir_fd=directory, dst_dir_fd=directory)
        return
    remove(part, directory)


def remove(name: str, directory: int) -> None:
    """Remove an entry of an open directory if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def how_to_take_over(directory: str) -> str:
    """Return the remedy for files of root's in a directory of ours."""
    return f"as root: chown -Rh --from=root {os.geteuid()}:{os.getegid()} {directory}"


@contextlib.contextmanager
def opened_directory(path: str) -> Iterator[int]:
    """Yield the descriptor of a directory whose real path is ``path``.

    :raises kvmdriver.exception.StorageError: there is a link on the way, or no directory.
    """
    try:
        descriptor = os.open(path, _DIRECTORY)
    except OSError as error:
        raise exception.StorageError(
            f"cannot open the directory {path}: {error.strerror}", field="path", value=path
        ) from None
    try:
        if os.readlink(f"/proc/self/fd/{descriptor}") != path:
            raise exception.StorageError(
                f"{path} was replaced by a link while it was looked at",
                field="path",
                value=path,
                remedy="use a directory that only root can change",
            )
        yield descriptor
    finally:
        os.close(descriptor)


def only_ours(directory: str) -> bool:
    """Return whether nobody but root and us can replace a file there, or a directory on the way.

    In a directory with the sticky bit others can make files, and not rename or remove ours.

    :param directory: a real path.
    """
    while True:
        status = os.lstat(directory)
        shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if status.st_uid not in (0, os.geteuid()) or (
            shared and not status.st_mode & stat.S_ISVTX
        ):
            return False
        if directory == "/":
            return True
        directory = os.path.dirname(directory)


def is_abandoned(path: str) -> bool:
    """Return whether the process that held a file locked has died."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def tighten(directory: str, prefixes: tuple[str, ...] = ("",)) -> int:
    """Take from others what they can do with the files of a directory; how many were changed.

    Links are not followed, and a file with more than one name may be another one's: it stays as it is.

    :param prefixes: what the names of ours begin with.
    """
    try:
        place = os.open(directory, _DIRECTORY)
    except OSError:
        return 0
    try:
        names = [entry.name for entry in os.scandir(place) if entry.is_file(follow_symlinks=False)]
        return sum(_tighten(name, place) for name in names if name.startswith(prefixes))
    finally:
        os.close(place)


def _tighten(name: str, directory: int) -> bool:
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=directory)
    except OSError:
        return False  # it has gone, or it is closed to us as well
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            return False
        if not status.st_mode & _TOO_MUCH:
            return False
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & ~_TOO_MUCH)
    except OSError as error:
        LOG.warning("cannot take the rights of others from %s: %s", name, error.strerror)
        return False
    finally:
        os.close(descriptor)
    return True
