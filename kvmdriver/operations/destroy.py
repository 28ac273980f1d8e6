"""Removing an instance, from any half-built state, and twice."""

import logging

from kvmdriver import exception
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.record import Record, Task, TaskName
from kvmdriver.operations.context import Context
from kvmdriver.operations.storage_move import outside_disks
from kvmdriver.storage.copy import remove_file

LOG = logging.getLogger(__name__)

# How long a guest that is to be switched off anyway is waited for, in seconds. A record is written
# in milliseconds; what libvirt itself waits for a job is 30 s (qemu_domainjob.c, QEMU_JOB_WAIT_TIME).
_ANSWER_SECONDS = 5.0


def terminate(
    context: Context, name_or_uuid: str, *, keep_disks: bool = False
) -> tuple[str, ...] | None:
    """Switch an instance off and remove it. An instance that is gone already is no error.

    What goes with the instance is ended first: the operation that is making it, and calls that
    wait for its QEMU in vain. Files of its directory that another domain uses stay: virt-clone puts
    the disks of a clone beside those of the original.

    :param keep_disks: leave the files of its disks; the rest of its directory goes.
    :returns: the paths of the files that were kept; None when there was no such instance.
    """
    uuid = _uuid_of(context, name_or_uuid)
    if uuid is None:
        return None

    def interrupt() -> None:
        context.cancellations.cancel(uuid, "the instance is being deleted")
        context.hypervisor.give_up_calls(uuid, _ANSWER_SECONDS)

    with context.locks.hold_to_remove(uuid, interrupt):
        known = context.known(uuid)
        if known is None:
            return ()  # the instance was being made, or another deletion was first
        cut_off = known[1].task
        try:
            domain, record = context.at_rest(uuid, to_stop=True)
        except exception.InstanceNotFound:
            # the mending of an earlier delete, or of a create, has just removed the instance
            return cut_off.files if cut_off is not None and cut_off.name == TaskName.DELETE else ()
        kept = (
            *(_disk_paths(record) if keep_disks else ()),
            *_used_by_others(context, domain),
        )
        # what an operation has left that could not be mended goes, too
        left = (*record.task.files, *record.task.removes) if record.task is not None else ()
        deleting = Task.begin(TaskName.DELETE, files=kept, removes=left)
        with context.under_way(uuid, deleting):
            record = record.changed(task=deleting)
            save_before_end(context, domain, record)
            remove(context, domain, record, keep=kept)
        return kept


def _uuid_of(context: Context, name_or_uuid: str) -> str | None:
    """Return the UUID of an instance that exists or is being made; None if there is none."""
    try:
        return context.find(name_or_uuid)[0].uuid
    except exception.InstanceNotFound:
        if context.hypervisor.find(name_or_uuid) is not None:
            raise  # it is there, and it is not ours
        return context.cancellations.instance(name_or_uuid)


def save_before_end(context: Context, domain: Domain, record: Record) -> None:
    """Keep the record of a guest that is to be switched off next.

    libvirt cannot change the metadata of a guest whose QEMU does not answer. Such a guest is
    switched off first; a death of the agent at that moment leaves an instance that is off and
    otherwise as before, and the same request goes on from there.
    """
    try:
        context.save(domain, record, timeout=_ANSWER_SECONDS)
    except exception.OperationTimeout as error:
        LOG.warning("%s is switched off unmarked: %s", domain.name, error)
        domain.destroy()
        context.save(domain, record)


def remove(context: Context, domain: Domain, record: Record, keep: tuple[str, ...] = ()) -> None:
    """Remove everything of an instance.

    The domain is undefined last: its record says what is left to remove. Files that another host
    owns, or nobody, stay: an instance under construction has a mark in its directory, or no directory.
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


def _used_by_others(context: Context, domain: Domain) -> tuple[str, ...]:
    directory = context.store.layout(domain.uuid).directory
    found = context.hypervisor.used_by_others(domain.uuid, directory)
    for path, user in found.items():
        LOG.warning("%s stays when %s is deleted: the domain %s uses it", path, domain.name, user)
    return tuple(found)


def _disk_paths(record: Record) -> tuple[str, ...]:
    return tuple(
        disk.file.path
        for disk in record.instance.disks
        if disk.file is not None and disk.device == "disk"
    )
