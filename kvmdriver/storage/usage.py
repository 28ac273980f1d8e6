"""Whether a process has the files of a directory open as the disks of a guest."""

import contextlib
import fcntl
import os
import struct

# struct flock of Linux on 64 bits (fcntl(2)): type, whence, start, length, process
_FLOCK = "hhqqi4x"


def in_use(directory: str) -> bool:
    """Return whether a file right below a directory is locked, as QEMU locks what a guest writes to.

    QEMU sets locks of open file descriptions (qemu(1), ``file.locking``), which do not depend on
    which libvirt, if any, has started it. A file that cannot be opened tells nothing.
    """
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        return any(
            _is_locked(entry.path) for entry in entries if entry.is_file(follow_symlinks=False)
        )
    return False


def _is_locked(path: str) -> bool:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            # would a lock of the whole file for writing be granted? It is not taken.
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked)
        finally:
            os.close(descriptor)
        return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)
    return False
