"""Making good, at start, what a killed agent left half-done."""

import contextlib
import logging

from kvmdriver import exception
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.record import Record, Task
from kvmdriver.operations import destroy, evacuate, orphans, storage_move
from kvmdriver.operations.context import Context
from kvmdriver.storage.copy import remove_file

LOG = logging.getLogger(__name__)


def reconcile(context: Context) -> list[tuple[str, str, str]]:
    """Finish or take back each task whose process is dead; report what belongs to nobody.

    Guests keep running, and nothing that is not ours is touched.

    :returns: UUID, task and outcome of each instance that was mended.
    """
    mended = []
    known = set()
    for summary in context.hypervisor.summaries():
        record = context.record(summary.uuid)
        if record is None:
            continue
        known.add(summary.uuid)
        try:
            outcome = _look_after(context, summary.uuid, record)
        except exception.InstanceNotFound:
            continue  # somebody has just removed it
        except exception.KVMDriverError:
            LOG.exception("could not mend instance %s", summary.name)
            continue
        if outcome is not None:
            LOG.warning("instance %s: %s was cut off: %s", summary.name, *outcome)
            mended.append((summary.uuid, *outcome))
    for path in context.images.sweep():
        LOG.warning("removed %s, left by a process that was killed", path)
    for orphan in orphans.find(context, known):
        LOG.warning(
            "libvirt at %s knows no instance with the directory %s: %s",
            context.conf.kvm.uri,
            orphan.path,
            orphan.advice,
        )
    return mended


def _look_after(context: Context, uuid: str, record: Record) -> tuple[str, str] | None:
    """The task that was cut off and its outcome, where there was one."""
    task = record.task
    if task is None:
        if evacuate.leave(context, uuid):
            return evacuate.TASK, "the instance is another host's"
        context.describe(context.hypervisor.domain(uuid), record)
    context.remember_evacuated(record)
    if task is None or task.owner.is_alive():
        return None
    if task.migration is not None:
        # its end depends on another host
        context.migrations.activity.set()
        return None
    with context.locks.hold(uuid):
        return task.name, _mend(context, context.hypervisor.domain(uuid), record, task)


def _mend(context: Context, domain: Domain, record: Record, task: Task) -> str:
    if task.name in ("create", "delete"):
        keep = task.files if task.name == "delete" else ()
        destroy.remove(context, domain, record, keep)
        return "the instance was removed"
    if task.name == evacuate.TASK:
        return evacuate.mend(context, domain, record)
    if task.name == storage_move.TASK:
        record, outcome = storage_move.mend(context, domain, record, task)
        context.save(domain, record)
        return outcome
    outcome = "nothing was left behind"
    if task.files:
        removed = _remove_files(domain, task.files)
        instance = record.instance
        disks = tuple(d for d in instance.disks if not d.file or d.file.path not in removed)
        record = record.changed(instance=instance.changed(disks=disks))
        outcome = f"{len(removed)} files were removed"
    if task.name == "reboot":
        if not domain.is_active():
            domain.start()
        record = record.with_request(task.request_id)
        outcome = "the instance was started"
    context.save(domain, record.changed(task=None))
    return outcome


def _remove_files(domain: Domain, files: tuple[str, ...]) -> set[str]:
    """Remove what a task was making, unless the guest uses it by now; what was removed."""
    used: set[str] = set()
    for inactive in (False, True):
        root = domain.xml(inactive=inactive)
        for disk in root.iterfind("devices/disk"):
            if disk.find("mirror") is not None:
                target = disk.find("target")
                with contextlib.suppress(exception.KVMDriverError):
                    domain.end_block_job(target.get("dev", "") if target is not None else "")
            source = disk.find("source")
            if source is not None:
                used.add(source.get("file", ""))
    unused = set(files) - used
    for path in unused:
        remove_file(path)
    return unused
