"""Snapshots of a disk to an image file, of stopped and of running instances."""

import contextlib
import os
import secrets
from collections.abc import Sequence

from kvmdriver import exception
from kvmdriver.guest.block_copy import copy_running, end_copies
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.record import Record, Task, TaskName
from kvmdriver.model import Disk, Instance
from kvmdriver.operations.context import Context, require_status
from kvmdriver.progress import Progress, ignore
from kvmdriver.storage import private
from kvmdriver.storage.copy import copy_into, create_empty, remove_file, write_error

Identity = tuple[int, int]


def snapshot(
    context: Context,
    name_or_uuid: str,
    path: str,
    *,
    disk_name: str | None = None,
    image_format: str = "qcow2",
    request_id: str | None = None,
    progress: Progress = ignore,
) -> str:
    """Write a disk of an instance, the first unless named, to a new image without backing files.

    A running guest keeps running; where its agent answers, its file systems are frozen for the
    moment in which the copy becomes complete. The image appears under its name when it is whole.
    Where users besides root could replace files in its directory, the image is written to the
    directory of the instance first, and copied.

    :param path: a file that does not exist yet, in a directory that requests may use.
    :returns: the real path of the image.
    """
    with context.exclusively(name_or_uuid) as (domain, record):
        disk = choose_disk(domain, record.instance, disk_name)
        directory = context.images.check_path(os.path.dirname(path) or "/")
        if not os.path.isdir(directory):
            raise exception.InvalidRequest(
                "there is no such directory", field="path", value=path, remedy="make it first"
            )
        name = os.path.basename(path)
        target = os.path.join(directory, name)
        if os.path.lexists(target):
            if record.done(request_id) is not None:
                return target
            raise _taken(target)
        status = require_status(
            domain, "snapshot", "running", "paused", "stopped", "crashed", "suspended", remedies={}
        )
        # QEMU and libvirt work with paths: what they write lies where nobody can put a link instead
        safe = private.only_ours(directory)
        working_directory = directory if safe else context.store.layout(domain.uuid).directory
        part_name = f".{domain.uuid}.{secrets.token_hex(8)}.snapshot.part"
        part = os.path.join(working_directory, part_name)
        files = (part,) if safe else (part, os.path.join(directory, part_name))
        assert disk.file is not None and disk.name is not None  # noqa: S101
        with context.task(
            domain,
            record,
            TaskName.SNAPSHOT,
            request_id,
            files=files,
            removes=files,  # where the image is linked, and not renamed
            publishes=target,
            answer=target,
        ):
            if status in ("running", "paused"):
                copy_running(
                    context.hypervisor,
                    context.qemu_img,
                    domain,
                    disk.name,
                    part,
                    image_format,
                    progress,
                )
            else:
                os.close(create_empty(part))
                context.qemu_img.convert(
                    disk.file.path,
                    disk.file.format,
                    part,
                    image_format,
                    stage="write snapshot",
                    progress=progress,
                )
            _publish(part, directory, name, safe=safe, progress=progress)
        return target


def _publish(part: str, directory: str, name: str, *, safe: bool, progress: Progress) -> None:
    """Give a complete image its name in a directory; a file that has that name already stays.

    :param safe: ``part`` lies in that directory already; else it is copied there.
    """
    target, part_name = os.path.join(directory, name), os.path.basename(part)
    try:
        with contextlib.ExitStack() as stack:
            there = stack.enter_context(private.opened_directory(directory))
            # to be named, a file need not be readable: it may be QEMU's by now
            flags = (os.O_PATH if safe else os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC
            image = os.open(part, flags)
            stack.callback(os.close, image)
            if not safe:
                source, image = image, private.create(part_name, directory=there)
                stack.callback(os.close, image)
                stack.callback(private.remove, part_name, there)
                copy_into(source, image, stage="copy snapshot", progress=progress)
                remove_file(part)  # so that a part which is left says that nothing was published
            private.publish(image, there, part_name, name)
    except FileExistsError:
        raise _taken(target) from None
    except OSError as error:
        raise write_error(error, target) from None


def _taken(target: str) -> exception.InvalidRequest:
    return exception.InvalidRequest(
        "the file exists already", field="path", value=target, remedy="choose another name"
    )


def mend(_context: Context, domain: Domain, _record: Record, task: Task) -> bool:
    """End the copy that a process which died has left; return whether the image is complete."""
    end_copies(domain)
    image = _identity(task.publishes or "")
    return decide(image, [found for path in task.files if (found := _identity(path))])


def decide(image: Identity | None, parts: Sequence[Identity]) -> bool:
    """Decide whether a snapshot is done: its part has become the image, which was not there before.

    :param image: device and inode of what has the name of the image.
    :param parts: those of the parts that are still there. One that is not the image, too, says that
        a file of that name is somebody else's.
    """
    return image is not None and all(part == image for part in parts)


def _identity(path: str) -> Identity | None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def choose_disk(domain: Domain, instance: Instance, name: str | None) -> Disk:
    """Return the disk of that name, or the first disk.

    :raises kvmdriver.exception.DeviceNotFound: there is none.
    """
    disks = [d for d in instance.disks if d.device == "disk" and d.file is not None]
    for disk in disks:
        if name in (None, disk.name):
            return disk
    raise exception.DeviceNotFound(
        f"the instance has no disk {name}" if name else "the instance has no disk",
        field="disk",
        value=name,
        instance=domain.name,
        remedy="its disks: " + (", ".join(d.name or "" for d in disks) or "none"),
    )
