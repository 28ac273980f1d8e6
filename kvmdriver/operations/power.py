"""Starting, stopping, rebooting, suspending and pausing."""

import logging

from kvmdriver import exception
from kvmdriver.guest.nested import require_movable
from kvmdriver.guest.power_button import shut_down
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.record import Owner, Record, Task, TaskName
from kvmdriver.model import Status
from kvmdriver.operations.context import Context, require_status
from kvmdriver.operations.destroy import save_before_end

LOG = logging.getLogger(__name__)

_RESUME = "resume it: kvmdriver server resume NAME"
_UNPAUSE = "unpause it: kvmdriver server unpause NAME"
_START = "start it: kvmdriver server start NAME"


def start(context: Context, name_or_uuid: str) -> None:
    """Start a stopped instance. A running instance is left alone."""
    with context.exclusively(name_or_uuid) as (domain, _record):
        status = require_status(
            domain,
            "start",
            "running",
            "stopped",
            "crashed",
            remedies={"suspended": _RESUME, "paused": _UNPAUSE},
        )
        if status != "running":
            domain.require_not_lost()
            domain.start()


def stop(context: Context, name_or_uuid: str, *, timeout: float | None = None) -> None:
    """Press the power button, wait, then switch the instance off. A stopped instance is left alone.

    No lock is held while the guest takes its time.

    :param timeout: seconds; 0 switches off at once, None takes the configured time.
    """
    seconds = context.conf.kvm.shutdown_timeout if timeout is None else timeout
    with context.exclusively(name_or_uuid, to_stop=True) as (domain, record):
        unmended = record.task is not None
        status = domain.status()
        if status == "suspended":
            raise exception.InvalidState(
                "stop is not possible while the instance is suspended",
                field="status",
                value=status,
                instance=domain.name,
                remedy=_RESUME,
            )
        if status in ("stopped", "crashed"):
            domain.destroy()  # ends a QEMU that libvirt has lost
            return
        run = domain.started_as()
        patient = seconds > 0 and status in ("running", "shutting-down")
    if not (
        patient
        and shut_down(context.hypervisor, domain, seconds, "stopped", domain.press_power_button)
    ):
        with context.exclusively(domain.uuid, to_stop=True) as (domain, _record):
            # started again by somebody in the meantime: that is another run, not ours to end
            if domain.started_as() == run:
                domain.destroy()
    if unmended:
        # an earlier operation could not be mended while the guest hung, and must not start it now
        with context.exclusively(domain.uuid, to_stop=True):
            LOG.info("instance %s: is off, and its earlier operation was mended", domain.name)


def reboot(
    context: Context,
    name_or_uuid: str,
    *,
    hard: bool = False,
    timeout: float | None = None,
    request_id: str | None = None,
) -> None:
    """Reboot a running instance.

    Soft: the guest shuts down and libvirt starts it again, in the same QEMU. Hard, or when the
    guest does not react in time: off and on, with a new QEMU. A request that was carried out is
    remembered with the instance, so that its redelivery does not reboot again.

    :param timeout: seconds that a soft reboot may take; None takes the configured time.
    """
    seconds = context.conf.kvm.shutdown_timeout if timeout is None else timeout
    with context.exclusively(name_or_uuid) as (domain, record):
        if record.done(request_id) is not None:
            return
        remedies = {"suspended": _RESUME, "paused": _UNPAUSE, "stopped": _START}
        allowed: tuple[Status, ...] = (
            ("running", "paused", "crashed", "blocked") if hard else ("running",)
        )
        require_status(domain, "reboot", *allowed, remedies=remedies)
    if not hard and seconds > 0:
        hard = not shut_down(context.hypervisor, domain, seconds, "rebooted", domain.reboot)
    else:
        hard = True
    with context.exclusively(domain.uuid) as (domain, record):
        if not hard:
            context.save(domain, record.with_request(request_id))
            return
        run, boot = domain.started_as(), Owner.current().boot_id
        # a guest that hangs takes no note of the task, and would keep the reboot from beginning
        save_before_end(context, domain, record)
        with context.task(domain, record, TaskName.REBOOT, request_id, run=run, boot_id=boot):
            domain.destroy()
            domain.start()


