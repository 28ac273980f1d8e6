"""Removing an instance, from any half-built state, and twice."""

from kvmdriver import exception
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.record import Record, Task, TaskName
from kvmdriver.operations.context import Context
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
            domain, record = context.at_rest(domain.uuid, to_stop=True)
        except exception.InstanceNotFound:
            return ()
        kept = _disk_paths(record) if keep_disks else ()
        # what an operation has left that could not be mended goes, too
        left = (*record.task.files, *record.task.removes) if record.task is not None else ()
        deleting = Task.begin(TaskName.DELETE, files=kept, removes=left)
        with context.under_way(domain.uuid, deleting):
            record = record.changed(task=deleting)
            context.save(domain, record)
            remove(context, domain, record, keep=kept)
        return kept


def remove(context: Context, domain: Domain, record: Record, keep: tuple[str, ...] = ()) -> None:
    """Everything that an instance consists of. The domain goes last: it is what remembers.

    Files that another host owns, or nobody, stay: an instance under construction has a mark in
    its directory, or no directory.
    """
    domain.destroy()
    if not context.remove_files(record, keep):
        domain.undefine(keep_nvram=True)
        return
    left = record.task.removes if record.task is not None else ()
    for path in (*outside_disks(record.instance), *left):
        if path not in keep:
            remove_file(path)
    domain.undefine()


def _disk_paths(record: Record) -> tuple[str, ...]:
    return tuple(
        disk.file.path
        for disk in record.instance.disks
        if disk.file is not None and disk.device == "disk"
    )
