"""The image cache over time: its files, who uses them, and which may be removed."""

import contextlib
import datetime
import logging
import os
import time
from collections.abc import Iterable

from kvmdriver import exception
from kvmdriver.hypervisor.record import Record, TaskName
from kvmdriver.model import CachedImageView, Instance
from kvmdriver.operations.context import Context
from kvmdriver.storage import description as descriptions
from kvmdriver.storage import inspect
from kvmdriver.storage.image_cache import CacheEntry

LOG = logging.getLogger(__name__)

_MIB = 1024 * 1024
_DAY = 86400


def list_images(context: Context) -> list[CachedImageView]:
    """Return every file of the cache, and the instances that use it.

    :raises kvmdriver.exception.StorageError: a directory of the cache's users cannot be read.
    """
    used = _users(context, _records(context))
    return [
        CachedImageView(
            name=entry.name,
            size_mib=-(-entry.size // _MIB),
            disk_mib=-(-entry.allocated // _MIB),
            last_used=datetime.datetime.fromtimestamp(entry.last_used, datetime.UTC).strftime(
                "%Y-%m-%dT%H:%M:%SZ"
            ),
            used_by=tuple(sorted(used.get(entry.name, ()))),
        )
        for entry in context.images.entries()
    ]


def prune(
    context: Context, names: tuple[str, ...] = (), *, unused: bool = False
) -> tuple[str, ...]:
    """Remove images from the cache; an instance that needs one later fetches it again.

    :param names: which; all of them are checked before the first is removed.
    :param unused: every image that no instance uses.
    :returns: the names of what was removed.
    :raises kvmdriver.exception.ImageNotFound: the cache has no file of that name.
    :raises kvmdriver.exception.ImageInUse: an instance uses it.
    :raises kvmdriver.exception.InstanceBusy: an instance is moving here, and may use it.
    """
    if unused == bool(names):
        raise exception.InvalidRequest(
            "give the images to remove, or ask for all that no instance uses",
            field="names",
            remedy="use names, or unused, and not both",
        )
    entries = {entry.name: entry for entry in context.images.entries()}
    for name in names:
        if name not in entries:
            raise exception.ImageNotFound(
                "the image cache has no such file",
                field="names",
                value=name,
                remedy="list them with: kvmdriver image cache list",
            )
    records = _records(context)
    coming = _coming(records)
    if coming is not None:
        raise exception.InstanceBusy(
            "an instance is moving to this host: which images it uses shows when its disks are here",
            instance=coming,
            remedy="wait until it has come: kvmdriver server migration list",
        )
    used = _users(context, records)
    busy = any(record.task is not None for record in records)
    kept = {name for name in entries if used.get(name) or (busy and entries[name].is_fresh())}
    for name in names:
        if name in kept:
            users = ", ".join(sorted(used.get(name, ()))[:5])
            raise exception.ImageInUse(
                f"the image is used by {users}"
                if users
                else "the image has just been taken, and an operation is under way",
                field="names",
                value=name,
            )
    chosen = [entries[name] for name in names or entries if name not in kept]
    return tuple(entry.name for entry in chosen if context.images.remove(entry))


def evict(context: Context) -> list[str]:
    """Remove images that are too old, or too many for the cache's size; return the names of those removed.

    Runs when an image has been added and when the agent starts. An error is no reason for either
    to fail, so it is only logged.
    """
    try:
        return _evict(context)
    except (exception.KVMDriverError, OSError) as error:
        LOG.warning("the image cache was not tidied: %s", error)
        return []


def _evict(context: Context) -> list[str]:
    storage = context.conf.kvm_storage
    entries = context.images.entries()
    size = sum(entry.allocated for entry in entries)
    most = storage.cache_max_gib * 1024**3 or size
    oldest = time.time() - storage.cache_unused_days * _DAY if storage.cache_unused_days else 0.0
    if not any(_has_to_go(entry, size > most, oldest) for entry in entries):
        return []
    records = _records(context)
    if _coming(records) is not None:
        return []
    used = _users(context, records)
    removed = []
    for entry in entries:
        if used.get(entry.name):
            context.images.touch(entry.path)
        elif _has_to_go(entry, size > most, oldest) and context.images.remove(entry):
            size -= entry.allocated
            removed.append(entry.name)
    if removed:
        LOG.info("removed %d images that no instance uses from the cache", len(removed))
    return removed


def _has_to_go(entry: CacheEntry, too_much: bool, oldest: float) -> bool:
    """Return whether a file that no instance uses is to be removed."""
    wanted = not too_much and not entry.is_private and entry.last_used >= oldest
    return not wanted and not entry.is_fresh()


def _records(context: Context) -> list[Record]:
    found = (context.record(summary.uuid) for summary in context.hypervisor.summaries())
    return [record for record in found if record is not None]


def _coming(records: Iterable[Record]) -> str | None:
    """Return the name of an instance that moves to this host, so that its disks cannot be read yet."""
    names = (r.instance.name for r in records if r.task and r.task.name == TaskName.INCOMING)
    return next(names, None)


def _users(context: Context, records: Iterable[Record]) -> dict[str, set[str]]:
    """Return the names of the cache's files in use, and the instances that use them.

    Disks are looked at themselves, in all directories: those of other hosts that share them, of
    instances that are being made, and of instances that nobody knows any more.

    :raises kvmdriver.exception.StorageError: something cannot be read that might use a file.
    """
    used: dict[str, set[str]] = {}
    outside: dict[str, str] = {}

    def note(instance: Instance) -> None:
        for disk in instance.disks:
            if disk.file is None:
                continue
            if disk.device == "cdrom":
                used.setdefault(os.path.basename(disk.file.path), set()).add(instance.name)
            else:
                outside[disk.file.path] = instance.name

    known = {}
    for record in records:
        known[record.instance.uuid] = record.instance.name
        note(record.instance)
    for directory in _directories(context):
        uuid = os.path.basename(directory)
        described = None if uuid in known else descriptions.read(directory)
        if described is not None:
            note(described.instance)
        name = described.instance.name if described else known.get(uuid, uuid)
        for path in _files(directory):
            outside.pop(path, None)
            _note_backing(path, name, used)
    for path, name in outside.items():
        _note_backing(path, name, used)
    return used


def _note_backing(path: str, name: str, used: dict[str, set[str]]) -> None:
    """Note the file that a disk is an overlay of.

    A guest can write what looks like a header to a raw disk: then a file stays that could go.
    """
    try:
        backing = inspect.header_backing(path)
    except (FileNotFoundError, exception.ImageUnacceptable):
        return
    except OSError as error:
        raise _unreadable(path, error) from None
    if backing is not None:
        used.setdefault(os.path.basename(backing), set()).add(name)


def _directories(context: Context) -> list[str]:
    """Return every directory that may hold disks over files of the cache."""
    return [
        path for path in _entries(context.store.root, directories=True)
        if path != context.store.cache_directory
    ]  # fmt: skip


def _files(directory: str) -> list[str]:
    return _entries(directory, directories=False)


def _entries(directory: str, *, directories: bool) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        try:
            return [
                entry.path
                for entry in os.scandir(directory)
                if (entry.is_dir if directories else entry.is_file)(follow_symlinks=False)
            ]
        except PermissionError as error:
            raise _unreadable(directory, error) from None
    return []


def _unreadable(path: str, error: OSError) -> exception.StorageError:
    return exception.StorageError(
        f"cannot see which images are in use: {error.strerror}",
        field="kvm_storage.instances_path",
        value=path,
        remedy="give the agent's user the right to read it",
    )