def suspend(context: Context, name_or_uuid: str) -> None:
    """Save the guest's memory to disk and switch it off. A suspended instance is left alone."""
    with context.exclusively(name_or_uuid) as (domain, _record):
        status = require_status(
            domain,
            "suspend",
            "running",
            "paused",
            "suspended",
            remedies={"stopped": _START},
        )
        if status != "suspended":
            require_movable(context.conf, domain, "suspend")
            domain.managed_save()


def resume(context: Context, name_or_uuid: str) -> None:
    """Start a suspended instance with its saved memory. A running instance is left alone."""
    with context.exclusively(name_or_uuid) as (domain, record):
        status = require_status(
            domain,
            "resume",
            "suspended",
            "running",
            remedies={"stopped": _START, "crashed": _START, "paused": _UNPAUSE},
        )
        if status == "suspended":
            domain.start()
            # the guest comes back with the record of the moment at which it was saved
            context.save(domain, record)


def pause(context: Context, name_or_uuid: str) -> None:
    """Stop the guest's CPUs. A paused instance is left alone."""
    with context.exclusively(name_or_uuid) as (domain, _record):
        status = require_status(domain, "pause", "running", "paused", remedies={"stopped": _START})
        if status == "running":
            domain.pause()


def unpause(context: Context, name_or_uuid: str) -> None:
    """Let the guest's CPUs run again, also after its disk was full. A running instance is left alone."""
    with context.exclusively(name_or_uuid) as (domain, _record):
        status = require_status(
            domain,
            "unpause",
            "paused",
            "running",
            "blocked",
            remedies={"suspended": _RESUME, "stopped": _START},
        )
        if status != "running":
            domain.unpause()


def set_autostart(
    context: Context, name_or_uuid: str, on: bool, *, request_id: str | None = None
) -> None:
    """Set whether the instance starts with the host."""
    with context.exclusively(name_or_uuid) as (domain, record):
        if record.done(request_id) is not None:
            return
        wanted = record.instance.changed(autostart=on)
        with context.task(domain, record, TaskName.AUTOSTART, request_id, wanted=wanted):
            domain.set_autostart(on)


# What a process has left that died, or that lost libvirt.


def mend_autostart(_context: Context, domain: Domain, _record: Record, task: Task) -> bool:
    """Return whether autostart is set as the task wanted; libvirt changes the flag at one moment."""
    return task.wanted is not None and domain.autostart() == task.wanted.autostart


def decide_reboot(*, run: int, before: int, cut_off: bool, same_boot: bool) -> str:
    """Decide what becomes of a hard reboot that was cut off.

    :param run: the run of the guest now, -1 while it is off (``Domain.started_as``).
    :param before: the run that the reboot was to end.
    :param cut_off: the guest was switched off from outside, or libvirt does not know how it went
        off, which is so after a restart of libvirtd.
    :param same_boot: the host has not been started again since.
    :returns: "done", "not done", or "start" where the guest is off because of the reboot.
    """
    if run == before:
        return "not done"
    if run >= 0:
        return "done"
    # a guest that went off in another way has nobody waiting for its start
    return "start" if cut_off and same_boot else "not done"


def mend_reboot(_context: Context, domain: Domain, _record: Record, task: Task) -> bool:
    """Start a guest that a reboot has switched off, unless something else happened; return whether done."""
    assert task.run is not None  # noqa: S101 the task has noted it
    decision = decide_reboot(
        run=domain.started_as(),
        before=task.run,
        cut_off=domain.was_cut_off(),
        same_boot=task.boot_id == Owner.current().boot_id,
    )
    if decision != "start":
        return decision == "done"
    try:
        domain.start()
    except exception.HypervisorUnavailable:
        raise
    except exception.KVMDriverError as error:
        # a guest that cannot be started stays off, and can be worked on
        LOG.error("instance %s: cannot be started after its reboot: %s", domain.name, error)
        return False
    return True
