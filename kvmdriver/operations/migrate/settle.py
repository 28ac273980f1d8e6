"""Ending a migration, whatever its state: the guest is on one host, and the other host is clean.

Every step can be taken again, so that whoever was cut off, or is called twice, gets to the same end.
"""

import contextlib
import logging
import os
import tempfile
import time

from kvmdriver import exception
from kvmdriver.guest import console
from kvmdriver.guest.migration.verdict import GRACE, Verdict, decide
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.migration import JobProgress, Presence
from kvmdriver.hypervisor.record import Record
from kvmdriver.model import FileReceiver, Instance, Migration, MigrationView
from kvmdriver.model.migration import DestinationState
from kvmdriver.neighbour import Neighbour
from kvmdriver.operations.context import Context
from kvmdriver.operations.migrate.check import INCOMING, OUTGOING
from kvmdriver.operations.migrate.prepare import (
    CONSOLE_LOG,
    LOG_BYTES,
    forget,
    remove_incoming,
)
from kvmdriver.progress import Progress, ignore
from kvmdriver.storage import inspect, stream

LOG = logging.getLogger(__name__)

_STEP = 0.5


def settle(
    context: Context,
    view: MigrationView,
    neighbour: Neighbour,
    *,
    before_switch: bool = False,
    cause: exception.KVMDriverError | None = None,
) -> MigrationView:
    """End, at the source, a migration that libvirt does not work on any more.

    :param before_switch: the guest is known not to have left.
    :param cause: why it has ended early, where that is known; raised if it did.
    :raises kvmdriver.exception.MigrationUnresolved: it cannot be told who has the guest.
    """
    began = time.monotonic()
    while True:
        waited = time.monotonic() - began
        try:
            verdict = _verdict(context, view, neighbour, before_switch, waited)
        except exception.HypervisorUnavailable as error:
            raise _unresolved(context, view, error) from error
        if verdict != "wait":
            break
        if waited > GRACE:
            raise _unresolved(context, view, cause)
        time.sleep(_STEP)
    try:
        if verdict == "finish":
            return _finish(context, view, neighbour)
        _roll_back(context, view, neighbour)
    except (exception.HypervisorUnavailable, exception.AgentUnreachable) as error:
        raise _unresolved(context, view, error) from error
    if cause is None:
        cause = exception.MigrationFailed(
            "the migration was cut off; the instance is where it was", instance=view.instance
        )
    aborted = isinstance(cause, exception.MigrationAborted)
    latest = _latest(context, view)
    context.migrations.put(
        latest.changed(state="aborted" if aborted else "failed", error=cause.message)
    )
    raise cause


def _verdict(
    context: Context,
    view: MigrationView,
    neighbour: Neighbour,
    before_switch: bool,
    waited: float,
) -> Verdict:
    domain = context.hypervisor.find(view.uuid)
    if domain is None:
        return "finish"
    record = context.record(view.uuid)
    migration = migration_of(record, OUTGOING, view.id) if record else None
    if view.kind == "cold":
        # it has no guest whose whereabouts could be in doubt: the source has the say
        sent = migration is not None and migration.state == "finish"
        return "finish" if sent else "roll-back"
    there: DestinationState | None
    try:
        there = neighbour.destination_state(view.uuid, view.id)
    except exception.KVMDriverError as error:
        LOG.warning("%s: %s cannot be asked: %s", view.instance, neighbour.host, error)
        there = None
    here: Presence = domain.presence()
    moving = domain.migration_progress() is not None if domain.is_active() else False
    verdict = decide(here, there, moving=moving, before_switch=before_switch, waited=waited)
    if there is None and verdict == "wait":
        raise _unresolved(context, view, None)
    LOG.info(
        "%s: the guest is %s here and %s on %s: %s",
        view.instance, here, there, neighbour.host, verdict,
    )  # fmt: skip
    return verdict


