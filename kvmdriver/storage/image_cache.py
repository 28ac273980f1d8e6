"""The image cache: each image is fetched, inspected and unpacked once for all its instances."""

import contextlib
import dataclasses
import fcntl
import hashlib
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Literal

from oslo_concurrency import lockutils

from kvmdriver import exception
from kvmdriver.model import FileImage, Image
from kvmdriver.progress import Progress, ignore
from kvmdriver.storage import fetch, image_source, inspect, private
from kvmdriver.storage.copy import copy_into, remove_file, write_error
from kvmdriver.storage.image_source import ImageSource
from kvmdriver.storage.qemu_img import QemuImg
from kvmdriver.storage.space import Reserve
from kvmdriver.storage.turns import Turns

LOG = logging.getLogger(__name__)

_MIB = 1024 * 1024
# After get() an image stays for so many seconds: time to make a disk over it, which then protects it.
_FRESH = 600
# Before the name of a file that another host has sent for one instance. What it was made from cannot
# be compared with its content any more, so no other instance may ever get it.
_RECEIVED = "received-"

Role = Literal["disk", "cdrom", "file"]


@dataclasses.dataclass(frozen=True)
class CachedImage:
    """An image in the cache, read by all and written by nobody; size in MiB, as a guest sees it.

    Our own are raw. A cache that was filled by nova's driver may hold qcow2 files as well.
    """

    path: str
    size_mib: int
    format: str = "raw"


@dataclasses.dataclass(frozen=True)
class CacheEntry:
    """A file of the cache: sizes in bytes, ``last_used`` in seconds since the epoch."""

    name: str
    path: str
    size: int
    allocated: int
    last_used: float

    @property
    def is_private(self) -> bool:
        """Whether it came for one instance, and is of no use to any other."""
        return self.name.startswith(_RECEIVED)

    def is_fresh(self) -> bool:
        """Return whether the file was taken so lately that its use may not show yet."""
        return self.last_used > time.time() - _FRESH


@dataclasses.dataclass(frozen=True)
class _Part:
    """A file of the cache that is being made, open for reading and writing."""

    path: str
    descriptor: int


