"""Mending one instance: what a task has left becomes done, or not done."""

from collections.abc import Callable, Iterator

from lxml import etree
from oslo_utils import uuidutils

from kvmdriver.guest.block_copy import end_copies
from kvmdriver.hypervisor import xml
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.record import RUNNING, Owner, Record, Task, TaskName
from kvmdriver.model import Instance
from kvmdriver.operations import (
    attach,
    clone,
    destroy,
    evacuate,
    power,
    resize,
    snapshot,
    storage_move,
)
from kvmdriver.operations.context import Context

# Each has libvirt agree with one of the two states, and says whether that is "done".
_MENDERS: dict[str, Callable[[Context, Domain, Record, Task], bool]] = {
    TaskName.ATTACH: attach.mend_attach,
    TaskName.DETACH: attach.mend_detach,
    TaskName.RENAME: clone.mend_rename,
    TaskName.MEMORY: resize.mend_memory,
    TaskName.VCPUS: resize.mend_vcpus,
    TaskName.AUTOSTART: power.mend_autostart,
    TaskName.MOVE_DISK: storage_move.mend,
    TaskName.SNAPSHOT: snapshot.mend,
    TaskName.REBOOT: power.mend_reboot,
}


def mend(context: Context, domain: Domain, record: Record, to_stop: bool) -> str:
    """Finish or undo the dead task of an instance whose lock is held; return the outcome.

    :param to_stop: the guest is about to be switched off: a reboot does not start it before.
    :raises kvmdriver.exception.KVMDriverError: that is not possible now; the task stays.
    """
    task = record.task
    assert task is not None  # noqa: S101 the caller has looked
    if not to_stop:
        # the files of the task may be what a guest uses that libvirt does not know of
        domain.require_not_lost()
    elif domain.is_lost():
        if task.name == TaskName.MOVE_DISK:
            storage_move.follow_lost(context, domain, record, task)
        domain.destroy()
    if task.name in (TaskName.CREATE, TaskName.DELETE):
        keep = task.files if task.name == TaskName.DELETE else ()
        destroy.remove(context, domain, record, keep)
        return "the instance was removed"
    if task.name == TaskName.EVACUATE:
        return evacuate.mend(context, domain, record)
    mine = task.changed(id=uuidutils.generate_uuid(), owner=Owner.current())
    with RUNNING.hold(mine):
        # Other processes see who works on it. libvirt writes the record only when no other call
        # has the domain, so one that timed out here and went on there has ended by now, too.
        context.save(domain, record.changed(task=mine))
        if to_stop and task.name == TaskName.REBOOT:
            done = False
        else:
            done = mender(task)(context, domain, record, task)
        context.finish(domain, record, task, done=done)
    return "it was finished" if done else "it was taken back"


def mender(task: Task) -> Callable[[Context, Domain, Record, Task], bool]:
    """Return the function that mends a task; a task of another version is undone by its files."""
    noted = task.wanted is not None or task.publishes is not None or task.run is not None
    return _MENDERS[task.name] if noted and task.name in _MENDERS else _not_done


def _not_done(_context: Context, domain: Domain, _record: Record, _task: Task) -> bool:
    end_copies(domain)
    return False


def differences(domain: Domain, instance: Instance, drive: str) -> list[str]:
    """Return what the persistent definition has and the record lacks, and the reverse.

    :param drive: path of the config drive, which is no disk of the record.
    """
    root = domain.xml(inactive=True)
    return list(_differences(root, domain.autostart(), instance, drive))


def _differences(
    root: etree._Element, autostart: bool, instance: Instance, drive: str
) -> Iterator[str]:
    memory, count = instance.memory, root.find("vcpu")
    maximum = (count.text or "") if count is not None else ""
    current = count.get("current", maximum) if count is not None else ""
    pairs: list[tuple[str, object, object]] = [
        ("name", root.findtext("name"), instance.name),
        ("autostart", autostart, instance.autostart),
        (
            "vCPUs",
            f"{current} of {maximum}",
            "{current} of {maximum}".format(**dict(instance.vcpus)),
        ),
        (
            "memory in MiB",
            int(root.findtext("currentMemory") or 0) // 1024,
            memory.current_mib if memory is not None else None,
        ),
        (
            "disks",
            {
                xml.attribute(node, "target", "dev")
                for node in root.iterfind("devices/disk")
                if xml.attribute(node, "source", "file") != drive
            },
            {disk.name for disk in instance.disks},
        ),
        (
            "interfaces",
            {xml.attribute(n, "mac", "address") for n in root.iterfind("devices/interface")},
            {nic.mac for nic in instance.nics},
        ),
    ]
    for what, found, noted in pairs:
        if found != noted:
            yield f"{what}: libvirt has {_plain(found)}, the record has {_plain(noted)}"


def _plain(value: object) -> str:
    if isinstance(value, set):
        return ", ".join(sorted(str(item) for item in value)) or "none"
    return str(value)
