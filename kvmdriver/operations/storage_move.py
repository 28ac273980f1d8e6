"""Moving a disk to another directory or format of the same host, with the guest running or off."""

import os

from kvmdriver import exception
from kvmdriver.definition.disks import copy_target
from kvmdriver.guest.block_copy import end_copies, mirrored
from kvmdriver.hypervisor import xml
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.record import Record, Task, TaskName
from kvmdriver.model import Disk, DiskView, Instance
from kvmdriver.operations.context import Context, require_status
from kvmdriver.operations.snapshot import choose_disk
from kvmdriver.progress import Progress, ignore
from kvmdriver.storage import private

_RESUME = {"suspended": "resume it first: its saved memory names the disks that it has now"}


def move_disk(
    context: Context,
    name_or_uuid: str,
    disk_name: str,
    *,
    directory: str | None = None,
    disk_format: str | None = None,
    request_id: str | None = None,
    progress: Progress = ignore,
) -> DiskView:
    """Copy a disk to a new file, have the guest go on with that, and remove the old one.

    The new file holds everything, what came from an image included. A running guest writes to both
    until the copy is complete, and then to the new one only
    (https://libvirt.org/kbase/live_full_disk_backup.html, blockcopy with pivot).

    :param directory: one of [kvm_storage] disk_directories, or None for the instance's own.
    :raises kvmdriver.exception.KVMDriverError: it failed; the guest has the disk that it had.
    """
    with context.exclusively(name_or_uuid) as (domain, record):
        disk = choose_disk(domain, record.instance, disk_name)
        assert disk.file is not None and disk.name is not None  # noqa: S101 it has been chosen
        if record.done(request_id) is not None:
            return _view(disk)
        status = require_status(
            domain, "moving a disk", "running", "paused", "stopped", "crashed", remedies=_RESUME
        )
        path, image_format = disk.file.path, disk_format or disk.file.format
        target = _target(context, record.instance, disk, directory, image_format)
        if target == path:
            return _view(disk)
        size = domain.block_info(disk.name)[0]
        _require_space(target, size)
        moved = disk.changed(
            file={"path": target, "format": image_format}, format=image_format, image=None,
            size_mib=-(-size // 1048576),
        )  # fmt: skip
        if os.path.lexists(target):  # be it a link that leads nowhere
            raise exception.InvalidRequest(
                "there is a file of that name already",
                field="directory",
                value=target,
                remedy="look into it, and remove it",
            )
        with context.task(
            domain,
            record,
            TaskName.MOVE_DISK,
            request_id,
            wanted=_with(record.instance, moved),
            files=(target,),
            removes=(path,),
        ):
            # made by us and then filled by QEMU: so it is ours again when libvirt gives it back
            context.qemu_img.create_target(target, image_format, size)
            if status in ("running", "paused"):
                element = copy_target(target, image_format)
                with mirrored(
                    context.hypervisor, domain, disk.name, element, "move disk", progress
                ):
                    domain.pivot(disk.name)
            else:
                context.qemu_img.convert(
                    path,
                    disk.file.format,
                    target,
                    image_format,
                    stage="move disk",
                    progress=progress,
                )
            _redefine(context, context.hypervisor.domain(domain.uuid), moved)
        return _view(moved)


def mend(context: Context, domain: Domain, _record: Record, task: Task) -> bool:
    """End a move that was cut off: the disk is where the guest has it; return whether it has moved.

    :raises kvmdriver.exception.InvalidState: libvirt has missed the end of the copy, and takes the
        old file for the guest's. Nothing is removed before the guest has been switched off.
    """
    end_copies(domain)
    moved = _moved(task)
    nodes = domain.xml().iterfind("devices/disk")
    node = next((n for n in nodes if xml.attribute(n, "target", "dev") == moved.name), None)
    if node is None:
        return False
    alias = xml.attribute(node, "alias", "name")
    # A libvirtd that died between QEMU's end of the job and its own note of that drops the job, and
    # keeps the mirror (qemuBlockJobRefreshJobs).
    if node.find("mirror") is not None and domain.file_in_use(alias) in task.files:
        _redefine(context, domain, moved)
        raise exception.InvalidState(
            f"libvirt does not know that {moved.name} has moved, and cannot be told while the guest runs",
            field="disk",
            value=moved.name,
            instance=domain.name,
            remedy="shut the instance down and start it: kvmdriver server stop NAME",
        )
    if xml.attribute(node, "source", "file") not in task.files:
        return False
    _redefine(context, domain, moved)
    return True


def follow_lost(context: Context, domain: Domain, record: Record, task: Task) -> None:
    """Define the disk that a guest uses, after libvirt lost it while the copy ended.

    That is the file written last: both get the same while the copy runs, and afterwards only the
    guest's is written.
    """
    moved = _moved(task)
    before = next(disk for disk in record.instance.disks if disk.name == moved.name)
    assert before.file is not None and moved.file is not None  # noqa: S101 such disks are moved
    if _written(moved.file.path) >= _written(before.file.path):
        _redefine(context, domain, moved)


def _written(path: str) -> int:
    """Return when a file was written last, in ns; 0 if there is no file."""
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:
        return 0


def _moved(task: Task) -> Disk:
    assert task.wanted is not None  # noqa: S101 the task has noted it
    return next(d for d in task.wanted.disks if d.file and d.file.path in task.files)


def outside_disks(instance: Instance) -> list[str]:
    """Return the files of disks outside of the instance's directory, which go with the instance."""
    return [
        disk.file.path
        for disk in instance.disks
        if disk.device == "disk"
        and disk.file is not None
        and os.path.basename(disk.file.path).startswith(f"{instance.uuid}.")
    ]


def _target(
    context: Context, instance: Instance, disk: Disk, directory: str | None, image_format: str
) -> str:
    assert disk.file is not None  # noqa: S101 the caller has looked
    if directory is None:
        directory = os.path.dirname(disk.file.path)
    layout = context.store.layout(instance.uuid)
    if directory == layout.directory:
        first = instance.disks[0].name == disk.name
        path = layout.disk(disk.name or "", first=first)
        if path == disk.file.path and image_format != disk.file.format:
            path = layout.file(f"disk.{disk.name}.{image_format}")
        return path
    allowed = [os.path.realpath(path) for path in context.conf.kvm_storage.disk_directories]
    real = os.path.realpath(directory)
    if real not in allowed:
        raise exception.InvalidRequest(
            "disks may not be moved there",
            field="directory",
            value=directory,
            instance=instance.name,
            remedy="use one of [kvm_storage] disk_directories: "
            + (", ".join(allowed) or "none is configured"),
        )
    if not os.path.isdir(real):
        raise exception.InvalidRequest(
            "there is no such directory",
            field="directory",
            value=directory,
            remedy="make it first",
        )
    if not private.only_ours(real):
        raise exception.InvalidRequest(
            "other users than root can replace files there, or the directory itself",
            field="directory",
            value=directory,
            instance=instance.name,
            remedy=f"have root own {real} and the directories above it, and nobody else write "
            f"to them: chown root {real}; chmod go-w {real}",
        )
    return os.path.join(real, f"{instance.uuid}.{disk.name}.{image_format}")


def _require_space(target: str, size: int) -> None:
    status = os.statvfs(os.path.dirname(target))
    free = status.f_bavail * status.f_frsize
    if size > free:
        raise exception.InsufficientResources(
            f"the disk may need {size >> 20} MiB there, {free >> 20} MiB are free",
            field="directory",
            value=os.path.dirname(target),
            remedy="free space there, or choose another directory",
        )


def _redefine(context: Context, domain: Domain, disk: Disk) -> None:
    """Define the disk for the next start of the guest, too."""
    assert disk.file is not None  # noqa: S101 it has just been given one
    root = domain.xml(inactive=True, secure=True)
    for node in root.iterfind("devices/disk"):
        if xml.attribute(node, "target", "dev") == disk.name:
            source, driver = node.find("source"), node.find("driver")
            if source is not None and driver is not None:
                source.set("file", disk.file.path)
                driver.set("type", disk.file.format)
    context.hypervisor.define(root)


def _with(instance: Instance, disk: Disk) -> Instance:
    disks = tuple(disk if d.name == disk.name else d for d in instance.disks)
    return instance.changed(disks=disks)


def _view(disk: Disk) -> DiskView:
    assert disk.file is not None and disk.name is not None  # noqa: S101 the caller has looked
    return DiskView(
        name=disk.name,
        device=disk.device,
        bus=disk.bus or "",
        path=disk.file.path,
        format=disk.file.format,
        size_mib=disk.size_mib,
    )
