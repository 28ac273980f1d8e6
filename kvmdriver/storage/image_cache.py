"""The image cache: each image is fetched, inspected and unpacked once for all its instances."""

import contextlib
import dataclasses
import fcntl
import hashlib
import logging
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from typing import Literal

from oslo_concurrency import lockutils

from kvmdriver import exception
from kvmdriver.model import FileImage, Image
from kvmdriver.progress import Progress, ignore
from kvmdriver.storage import fetch, inspect
from kvmdriver.storage.copy import copy_file, remove_file, write_error
from kvmdriver.storage.qemu_img import QemuImg

LOG = logging.getLogger(__name__)

_MIB = 1024 * 1024

Role = Literal["disk", "cdrom", "file"]


@dataclasses.dataclass(frozen=True)
class CachedImage:
    """An image in the cache, read by all and written by nobody; size in MiB, as a guest sees it.

    Our own are raw. A cache that was filled by nova's driver may hold qcow2 files as well.
    """

    path: str
    size_mib: int
    format: str = "raw"


class ImageCache:
    """Files in ``_base``, each named by the image that it came from.

    A disk image is kept as a raw file, whatever it was: raw files have no headers that a guest or
    a hostile image could use to reach other files (CVE-2024-32498 and its kin).
    """

    def __init__(
        self,
        directory: str,
        qemu_img: QemuImg,
        *,
        max_bytes: int,
        allowed_directories: tuple[str, ...],
        download_timeout: float = 30,
    ):
        self.directory = directory
        self._qemu_img = qemu_img
        self._max_bytes = max_bytes
        self._allowed = tuple(os.path.realpath(path) for path in allowed_directories)
        self._download_timeout = download_timeout

    def check_path(self, path: str, *, field: str = "path") -> str:
        """The real path of a file that a request may name.

        :raises kvmdriver.exception.ImageNotFound: it lies outside of the allowed directories.
        """
        real = os.path.realpath(path)
        for allowed in self._allowed:
            if real == allowed or real.startswith(allowed.rstrip("/") + "/"):
                return real
        raise exception.ImageNotFound(
            "the agent may not use files there",
            field=field,
            value=path,
            remedy="put the file below one of [kvm_storage] image_directories: "
            + (", ".join(self._allowed) or "none is configured"),
        )

    def check(self, image: Image, role: Role) -> inspect.ImageInfo | None:
        """Refuse early what can be refused without copying: used before anything is made.

        :returns: what a local image is; None for one that must be downloaded first.
        """
        if not isinstance(image, FileImage):
            return None
        path = self.check_path(image.path)
        if role == "file":
            os.close(inspect.open_regular(path))
            return None
        return inspect.inspect(path, declared=image.format, max_bytes=self._max_bytes)

    def locate(self, image: Image, role: Role) -> str:
        """Where the cached copy of an image is or will be."""
        return os.path.join(self.directory, self._key(image, role))

    def get(self, image: Image, role: Role, progress: Progress = ignore) -> CachedImage:
        """The cached copy of an image, made now if there is none.

        :param role: ``disk`` unpacks to raw, ``cdrom`` and ``file`` (a kernel) keep the bytes.
        :raises kvmdriver.exception.KVMDriverError: the image is missing, refused or does not fit;
            nothing of it is left in the cache.
        """
        path = self.locate(image, role)
        _once(path, lambda: self._fill(image, role, path, progress))
        return CachedImage(path=path, size_mib=-(-os.path.getsize(path) // _MIB))

    def fetch(
        self,
        name: str,
        write: Callable[[str], None],
        *,
        role: Role,
        declared: str | None,
        progress: Progress = ignore,
    ) -> CachedImage:
        """The image that is cached under ``name``, written and looked at now if there is none.

        :param write: puts the image's bytes into a file of the given path.
        :param declared: the format that its owner gives.
        :raises kvmdriver.exception.KVMDriverError: it is refused; nothing of it is left.
        """
        path = os.path.join(self.directory, name)

        def fill() -> None:
            with contextlib.ExitStack() as stack:
                part = stack.enter_context(self._part())
                write(part)
                self._unpack(part, declared, role, path, stack, progress, copied=True)

        _once(path, fill)
        if role == "disk" and inspect.starts_as_qcow2(path):
            info = inspect.inspect(path, declared="qcow2", max_bytes=self._max_bytes)
            return CachedImage(path=path, size_mib=info.size_mib, format="qcow2")
        return CachedImage(path=path, size_mib=-(-os.path.getsize(path) // _MIB))

    def make(self, name: str, write: Callable[[str], None]) -> CachedImage:
        """A file of the host's own making under ``name``, e.g. an empty file system."""
        path = os.path.join(self.directory, name)

        def fill() -> None:
            with self._part() as part:
                write(part)
                self._publish(part, path)

        _once(path, fill)
        return CachedImage(path=path, size_mib=-(-os.path.getsize(path) // _MIB))

    def _key(self, image: Image, role: Role) -> str:
        if image.checksum is not None:
            identity = image.checksum
        else:
            assert isinstance(image, FileImage)  # noqa: S101 URLs always have a checksum
            path = self.check_path(image.path)
            descriptor = inspect.open_regular(path)
            try:
                status = os.fstat(descriptor)
            finally:
                os.close(descriptor)
            identity = f"{path}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"
        unpacked = "raw" if role == "disk" else "asis"
        return hashlib.sha1(
            f"{unpacked}:{identity}:{image.format}".encode(), usedforsecurity=False
        ).hexdigest()

    def _fill(self, image: Image, role: Role, path: str, progress: Progress) -> None:
        with contextlib.ExitStack() as stack:
            source = self._source(image, stack, progress)
            self._unpack(source, image.format, role, path, stack, progress)

    def _unpack(
        self,
        source: str,
        declared: str | None,
        role: Role,
        path: str,
        stack: contextlib.ExitStack,
        progress: Progress,
        *,
        copied: bool = False,
    ) -> None:
        """Inspect an image and publish it in the form that ``role`` needs.

        :param copied: ``source`` is a part of our own, which can be moved instead of copied.
        """
        as_it_is = True
        if role == "file":
            os.close(inspect.open_regular(source))
        else:
            info = inspect.inspect(source, declared=declared, max_bytes=self._max_bytes)
            as_it_is = info.format in ("raw", "iso")
            if role == "cdrom" and not as_it_is:
                raise exception.ImageUnacceptable(
                    f"a CD drive takes ISO images, this one is {info.format}"
                )
        if as_it_is:
            if copied:
                self._publish(source, path)
            else:
                self._publish_copy(source, path, stack, progress)
            return
        if info.format == "qcow2":
            self._qemu_img.check(source, info.format)
        part = stack.enter_context(self._part())
        self._qemu_img.convert(source, info.format, part, "raw", progress=progress)
        self._publish(part, path)

    def _source(self, image: Image, stack: contextlib.ExitStack, progress: Progress) -> str:
        """A file with the image that nobody can change under our hands."""
        if not isinstance(image, FileImage):
            part = stack.enter_context(self._part())
            fetch.download(
                image.url,
                image.checksum,
                part,
                max_bytes=self._max_bytes,
                timeout=self._download_timeout,
                progress=progress,
            )
            return part
        path = self.check_path(image.path)
        descriptor = inspect.open_regular(path)
        stack.callback(os.close, descriptor)
        if not _only_ours(path, os.fstat(descriptor)):
            part = stack.enter_context(self._part())
            copy_file(descriptor, part, stage="copy image", progress=progress)
            path = part
            descriptor = inspect.open_regular(path)
            stack.callback(os.close, descriptor)
        if image.checksum is not None:
            fetch.hash_file(descriptor, image.checksum, progress=progress)
        return path

    def _publish_copy(
        self, source: str, path: str, stack: contextlib.ExitStack, progress: Progress
    ) -> None:
        part = stack.enter_context(self._part())
        copy_file(source, part, stage="copy image", progress=progress)
        self._publish(part, path)

    @staticmethod
    def _publish(part: str, path: str) -> None:
        os.chmod(part, 0o640)  # QEMU's group may read what libvirt has given to its user
        os.rename(part, path)

    @contextlib.contextmanager
    def _part(self) -> Iterator[str]:
        """A file to fill; whatever is still there at the end is removed.

        It is locked while its maker lives, which tells ``sweep`` what is left over.
        """
        os.makedirs(self.directory, mode=0o711, exist_ok=True)
        path = os.path.join(self.directory, f".{uuid.uuid4()}.part")
        try:
            lock = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise write_error(error, path) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield path
        finally:
            remove_file(path)
            os.close(lock)

    def sweep(self) -> list[str]:
        """Remove what a killed process has left half-made; returns the removed paths."""
        removed = []
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self.directory):
                if entry.name.endswith(".part") and _is_abandoned(entry.path):
                    remove_file(entry.path)
                    removed.append(entry.path)
        return removed


def _once(path: str, fill: Callable[[], None]) -> None:
    """Fill a file that is not there: once for all threads that wait for the same one.

    Between processes the work may be done twice, which is harmless: results are moved into place.
    """
    if os.path.exists(path):
        return
    with lockutils.lock(f"image-{path}"):
        if not os.path.exists(path):
            fill()


def _is_abandoned(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _only_ours(path: str, status: os.stat_result) -> bool:
    """Whether nobody but root and us can change a file or put another one in its place."""
    directory = os.stat(os.path.dirname(path))
    shared = stat.S_IWGRP | stat.S_IWOTH
    return all(
        entry.st_uid in (0, os.geteuid()) and not entry.st_mode & shared
        for entry in (status, directory)
    )
