"""Removing an instance, from any half-built state, and twice."""

import logging

from kvmdriver import exception
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.record import Owner, Record, Task
from kvmdriver.operations.context import Context, require_idle
from kvmdriver.operations.storage_move import outside_disks
from kvmdriver.storage.copy import remove_file

LOG = logging.getLogger(__name__)

# How long a guest that is to be switched off anyway is waited for, in seconds. A record is written
# in milliseconds; what libvirt itself waits for a job is 30 s (qemu_domainjob.c, QEMU_JOB_WAIT_TIME).
_ANSWER_SECONDS = 5.0


def terminate(context: Context, name_or_uuid: str, *, keep_disks: bool = False) -> tuple[str, ...]:
    """Switch an instance off and remove it. Nothing happens when it is gone already.

    What goes with the instance is ended first: the operation that is making it, and calls that
    wait for its QEMU in vain.

    :param keep_disks: leave the files of its disks; the rest of its directory goes.
    :returns: the paths of the disks that were kept.
    """
    uuid = _uuid_of(context, name_or_uuid)
    if uuid is None:
        return ()

    def interrupt() -> None:
        context.cancellations.cancel(uuid, "the instance is being deleted")
        context.hypervisor.give_up_calls(uuid, _ANSWER_SECONDS)

    with context.locks.hold_to_remove(uuid, interrupt):
        try:
            domain, record = context.find(uuid)
        except exception.InstanceNotFound:
            return ()
        require_idle(domain, record)
        kept = _disk_paths(record) if keep_disks else ()
        deleting = Task(name="delete", owner=Owner.current(), files=kept)
        save_before_end(context, domain, record.changed(task=deleting))
        remove(context, domain, record, keep=kept)
        return kept


def _uuid_of(context: Context, name_or_uuid: str) -> str | None:
    """The UUID of an instance that there is, or that is being made; None without one."""
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
