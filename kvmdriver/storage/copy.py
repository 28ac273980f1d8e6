"""Copying files: shared blocks where the file system can, holes kept, progress told."""

import errno
import fcntl
import os

from kvmdriver import exception
from kvmdriver.progress import Progress, ignore
from kvmdriver.storage import private

# ioctl_ficlone(2): _IOW(0x94, 9, int)
_FICLONE = 0x40049409
_CHUNK = 16 * 1024 * 1024
_REPLACED = os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


def copy_file(
    source: str | int, target: str, *, stage: str = "copy file", progress: Progress = ignore
) -> None:
    """Copy a file's content; ``target`` is created with a private mode, or overwritten.

    :raises kvmdriver.exception.InsufficientResources: the disk is full; nothing is left behind.
    :raises kvmdriver.exception.StorageError: another error of the file system.
    """
    descriptor = os.dup(source) if isinstance(source, int) else os.open(source, os.O_RDONLY)
    try:
        try:
            out = private.create(target)
        except FileExistsError:
            out = os.open(target, _REPLACED)
        try:
            _copy(descriptor, out, stage, progress)
        except OSError:
            remove_file(target)
            raise
        finally:
            os.close(out)
    except OSError as error:
        raise write_error(error, target) from None
    finally:
        os.close(descriptor)


def copy_into(source: int, target: int, *, stage: str, progress: Progress = ignore) -> None:
    """Copy the content of an open file into another one that is open and empty.

    :raises kvmdriver.exception.InsufficientResources: the disk is full.
    :raises kvmdriver.exception.StorageError: another error of the file system.
    """
    try:
        _copy(source, target, stage, progress)
    except OSError as error:
        raise write_error(error, os.readlink(f"/proc/self/fd/{target}")) from None


def _copy(source: int, target: int, stage: str, progress: Progress) -> None:
    size = os.fstat(source).st_size
    try:
        fcntl.ioctl(target, _FICLONE, source)
        progress(stage, size, size)
        return
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY):
            raise
    os.ftruncate(target, size)
    position = 0
    while position < size:
        try:
            data = os.lseek(source, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole follows
                break
            raise
        hole = os.lseek(source, data, os.SEEK_HOLE)
        while data < hole:
            count = os.copy_file_range(source, target, min(_CHUNK, hole - data), data, data)
            if count == 0:
                break
            data += count
            progress(stage, data, size)
        position = hole
    progress(stage, size, size)


def create_empty(path: str) -> int:
    """Make a file that is not there yet (``private.create``); a descriptor to write to it.

    :raises kvmdriver.exception.StorageError: there is an entry of that name, or the file system
        refuses.
    """
    try:
        return private.create(path)
    except FileExistsError:
        raise exception.StorageError(
            f"{path} exists already, and is not overwritten",
            field="path",
            value=path,
            remedy="look into it, and remove it",
        ) from None
    except OSError as error:
        raise write_error(error, path) from None


def remove_file(path: str) -> None:
    """Remove a file if it is there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def write_error(error: OSError, path: str) -> exception.KVMDriverError:
    """Our error for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return exception.InsufficientResources(
            f"the disk is full: could not write {path}",
            remedy="free space in the file system of [kvm_storage] instances_path",
        )
    return exception.StorageError(f"could not write {path}: {error.strerror or error}")
