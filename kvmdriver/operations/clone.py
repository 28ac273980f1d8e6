"""Cloning a stopped instance, and giving it another name."""

import os

from kvmdriver import exception
from kvmdriver.definition.build import domain_xml
from kvmdriver.guest import console
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.record import Record, Task, TaskName
from kvmdriver.model import Disk, Instance, InstanceView
from kvmdriver.model.config_drive import hostname_from
from kvmdriver.model.layout import mac_address
from kvmdriver.operations import spawn, view
from kvmdriver.operations.context import Context, require_status
from kvmdriver.progress import Progress, ignore
from kvmdriver.storage import config_drive
from kvmdriver.storage.copy import copy_file

_STOP = {
    "running": "stop it first: kvmdriver server stop NAME",
    "paused": "stop it first: kvmdriver server stop NAME",
    "suspended": "resume and stop it first: a clone has no use for another's memory",
}


def clone(
    context: Context,
    name_or_uuid: str,
    *,
    name: str,
    uuid: str,
    request_id: str | None = None,
    progress: Progress = ignore,
) -> InstanceView:
    """Copy a stopped instance: disks that share nothing, a new UUID, name and MAC addresses.

    The clone is left stopped. The same request again gives the same answer.

    :raises kvmdriver.exception.InvalidState: the source is not stopped.
    :raises kvmdriver.exception.InstanceExists: the name or the UUID is taken, or the directory of
        that UUID belongs to another host or has kept disks.
    """
    source, record = context.find(name_or_uuid)
    if source.uuid == uuid:
        raise exception.InvalidRequest(
            "a clone needs a UUID of its own", field="uuid", value=uuid, remedy="leave it out"
        )
    digest = f"clone of {source.uuid} as {name}"
    with context.locks.hold(source.uuid, uuid):
        source, record = context.at_rest(source.uuid)
        spawn.clear_leftover(context, uuid)
        existing = context.hypervisor.find(uuid) or context.hypervisor.find(name)
        if existing is not None:
            found = context.record(existing.uuid)
            if existing.uuid == uuid and found is not None and found.digest == digest:
                return view.show(context, uuid)
            raise exception.InstanceExists(
                f"there is already an instance {existing.name!r} with UUID {existing.uuid}",
                field="name" if existing.name == name else "uuid",
                value=name if existing.name == name else uuid,
                instance=existing.name,
            )
        require_status(source, "clone", "stopped", "crashed", remedies=_STOP)
        context.store.require_free(uuid)
        instance = _copy_of(context, source, record.instance, name, uuid)
        context.store.require(_size_mib(record.instance))
        task = Task.begin(TaskName.CREATE, request_id)
        building = Record(instance=instance, root=context.store.root, digest=digest, task=task)
        with context.under_way(uuid, task):
            emulator = source.xml().findtext("devices/emulator")
            domain = context.hypervisor.define(
                domain_xml(instance, context.platform(uuid, emulator), building.to_element())
            )
            context.claim(domain, building)
            _copy_files(context, record.instance, instance, progress)
            # libvirtd may have been started again in the meantime
            context.finish(context.hypervisor.domain(uuid), building, task, done=True)
    return view.show(context, uuid)


def _copy_of(
    context: Context, source: Domain, instance: Instance, name: str, uuid: str
) -> Instance:
    layout = context.store.layout(uuid)
    first = next((disk for disk in instance.disks if disk.device == "disk"), None)

    def moved(disk: Disk) -> Disk:
        if disk.device == "cdrom" or disk.file is None:
            return disk
        path = layout.disk(disk.name or "", first=disk is first)
        return disk.changed(file={"path": path, "format": disk.file.format}, serial=None)

    nics = tuple(
        nic.changed(mac=mac_address(uuid, "nic", position))
        for position, nic in enumerate(instance.nics)
    )
    drive = instance.config_drive
    if drive is not None:
        drive = drive.changed(
            hostname=hostname_from(name) if drive.hostname else None, addresses=()
        )
    return instance.model_copy(
        update={
            "uuid": uuid,
            "name": name,
            "disks": tuple(moved(disk) for disk in instance.disks),
            "nics": nics,
            "config_drive": drive,
            "consoles": console.with_password(
                source.xml(inactive=True, secure=True), instance.consoles
            ),
            "autostart": False,
        }
    )


def _size_mib(instance: Instance) -> int:
    """Return what the disks take; a full copy of an overlay also takes what comes from its image."""
    total = 0
    for disk in instance.disks:
        if disk.device == "disk" and disk.file is not None and os.path.exists(disk.file.path):
            total += os.stat(disk.file.path).st_blocks * 512 >> 20
    return total


def _copy_files(context: Context, old: Instance, new: Instance, progress: Progress) -> None:
    for source, target in zip(old.disks, new.disks, strict=True):
        if source.file is None or target.file is None or source.device == "cdrom":
            continue
        context.qemu_img.convert(
            source.file.path,
            source.file.format,
            target.file.path,
            target.file.format,
            stage=f"copy disk {source.name}",
            progress=progress,
        )
    before, after = context.store.layout(old.uuid), context.store.layout(new.uuid)
    for name in ("kernel", "ramdisk", "nvram"):
        if os.path.exists(getattr(before, name)):
            copy_file(getattr(before, name), getattr(after, name))
    if new.config_drive is not None:
        config_drive.write_copy(before.config_drive, new, after.config_drive)


def rename(
    context: Context, name_or_uuid: str, name: str, *, request_id: str | None = None
) -> None:
    """Rename a stopped instance. An instance that has the name already is left alone."""
    if context.known(name_or_uuid) is None:
        # under its old name an instance is not found once the same request has been carried out
        known = context.known(name)
        if known is not None and known[1].done(request_id) is not None:
            return
    with context.exclusively(name_or_uuid) as (domain, record):
        if record.done(request_id) is not None or domain.name == record.instance.name == name:
            return
        other = context.hypervisor.find(name)
        if other is not None and other.uuid != domain.uuid:
            raise exception.InstanceExists(
                f"there is already an instance named {name!r}",
                field="name",
                value=name,
                instance=other.uuid,
            )
        wanted = record.instance.changed(name=name)
        if domain.name != name:
            require_status(domain, "rename", "stopped", "crashed", remedies=_STOP)
        with context.task(domain, record, TaskName.RENAME, request_id, wanted=wanted):
            if domain.name != name:
                domain.rename(name)


def mend_rename(_context: Context, domain: Domain, _record: Record, task: Task) -> bool:
    """Return whether an instance has the name that a process which died was about to give it."""
    return task.wanted is not None and domain.name == task.wanted.name
