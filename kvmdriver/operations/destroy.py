"""Removing an instance, from any half-built state, and twice."""

from kvmdriver import exception
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.record import Owner, Record, Task
from kvmdriver.operations.context import Context, require_idle
from kvmdriver.operations.storage_move import outside_disks
from kvmdriver.storage.copy import remove_file


def terminate(context: Context, name_or_uuid: str, *, keep_disks: bool = False) -> tuple[str, ...]:
    """Switch an instance off and remove it. Nothing happens when it is gone already.

    :param keep_disks: leave the files of its disks; the rest of its directory goes.
    :returns: the paths of the disks that were kept.
    """
    try:
        domain, _record = context.find(name_or_uuid)
    except exception.InstanceNotFound:
        if context.hypervisor.find(name_or_uuid) is not None:
            raise  # it is there, and it is not ours
        return ()
    with context.locks.hold(domain.uuid):
        try:
            domain, record = context.find(domain.uuid)
        except exception.InstanceNotFound:
            return ()
        require_idle(domain, record)
        kept = _disk_paths(record) if keep_disks else ()
        deleting = Task(name="delete", owner=Owner.current(), files=kept)
        context.save(domain, record.changed(task=deleting))
        remove(context, domain, record, keep=kept)
        return kept


def remove(context: Context, domain: Domain, record: Record, keep: tuple[str, ...] = ()) -> None:
    """Everything that an instance consists of. The domain goes last: it is what remembers.

    Files that another host owns, or nobody, stay: an instance under construction has a mark in
    its directory, or no directory.
    """
    domain.destroy()
    settled = record.task is None or record.task.name == "delete"
    if not context.remove_files(record.instance.uuid, keep, settled=settled):
        domain.undefine(keep_nvram=True)
        return
    for path in outside_disks(record.instance):
        if path not in keep:
            remove_file(path)
    domain.undefine()


def discard(domain: Domain) -> None:
    """Take back the definition of a domain, running or not; its files are not touched."""
    domain.destroy()
    domain.undefine(keep_nvram=True)


def discard_files(context: Context, domain: Domain) -> None:
    """Take back the files of an instance that was being made, running or not."""
    domain.destroy()
    context.remove_files(domain.uuid)


def _disk_paths(record: Record) -> tuple[str, ...]:
    return tuple(
        disk.file.path
        for disk in record.instance.disks
        if disk.file is not None and disk.device == "disk"
    )
