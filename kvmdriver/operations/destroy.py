"""Removing an instance, from any half-built state, and twice."""

from kvmdriver import exception
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.record import Owner, Record, Task
from kvmdriver.operations.context import Context, require_idle
from kvmdriver.operations.storage_move import outside_disks
from kvmdriver.storage.copy import remove_file


def terminate(
    context: Context, name_or_uuid: str, *, keep_disks: bool = False
) -> tuple[str, ...] | None:
    """Switch an instance off and remove it. Nothing happens when it is gone already.

    :param keep_disks: leave the files of its disks; the rest of its directory goes.
    :returns: the paths of the disks that were kept; None when there was no such instance.
    """
    try:
        domain, _record = context.find(name_or_uuid)
    except exception.InstanceNotFound:
        if context.hypervisor.find(name_or_uuid) is not None:
            raise  # it is there, and it is not ours
        return None
    with context.locks.hold(domain.uuid):
        try:
            domain, record = context.find(domain.uuid)
        except exception.InstanceNotFound:
            return None
        require_idle(domain, record)
        kept = _disk_paths(record) if keep_disks else ()
        deleting = Task(name="delete", owner=Owner.current(), files=kept)
        context.save(domain, record.changed(task=deleting))
        remove(context, domain, record, keep=kept)
        return kept


def remove(context: Context, domain: Domain, record: Record, keep: tuple[str, ...] = ()) -> None:
    """Everything that an instance consists of. The domain goes last: it is what remembers."""
    domain.destroy()
    context.store.remove(record.instance.uuid, keep)
    for path in outside_disks(record.instance):
        if path not in keep:
            remove_file(path)
    domain.undefine()


def discard(domain: Domain) -> None:
    """Take back the definition of a domain, running or not."""
    domain.destroy()
    domain.undefine()


def _disk_paths(record: Record) -> tuple[str, ...]:
    return tuple(
        disk.file.path
        for disk in record.instance.disks
        if disk.file is not None and disk.device == "disk"
    )