def _unresolved(
    context: Context, view: MigrationView, cause: exception.KVMDriverError | None
) -> exception.KVMDriverError:
    latest = _latest(context, view)
    context.migrations.put(latest.changed(state="unresolved", error=cause and cause.message))
    return exception.MigrationUnresolved(
        f"it is not known whether {view.instance} is on {view.source} or on {view.destination}: "
        f"{cause.message if cause else 'the other host does not answer'}",
        instance=view.instance,
    )


def _latest(context: Context, view: MigrationView) -> MigrationView:
    return context.migrations.find(view.id) or view


# The source


def _finish(context: Context, view: MigrationView, neighbour: Neighbour) -> MigrationView:
    """Remove what is here of a guest that has arrived at the destination.

    The other host is told without holding the instance's lock: the task that is noted with the
    domain keeps others off all the while.
    """
    summary: dict[str, object] = {}
    context.migrations.put(_latest(context, view).changed(state="finish"))
    with context.locks.hold(view.uuid):
        leaving = _leaving(context, view)
        if leaving is not None:
            with contextlib.suppress(exception.KVMDriverError):
                summary = _summary(leaving[0].last_migration())
            leaving[0].destroy()
    if leaving is not None and not leaving[1].shared:
        _send_console_log(context, view, neighbour)
    neighbour.finish(view.uuid, view.id)
    with context.locks.hold(view.uuid):
        leaving = _leaving(context, view)
        if leaving is not None:
            if not leaving[1].shared:
                context.remove_files(leaving[2])
            forget(leaving[0])
    ended = _latest(context, view).changed(state="completed", error=None, **summary)
    context.migrations.put(ended)
    LOG.info("%s has moved to %s", view.instance, neighbour.host)
    return ended


def _leaving(context: Context, view: MigrationView) -> tuple[Domain, Migration, Record] | None:
    """Return what is here of an instance that moves away; None if it has gone."""
    known = context.known(view.uuid)
    migration = migration_of(known[1], OUTGOING, view.id) if known else None
    return None if known is None or migration is None else (known[0], migration, known[1])


def _summary(last: JobProgress | None) -> dict[str, object]:
    """Return the view of a migration that has ended."""
    if last is None:
        return {}
    seconds = last.elapsed / 1000
    sent = last.memory_sent + last.disk_total
    return {
        "elapsed": round(seconds, 2),
        "memory_total": round(last.memory_total, 1),
        "memory_left": 0.0,
        "disk_total": round(last.disk_total, 1),
        "disk_left": 0.0,
        "rate": round(sent / seconds, 1) if seconds else None,
        "iteration": last.iteration,
        "downtime": last.downtime,
        "estimate": 0.0,
        "expected_downtime": None,
    }


def _send_console_log(context: Context, view: MigrationView, neighbour: Neighbour) -> None:
    """Send what the guest has printed so far. A failure is logged: the guest has moved.

    The destination looks for guests that have arrived (see recover), and closes the receiver of one
    that it finds running. When that happens during the transfer, a second receiver takes the log.
    """
    data = console.read_log(context.store.layout(view.uuid), LOG_BYTES)
    with tempfile.TemporaryFile() as log:
        log.write(data)
        log.flush()
        for attempt in (1, 2):
            try:
                target = neighbour.receiver(view.uuid, view.id)
                send_file(context, target, log.fileno(), CONSOLE_LOG)
                return
            except exception.KVMDriverError as error:
                if attempt == 2 or not isinstance(error, exception.StorageError):
                    LOG.warning("%s: the console log stays behind: %s", view.instance, error)
                    return


def send_file(
    context: Context,
    target: FileReceiver,
    source: str | int,
    name: str,
    progress: Progress = ignore,
) -> None:
    """Send one file to another host."""
    conf = context.conf.kvm_migration
    stream.send(
        source,
        name,
        address=target.address,
        port=target.port,
        token=target.token,
        tls=stream.tls_context(conf.tls_directory, "client") if conf.native_tls else None,
        stage=f"send {name}",
        progress=progress,
    )


