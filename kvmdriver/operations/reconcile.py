"""Mending what killed agents and failed operations have left half-done."""

import logging

from kvmdriver import exception
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.record import Record, TaskName
from kvmdriver.operations import evacuate, mending, orphans
from kvmdriver.operations.context import Context

LOG = logging.getLogger(__name__)


def reconcile(context: Context) -> list[tuple[str, str, str]]:
    """Finish or undo each task that nobody works on; report what belongs to nobody.

    Guests keep running, operations under way go on, and nothing that is not ours is touched. Run at
    the start, after each loss of libvirt, and when an operation has left what it could not mend.

    :returns: UUID, task and outcome of each instance that was mended.
    """
    mended = []
    known = set()
    failed = set()
    busy = set()
    for summary in context.hypervisor.summaries():
        record = context.record(summary.uuid)
        if record is None:
            continue
        known.add(summary.uuid)
        try:
            outcome = _look_after(context, summary.uuid, record)
        except exception.InstanceNotFound:
            continue  # somebody has just removed it
        except exception.InstanceBusy:
            busy.add(summary.uuid)
            continue
        except exception.KVMDriverError:
            LOG.exception("could not mend instance %s", summary.name)
            failed.add(summary.uuid)
            continue
        if outcome is not None:
            mended.append((summary.uuid, *outcome))
    context.unmended.intersection_update(failed)
    # an operation that is under way may end without a look at what this would mend
    context.unmended.update(busy)
    host_uuid = context.hypervisor.host_capabilities().uuid
    for path in (*context.images.sweep(), *context.store.sweep(context.host, host_uuid)):
        LOG.warning("removed %s, left by a process that was killed", path)
    for orphan in orphans.find(context, known):
        LOG.warning(
            "libvirt at %s knows no instance with the directory %s: %s",
            context.conf.kvm.uri,
            orphan.path,
            orphan.advice,
        )
    return mended


def tighten(context: Context) -> None:
    """Close this host's files to other users, which older versions did not do."""
    count = context.store.tighten(
        context.host,
        context.hypervisor.host_capabilities().uuid,
        context.conf.kvm_storage.disk_directories,
    )
    if count:
        LOG.warning("%d files could be read or written by other users, and cannot any more", count)


def _look_after(context: Context, uuid: str, record: Record) -> tuple[str, str] | None:
    """Mend an instance; return the task that was cut off and its outcome, if there was one."""
    task = record.task
    if task is None:
        if evacuate.leave(context, uuid):
            return TaskName.EVACUATE, "the instance is another host's"
        _compare(context, uuid)
    context.remember_evacuated(record)
    if task is not None and task.migration is not None:
        if not task.owner.is_alive():
            # its end depends on another host
            context.migrations.activity.set()
        return None
    if task is None or not task.is_dead():
        return None
    with context.locks.hold(uuid):
        domain, record = context.find(uuid)
        task = record.task
        if task is None or not task.is_dead():
            return None  # an operation has mended it in the meantime
        return task.name, context.mend(domain, record)


def _compare(context: Context, uuid: str) -> None:
    """Have the three copies of an idle instance's record agree, and log how libvirt differs.

    The lock keeps operations away: a deletion would otherwise get its files back, and a task its
    older record.

    :raises kvmdriver.exception.InstanceBusy: an operation is under way.
    """
    with context.locks.hold_at_once(uuid):
        domain, record = context.find(uuid)
        if record.task is not None:
            return  # the task began and died in the meantime, and is mended as such
        context.describe(domain, record)
        if domain.is_active() and domain.running_record() != record:
            # a libvirtd that died while it wrote the record had written one definition of the two
            context.hypervisor.save(domain, record)
        _report_lost(domain)
        drive = context.store.layout(uuid).config_drive
        for difference in mending.differences(domain, record.instance, drive):
            # somebody else has changed it: what libvirt has is neither undone nor taken over
            LOG.warning("instance %s: %s", domain.name, difference)


def _report_lost(domain: Domain) -> None:
    try:
        domain.require_not_lost()
    except exception.InvalidState as error:
        LOG.error("instance %s: %s", domain.name, error)
