"""Image files of the host: opened once, and from then on known by their descriptor only."""

import contextlib
import dataclasses
import os
import stat
from collections.abc import Iterator

from kvmdriver import exception
from kvmdriver.storage import inspect

_SHARED = stat.S_IWGRP | stat.S_IWOTH


@dataclasses.dataclass(frozen=True)
class ImageSource:
    """An open image file; ``path`` is where it lay when it was opened."""

    descriptor: int
    path: str
    status: os.stat_result

    @property
    def identity(self) -> str:
        """Another file, or another content, has another identity."""
        status = self.status
        return f"{self.path}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"

    def is_protected(self) -> bool:
        """Return whether nobody but root and this process can change the content."""
        ours = self.status.st_uid in (0, os.geteuid())
        return ours and not self.status.st_mode & _SHARED

    def require_unchanged(self) -> None:
        """Make sure that what has been read since the opening is one version of the image.

        :raises kvmdriver.exception.ImageUnacceptable: somebody has written to it.
        """
        now = os.fstat(self.descriptor)
        if _version(now) != _version(self.status):
            raise exception.ImageUnacceptable(
                "the image has changed while it was read",
                field="path",
                value=self.path,
                remedy="try again when nobody writes to it any more",
            )


def _version(status: os.stat_result) -> tuple[int, int, int]:
    # the time of the last write can be set back by a file's owner, that of the last change cannot
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


@contextlib.contextmanager
def opened(path: str, allowed: tuple[str, ...]) -> Iterator[ImageSource]:
    """Open an image file that a request names.

    Links are followed, and directories on the way may be exchanged at any time. So what counts is
    where the file lies that has been opened, and that is what the kernel says of it.

    :param allowed: real paths of the directories below which it must lie.
    :raises kvmdriver.exception.ImageNotFound: it is missing, or lies elsewhere.
    :raises kvmdriver.exception.ImageUnacceptable: it is no regular file.
    """
    # no file outside is even opened, unless somebody exchanges directories at this moment
    descriptor = inspect.open_regular(require_within(path, allowed), follow=False)
    try:
        status = os.fstat(descriptor)
        real = os.readlink(f"/proc/self/fd/{descriptor}")
        if status.st_nlink == 0:
            raise exception.ImageNotFound(
                "the image has just been removed",
                field="path",
                value=path,
                remedy="try again when it has its new place",
            )
        if not is_within(real, allowed):
            raise outside(path, allowed, "path")
        yield ImageSource(descriptor, real, status)
    finally:
        os.close(descriptor)


def require_within(path: str, allowed: tuple[str, ...], field: str = "path") -> str:
    """Return the real path of a file that must lie below one of the directories ``allowed``.

    :raises kvmdriver.exception.ImageNotFound: it lies elsewhere, or nobody can tell where.
    """
    try:
        real = os.path.realpath(path)
    except OSError as error:  # a link has gone between two looks at it
        raise inspect.unreadable(path, error) from None
    if not is_within(real, allowed):
        raise outside(path, allowed, field)
    return real


def is_within(real: str, allowed: tuple[str, ...]) -> bool:
    """Return whether a real path is one of some directories, or lies below one."""
    return any(real == entry or real.startswith(entry.rstrip("/") + "/") for entry in allowed)


def outside(path: str, allowed: tuple[str, ...], field: str) -> exception.ImageNotFound:
    """Return the error for a file that a request may not name."""
    return exception.ImageNotFound(
        "the agent may not use files there",
        field=field,
        value=path,
        remedy="put the file below one of [kvm_storage] image_directories: "
        + (", ".join(allowed) or "none is configured"),
    )