def _roll_back(context: Context, view: MigrationView, neighbour: Neighbour) -> None:
    """Keep the guest here, and have the destination remove what was made for it."""
    context.migrations.put(_latest(context, view).changed(state="roll-back"))
    with context.locks.hold(view.uuid):
        domain, record = context.find(view.uuid)
        migration = migration_of(record, OUTGOING, view.id)
        if migration is None:
            return
        _go_on(domain, migration)
        domain.set_autostart(migration.autostart)
        context.save(domain, record.changed(task=None))
    try:
        neighbour.roll_back(view.uuid, view.id)
    except exception.KVMDriverError as error:
        # it asks us, and cleans up by itself, as soon as it can
        LOG.warning("%s: %s cannot be cleaned yet: %s", view.instance, neighbour.host, error)


def _go_on(domain: Domain, migration: Migration) -> None:
    status = domain.status()
    if status == "paused" and not migration.was_paused:
        domain.unpause()
    elif domain.presence() == "off" and migration.autostart and migration.was_active:
        # the host has booted in the meantime, and did not start it as it would have otherwise
        domain.start()


# The destination


def destination_state(context: Context, uuid: str, identity: str) -> DestinationState:
    """Return what this host, as the destination of a migration, has of an instance."""
    known = context.known(uuid)
    if known is None:
        return "none"
    domain, record = known
    migration = migration_of(record, INCOMING, identity)
    if migration is None:
        # the guest has arrived and the migration is settled, or the guest has always been here
        return "here" if record.task is None or record.task.name != INCOMING else "none"
    found: dict[Presence, DestinationState] = {
        "on": "here",
        "lost": "lost",
        "handed-over": "incoming",
        "post-copy": "incoming",
        "moving-in": "incoming",
    }
    if migration.state == "finish":
        return "here"
    return found.get(domain.presence(), "prepared")


def finish_incoming(context: Context, uuid: str, identity: str) -> None:
    """Make an arrived instance this host's own. A second call changes nothing.

    A guest that died on the way is started again from its disks.
    """
    with context.locks.hold(uuid):
        domain, record = context.find(uuid)
        migration = migration_of(record, INCOMING, identity)
        if migration is None:
            context.arrivals.end(identity)
            return
        if migration.kind == "cold" and migration.shared:
            point_to_images(context, record.instance)
        if domain.presence() == "lost":
            LOG.error("%s: its memory was lost on the way, it is started again", domain.name)
            domain.destroy()
            domain.start()
        domain.set_autostart(migration.autostart)
        context.save(
            domain,
            record.changed(task=None, came_by=identity).with_request(migration.request_id),
        )
        context.remember_evacuated(record)
    context.arrivals.end(identity)


def point_to_images(context: Context, instance: Instance) -> None:
    """Have overlays of another host name their images as this host names them."""
    for disk in instance.disks:
        if disk.device != "disk" or disk.file is None or disk.file.format != "qcow2":
            continue
        backing = inspect.header_backing(disk.file.path)
        if backing is not None:
            here = os.path.join(context.store.cache_directory, os.path.basename(backing))
            if here != backing:
                context.qemu_img.rename_backing(disk.file.path, here)


def roll_back_incoming(context: Context, uuid: str, identity: str) -> None:
    """Remove what was made for an instance that does not arrive. A second call changes nothing.

    :raises kvmdriver.exception.InvalidState: the guest runs here.
    """
    with context.locks.hold(uuid):
        known = context.known(uuid)
        if known is None:
            context.arrivals.end(identity)
            return
        domain, record = known
        if migration_of(record, INCOMING, identity) is None:
            return
        if destination_state(context, uuid, identity) == "here":
            raise exception.InvalidState("the guest runs here already", instance=domain.name)
        remove_incoming(context, domain)


def migration_of(record: Record, task_name: str, identity: str) -> Migration | None:
    """Return the migration that a record notes as one of its host's tasks: INCOMING or OUTGOING."""
    task = record.task
    if task is None or task.name != task_name or task.migration is None:
        return None
    return task.migration if task.migration.id == identity else None