class ImageCache:
    """Files in ``_base``, each named by the image that it came from.

    A disk image is kept as a raw file, whatever it was: raw files have no headers that a guest or
    a hostile image could use to reach other files (CVE-2024-32498 and its kin).

    A file has its name only when its content has been found to be what the name says: a checksum
    that was compared, or path, inode, size and time of the file that it was copied from while that
    was open. It is made under another name, and moved into its place when it is complete.

    :param reserved_mib: free space that is kept in the file system while images are written.
    """

    def __init__(
        self,
        directory: str,
        qemu_img: QemuImg,
        *,
        max_bytes: int,
        allowed_directories: tuple[str, ...],
        downloads: fetch.Rules | None = None,
        download_turns: Turns | None = None,
        reserved_mib: int = 0,
    ):
        self.directory = directory
        self.on_new: Callable[[], object] | None = None
        """Called after an image has been added, with no lock of the cache held."""
        self._qemu_img = qemu_img
        self._max_bytes = max_bytes
        self._allowed = tuple(os.path.realpath(path) for path in allowed_directories)
        self._downloads = downloads or fetch.Rules(max_bytes=max_bytes)
        self._download_turns = download_turns or Turns()
        self._other_turns = Turns()
        self._reserved_mib = reserved_mib

    def check_path(self, path: str, *, field: str = "path") -> str:
        """Return the real path of a file that a request may name.

        :raises kvmdriver.exception.ImageNotFound: it lies outside of the allowed directories.
        """
        return image_source.require_within(path, self._allowed, field)

    def check(self, image: Image, role: Role) -> inspect.ImageInfo | None:
        """Refuse early what can be refused without copying: used before anything is made.

        :returns: what a local image is; None for a kernel, and for what must be downloaded first.
        """
        if not isinstance(image, FileImage):
            self._downloads.servers.check_url(image.url)
            return None
        with image_source.opened(image.path, self._allowed) as source:
            if role == "file":
                inspect.require_content(source.descriptor, image.path)
                return None
            return inspect.inspect(
                image.path, source.descriptor, declared=image.format, max_bytes=self._max_bytes
            )

    def file_size(self, image: FileImage) -> int:
        """Size of an image's file in bytes."""
        with image_source.opened(image.path, self._allowed) as source:
            return source.status.st_size

    def locate(self, image: Image, role: Role) -> str:
        """Return where the cached copy of an image is or will be."""
        if image.checksum is not None:
            return self._path(image, role, None)
        with self._source(image) as source:
            return self._path(image, role, source)

    def get(self, image: Image, role: Role, progress: Progress = ignore) -> CachedImage:
        """Return the cached copy of an image, made now if there is none.

        :param role: ``disk`` unpacks to raw, ``cdrom`` and ``file`` (a kernel) keep the bytes.
        :raises kvmdriver.exception.KVMDriverError: the image is missing, refused or does not fit;
            nothing of it is left in the cache.
        """
        if image.checksum is not None:
            path = self._path(image, role, None)
            if self._taken(path):
                return self._raw(path)
        with self._source(image) as source:
            path = self._path(image, role, source)
            with self._turn(image, path, progress):
                self._once(path, lambda: self._fill(image, role, path, source, progress))
        return self._raw(path)

    def _turn(
        self, image: Image, path: str, progress: Progress
    ) -> contextlib.AbstractContextManager[None]:
        """Return what waits, in a ``with``, for the turn to fetch an image; the wait can be cancelled."""
        if os.path.exists(path):
            return contextlib.nullcontext()
        turns = self._other_turns if isinstance(image, FileImage) else self._download_turns
        return turns.turn(path, progress)

    def fetch(
        self,
        name: str,
        write: Callable[[str], None],
        *,
        role: Role,
        declared: str | None,
        progress: Progress = ignore,
    ) -> CachedImage:
        """Return the image that is cached under ``name``, written and looked at now if there is none.

        :param write: puts the image's bytes into a file of the given path.
        :param declared: the format that its owner gives.
        :raises kvmdriver.exception.KVMDriverError: it is refused; nothing of it is left.
        """
        path = os.path.join(self.directory, name)

        def fill() -> None:
            with contextlib.ExitStack() as stack:
                part = stack.enter_context(self._written(write))
                self._unpack(part.descriptor, part, declared, role, path, stack, progress)

        self._once(path, fill)
        if role == "disk" and inspect.starts_as_qcow2(path):
            info = inspect.inspect(path, declared="qcow2", max_bytes=self._max_bytes)
            return CachedImage(path=path, size_mib=info.size_mib, format="qcow2")
        return self._raw(path)

    def make(self, name: str, write: Callable[[str], None]) -> CachedImage:
        """Return a file of the host's own making under ``name``, e.g. an empty file system."""
        path = os.path.join(self.directory, name)

        def fill() -> None:
            with self._written(write) as part:
                self._publish(part, path)

        self._once(path, fill)
        return self._raw(path)

    def entries(self) -> list[CacheEntry]:
        """Return the files of the cache, the one that was not used for the longest time first."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self.directory):
                if entry.name.startswith(".") or not entry.is_file(follow_symlinks=False):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    found.append(
                        CacheEntry(
                            name=entry.name,
                            path=entry.path,
                            size=status.st_size,
                            allocated=status.st_blocks * 512,
                            last_used=status.st_mtime,
                        )
                    )
        return sorted(found, key=lambda entry: entry.last_used)

    def remove(self, entry: CacheEntry) -> bool:
        """Remove a file that no disk needs; False if somebody has taken or removed it since."""
        with self._locked(fcntl.LOCK_EX):
            try:
                if os.stat(entry.path).st_mtime != entry.last_used:
                    return False
                os.unlink(entry.path)
            except FileNotFoundError:
                return False
            except OSError as error:
                raise exception.StorageError(
                    f"a cached image cannot be removed: {error.strerror}",
                    value=entry.path,
                    remedy="give the agent's user the right to write to the directory",
                ) from None
        return True

    @staticmethod
    def touch(path: str) -> None:
        """Note that a file of the cache is in use: its age counts from now."""
        with contextlib.suppress(OSError):
            os.utime(path)

    def _once(self, path: str, fill: Callable[[], None]) -> None:
        """Fill a file that is not there: once for all threads that wait for the same one.

        Between processes the work may be done twice, which is harmless: results are moved into
        place.
        """
        if self._taken(path):
            return
        with lockutils.lock(f"image-{path}"):
            if self._taken(path):
                return
            try:
                fill()
            except OSError as error:  # of reading: what is written has errors of its own
                raise exception.StorageError(
                    f"the image could not be taken into the cache: {error.strerror or error}",
                    value=path,
                    remedy="look at the file systems of the image and of the cache",
                ) from None
        if self.on_new is not None:
            self.on_new()

    def _taken(self, path: str) -> bool:
        """Return whether a file is there; it will not be removed before a disk can be made over it."""
        with self._locked(fcntl.LOCK_SH):
            try:
                os.utime(path)
            except FileNotFoundError:
                return False
            except OSError as error:
                LOG.debug("the time of use of %s is not noted: %s", path, error)
        return True

    @contextlib.contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        """Hold the cache's directory against its removal of files, in other processes, too.

        NFS cannot lock a directory. There the check of the time of last use has to do.
        """
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, kind)
            yield

    @contextlib.contextmanager
    def _source(self, image: Image) -> Iterator[ImageSource | None]:
        """Open the file that an image is; None for an image that must be downloaded."""
        if isinstance(image, FileImage):
            with image_source.opened(image.path, self._allowed) as source:
                yield source
        else:
            yield None

    def _path(self, image: Image, role: Role, source: ImageSource | None) -> str:
        """Return where the copy of an image belongs; ``source`` may be missing if it has a checksum."""
        identity = image.checksum
        if identity is None:
            assert source is not None  # noqa: S101 URLs always have a checksum
            identity = source.identity
        unpacked = "raw" if role == "disk" else "asis"
        name = hashlib.sha1(
            f"{unpacked}:{identity}:{image.format}".encode(), usedforsecurity=False
        ).hexdigest()
        return os.path.join(self.directory, name)

    @staticmethod
    def _raw(path: str) -> CachedImage:
        return CachedImage(path=path, size_mib=-(-os.path.getsize(path) // _MIB))

    def _fill(
        self, image: Image, role: Role, path: str, source: ImageSource | None, progress: Progress
    ) -> None:
        with contextlib.ExitStack() as stack:
            if not isinstance(image, FileImage):
                part = self._download(image.url, image.checksum, stack, progress)
                self._unpack(part.descriptor, part, image.format, role, path, stack, progress)
                return
            assert source is not None  # noqa: S101 it has been opened
            descriptor, own = source.descriptor, None
            if not source.is_protected():
                own = self._copy(descriptor, stack, progress)
                source.require_unchanged()
                descriptor = own.descriptor
            if image.checksum is not None:
                fetch.hash_file(descriptor, image.checksum, progress=progress)
            self._unpack(descriptor, own, image.format, role, path, stack, progress, source=source)

    def _download(
        self, url: str, checksum: str, stack: contextlib.ExitStack, progress: Progress
    ) -> _Part:
        part = stack.enter_context(self._part())
        fetch.download(
            url,
            checksum,
            part.descriptor,
            rules=self._downloads,
            reserve=self._reserve(part),
            progress=progress,
        )
        return part

    def _unpack(
        self,
        descriptor: int,
        own: _Part | None,
        declared: str | None,
        role: Role,
        path: str,
        stack: contextlib.ExitStack,
        progress: Progress,
        *,
        source: ImageSource | None = None,
    ) -> None:
        """Inspect an open image and publish it in the form that ``role`` needs.

        :param own: the image if it is a part of our own, which can be moved instead of copied.
        :param source: the file that it is or was copied from, which must not have changed.
        """
        shown = own.path if source is None and own is not None else source.path if source else path
        as_it_is = True
        if role == "file":
            inspect.require_content(descriptor, shown)
        else:
            info = inspect.inspect(shown, descriptor, declared=declared, max_bytes=self._max_bytes)
            as_it_is = info.format in ("raw", "iso")
            if role == "cdrom" and not as_it_is:
                raise exception.ImageUnacceptable(
                    f"a CD drive takes ISO images, this one is {info.format}"
                )
        if not as_it_is:
            part = self._convert(descriptor, info, stack, progress)
        elif own is not None:
            part = own
        else:
            part = self._copy(descriptor, stack, progress)
        if source is not None:
            source.require_unchanged()
        self._publish(part, path)

    def _convert(
        self,
        descriptor: int,
        info: inspect.ImageInfo,
        stack: contextlib.ExitStack,
        progress: Progress,
    ) -> _Part:
        part = stack.enter_context(self._part())
        reserve = self._reserve(part)
        if info.format == "qcow2":
            content = self._qemu_img.check(descriptor, info.format)
            reserve.require(int(content * info.virtual_size))
        self._qemu_img.convert(
            descriptor, info.format, part.path, "raw", progress=progress, watch=reserve.watch
        )
        return part

    def _copy(self, source: int, stack: contextlib.ExitStack, progress: Progress) -> _Part:
        part = stack.enter_context(self._part())
        reserve = self._reserve(part)
        reserve.require(os.fstat(source).st_blocks * 512)

        def step(stage: str, done: int, total: int | None, unit: str = "bytes") -> None:
            reserve.require()
            progress(stage, done, total, unit)

        copy_into(source, part.descriptor, stage="copy image", progress=step)
        return part

    def _reserve(self, part: _Part) -> Reserve:
        return Reserve(part.descriptor, self._reserved_mib, self.directory)

    @staticmethod
    def _publish(part: _Part, path: str) -> None:
        # a name must not be there before its content, not even after a power failure
        try:
            os.fsync(part.descriptor)
            os.rename(part.path, path)
        except OSError as error:
            raise write_error(error, path) from None

    @contextlib.contextmanager
    def _written(self, write: Callable[[str], None]) -> Iterator[_Part]:
        """Yield a part that somebody else fills, who knows it by its path."""
        with self._part() as part:
            write(part.path)
            descriptor = inspect.open_regular(part.path, follow=False)
            try:
                os.fchmod(descriptor, private.MODE)
                yield _Part(part.path, descriptor)
            finally:
                os.close(descriptor)

    @contextlib.contextmanager
    def _part(self) -> Iterator[_Part]:
        """Yield a file to fill; whatever is still there at the end is removed.

        It is locked while its maker lives, which tells ``sweep`` what is left over.
        """
        private.require_directory(self.directory)
        path = os.path.join(self.directory, f".{uuid.uuid4()}.part")
        try:
            descriptor = private.create(path)
        except OSError as error:
            raise write_error(error, path) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield _Part(path, descriptor)
        finally:
            remove_file(path)
            os.close(descriptor)

    def sweep(self) -> list[str]:
        """Remove what a killed process has left half-made; returns the removed paths."""
        removed = []
        try:
            for entry in os.scandir(self.directory):
                if entry.name.endswith(".part") and private.is_abandoned(entry.path):
                    remove_file(entry.path)
                    removed.append(entry.path)
        except FileNotFoundError:
            pass
        except PermissionError:
            # instances go on without it: no images can be taken
            LOG.error(
                "cannot look into %s; %s", self.directory, private.how_to_take_over(self.directory)
            )
        return removed
