"""Bringing the instances of a dead host back on this one, and its return.

Where hosts share the directory of instances, the disks are here, and each has a description of
its instance beside it (``storage.description``). Else the description comes from a backup, and
the disks are made afresh. The host that returns removes what is another's by then: by itself
where it sees the shared description, else when it is told.
"""

import logging
import os

from oslo_utils import uuidutils

from kvmdriver import exception
from kvmdriver.guest import console
from kvmdriver.guest.undo import undo_on_failure
from kvmdriver.hypervisor import xml
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.record import Record, Task, TaskName
from kvmdriver.model import Disk, Instance, InstanceView, MigrationOffer, MovingDisk, Problem
from kvmdriver.model.base import is_uuid
from kvmdriver.model.evacuation import Description, LeftInstance
from kvmdriver.neighbour import Neighbour, Neighbours
from kvmdriver.operations import destroy, spawn, view
from kvmdriver.operations.context import Context
from kvmdriver.operations.migrate.check import check_destination, refuse
from kvmdriver.operations.migrate.offer import check_shared, problem_of
from kvmdriver.operations.migrate.placement import placed
from kvmdriver.operations.migrate.prepare import definition, forget, parse_definition
from kvmdriver.operations.migrate.settle import point_to_images
from kvmdriver.progress import Progress, ignore
from kvmdriver.storage import description as descriptions

LOG = logging.getLogger(__name__)

# The host that takes over


def left_instances(context: Context, host: str) -> list[LeftInstance]:
    """Return the instances of another host whose directories this host shares."""
    found = [
        LeftInstance(
            name=left.instance.name,
            uuid=left.instance.uuid,
            host=left.host,
            autostart=left.autostart,
        )
        for left in _descriptions(context)
        if left.host == host and not left.building
    ]
    return sorted(found, key=lambda left: left.name)


def evacuate(
    context: Context,
    name_or_uuid: str,
    source: Neighbour,
    *,
    fenced: bool = False,
    description: Description | None = None,
    rebuild: bool = False,
    start: bool = True,
    request_id: str | None = None,
    progress: Progress = ignore,
) -> InstanceView:
    """Bring back an instance of a host that has died.

    :param fenced: the operator vouches that the host is off, and stays off until this is done.
    :param description: what the instance is, where its directory is not here.
    :param rebuild: make its disks afresh, from their images or blank.
    :raises kvmdriver.exception.InvalidState: the host answers.
    :raises kvmdriver.exception.MigrationRefused: it cannot run here; nothing has been changed.
    """
    if has_evacuated(context, name_or_uuid, source.host):
        return view.show(context, name_or_uuid)  # the same request again
    _require_dead(context, source, fenced)
    left = _left(context, name_or_uuid, source.host)
    if left is not None:
        _require_whole(context, left)
        directory = context.store.layout(left.instance.uuid).directory
        with (
            context.locks.hold(left.instance.uuid),
            descriptions.claim(directory, context.host),
        ):
            _bring_back_shared(context, left, directory, start, request_id)
    else:
        left = _vouched(context, name_or_uuid, source.host, description, rebuild)
        with context.locks.hold(left.instance.uuid):
            _rebuild(context, left, start, request_id, progress)
    context.remember_evacuated(context.find(left.instance.uuid)[1])
    LOG.warning("%s: evacuated from %s", left.instance.name, source.host)
    return view.show(context, left.instance.uuid)


def _require_dead(context: Context, source: Neighbour, fenced: bool) -> None:
    if source.host == context.host:
        raise exception.InvalidRequest(
            "an instance is brought back on another host",
            field="source",
            value=source.host,
            remedy="ask the agent of the host that is to have it: --host",
        )
    if not fenced:
        raise exception.InvalidRequest(
            f"if {source.host} were alive, the guest would run twice and spoil its disks",
            field="fenced",
            value=False,
            remedy=f"switch {source.host} off, make sure that it stays off, then say so: --fenced",
        )
    if source.answers():
        raise exception.InvalidState(
            f"{source.host} is alive: its agent answers",
            field="source",
            value=source.host,
            remedy=f"move the instance: kvmdriver --host {source.host} server migrate",
        )


def _left(context: Context, name_or_uuid: str, host: str) -> Description | None:
    """Return what the shared directory says of an instance of that host."""
    if is_uuid(name_or_uuid):
        found = descriptions.read(context.store.layout(name_or_uuid).directory)
        return found if found is not None and found.host == host else None
    matching = [
        left
        for left in _descriptions(context)
        if left.host == host and left.instance.name == name_or_uuid
    ]
    return matching[0] if matching else None


def _require_whole(context: Context, left: Description) -> None:
    if left.building:
        directory = context.store.layout(left.instance.uuid).directory
        raise exception.InvalidState(
            f"{left.host} died while it was making the instance, whose disks are not whole",
            field="instance",
            value=left.instance.uuid,
            instance=left.instance.name,
            remedy=f"remove {directory}, and create the instance again",
        )


def _descriptions(context: Context) -> list[Description]:
    found = []
    for directory in context.store.directories():
        try:
            left = descriptions.read(directory)
        except exception.StorageError as error:
            LOG.warning("%s", error)
            continue
        if left is not None and left.instance.uuid == os.path.basename(directory):
            found.append(left)
    return found


def _vouched(
    context: Context, name_or_uuid: str, host: str, given: Description | None, rebuild: bool
) -> Description:
    if given is None:
        raise exception.InstanceNotFound(
            f"no directory here is that of an instance {name_or_uuid!r} of {host}",
            field="description",
            instance=name_or_uuid,
            remedy=f"if the hosts do not share {context.store.root}, give its {descriptions.NAME} "
            f"from a backup: --description FILE --rebuild",
        )
    if given.host != host or name_or_uuid not in (given.instance.name, given.instance.uuid):
        raise exception.InvalidRequest(
            f"it describes {given.instance.name} ({given.instance.uuid}) of {given.host}",
            field="description",
            instance=name_or_uuid,
            remedy=f"give the {descriptions.NAME} of {name_or_uuid} of {host}",
        )
    if not rebuild:
        raise exception.InvalidRequest(
            "its disks are not here: they would be made afresh, without what the guest has written",
            field="rebuild",
            value=False,
            instance=given.instance.name,
            remedy="say that this is what you want: --rebuild; or restore its directory first",
        )
    return given


def _bring_back_shared(
    context: Context, left: Description, directory: str, start: bool, request_id: str | None
) -> None:
    latest = descriptions.read(directory)
    if latest is None or latest.host != left.host:
        raise exception.InvalidState(
            f"it has been brought back on {latest.host if latest else 'another host'} already",
            instance=left.instance.name,
        )
    offer = _offer(latest, active=start, marker=descriptions.NAME)
    instance = placed(context, offer)
    problems = list(check_destination(context, offer).problems)
    problems += check_shared(latest.instance)
    problems += _unusable(context, instance)
    refuse(instance, context.host, problems)
    record = _record(context, instance, latest, request_id)
    assert record.task is not None  # noqa: S101 it is being brought back
    with context.under_way(instance.uuid, record.task), undo_on_failure() as undo:
        domain = context.hypervisor.define(definition(context, offer, record))
        undo.add(forget, domain)
        undo.add(descriptions.write, directory, latest)
        # from here on it is this host's, whatever happens: the other one sees that when it returns
        descriptions.write(directory, context.description(domain, record))
        point_to_images(context, instance)
        _end(context, domain, record, latest.autostart, start)


def _rebuild(
    context: Context, left: Description, start: bool, request_id: str | None, progress: Progress
) -> None:
    offer = _offer(left, active=start, marker=uuidutils.generate_uuid())
    refuse(left.instance, context.host, list(check_destination(context, offer).problems))
    instance = placed(context, offer)
    record = _record(context, instance, left, request_id)
    assert record.task is not None  # noqa: S101 the instance is being brought back
    with context.under_way(instance.uuid, record.task):
        domain = context.hypervisor.define(definition(context, offer, record))
        context.claim(domain, record)
        spawn.make_files(context, instance, progress)
        if instance.config_drive is not None:
            LOG.warning("%s: its config drive has neither user data nor password", instance.name)
        _end(context, domain, record, left.autostart, start)


def _end(context: Context, domain: Domain, record: Record, autostart: bool, start: bool) -> None:
    if start:
        domain.start()
    domain.set_autostart(autostart)
    request_id = record.task.request_id if record.task else None
    context.save(domain, record.changed(task=None).with_request(request_id))


def _record(
    context: Context, instance: Instance, left: Description, request_id: str | None
) -> Record:
    return Record(
        instance=instance,
        root=context.store.root,
        digest=left.digest,
        task=Task.begin(TaskName.EVACUATE, request_id),
        evacuated_from=tuple(
            host for host in (*left.evacuated_from, left.host) if host != context.host
        ),
    )


def _offer(left: Description, *, active: bool, marker: str) -> MigrationOffer:
    """Return the offer that the dead host would have made.

    :param marker: a file of the directory if that is shared, else one that no directory has.
    """
    old = parse_definition(left.definition, "description.definition")
    instance = left.instance
    return MigrationOffer(
        id=uuidutils.generate_uuid(),
        kind="cold",
        source=left.host,
        instance=instance.changed(consoles=console.with_password(old, instance.consoles)),
        digest=left.digest,
        active=active,
        autostart=left.autostart,
        marker=marker,
        definition=left.definition,
        machine=xml.attribute(old, "os/type", "machine") or None,
        disks=tuple(_disk(disk) for disk in instance.disks if disk.device == "disk" and disk.file),
    )


def _disk(disk: Disk) -> MovingDisk:
    assert disk.file is not None  # noqa: S101 the caller has looked
    size = (disk.size_mib or 0) << 20
    return MovingDisk.parse(
        {
            "name": disk.name,
            "file": os.path.basename(disk.file.path),
            "format": disk.file.format,
            "size": size,
            "allocated": size if disk.file.format == "raw" else 0,
        }
    )


def _unusable(context: Context, instance: Instance) -> list[Problem]:
    """Return disks that are missing, or that a live QEMU uses: then the host is not dead."""
    found = []
    for disk in instance.disks:
        if disk.file is None or disk.device != "disk":
            continue
        try:
            context.qemu_img.require_unused(disk.file.path, disk.file.format)
        except exception.StorageError as error:
            problem = problem_of(error)
            if "lock" in error.message:
                problem = Problem(
                    code="invalid_state",
                    field="fenced",
                    message=f"{disk.file.path} is in use: its guest still runs somewhere",
                    remedy="switch its host off, or kill its QEMU",
                )
            found.append(problem)
    return found


def mend(context: Context, domain: Domain, record: Record) -> str:
    """Finish or undo an evacuation that was cut off; return the outcome."""
    layout = context.store.layout(domain.uuid)
    described = descriptions.read(layout.directory)
    if described is None or described.building:
        destroy.remove(context, domain, record)
        return "what was made of the instance was removed"
    if not described.is_of(context.host, _host_uuid(context)):
        forget(domain)
        return "the instance is still to be brought back"
    point_to_images(context, record.instance)
    if not domain.is_active():
        domain.start()
    _end(context, domain, record, described.autostart, start=False)
    return "the instance was brought back"


# The host that returns


def leave(context: Context, uuid: str) -> bool:
    """Forget an instance whose directory belongs to another host by now; return whether it did.

    A guest of it here is the older one, and goes; the files are the other host's, and stay.

    :raises kvmdriver.exception.StorageError: it cannot be told whose the directory is.
    """
    if not _is_elsewhere(context, uuid):
        return False
    with context.locks.hold(uuid):
        known = _settled(context, uuid)
        # an instance that comes back is this host's before it is settled
        if known is None or not _is_elsewhere(context, uuid):
            return False
        forget(known[0])
        LOG.warning("%s: evacuated to another host while this one was away", known[0].name)
        return True


def _is_elsewhere(context: Context, uuid: str) -> bool:
    described = descriptions.read(context.store.layout(uuid).directory)
    return described is not None and not described.is_of(context.host, _host_uuid(context))


def forget_evacuated(context: Context, uuid: str, claimant: Neighbour) -> None:
    """Forget an instance that another host has evacuated. That host is asked first.

    Files that only this host has would never be used again, and go. Nothing happens when there is
    nothing of it here.

    :raises kvmdriver.exception.InvalidState: the other host has not.
    """
    before = _settled(context, uuid)
    if before is None:
        return
    if claimant.host == context.host or not claimant.has_evacuated(uuid, context.host):
        raise exception.InvalidState(
            f"{claimant.host} has not brought it back", instance=uuid, field="claimant"
        )
    if leave(context, uuid):
        return
    with context.locks.hold(uuid):
        now = _settled(context, uuid)
        # the instance cannot have come back from that host: the domain here would be gone first
        if now is not None and now[1] == before[1]:
            destroy.remove(context, *now)
            LOG.warning("%s: evacuated to %s, without its disks", now[0].name, claimant.host)


def _settled(context: Context, uuid: str) -> tuple[Domain, Record] | None:
    """Domain and record of an instance of ours; None if it is unknown or migrating."""
    known = context.known(uuid)
    if known is None or (known[1].task is not None and known[1].task.migration is not None):
        return None
    return known


def has_evacuated(context: Context, name_or_uuid: str, host: str) -> bool:
    """Return whether an instance of this host was evacuated from ``host``."""
    known = context.known(name_or_uuid)
    return known is not None and known[1].task is None and host in known[1].evacuated_from


def tell(context: Context, neighbours: Neighbours) -> int:
    """Tell hosts that have returned which instances they lost; return how many do not answer yet."""
    away = set()
    for uuid, host in sorted(context.evacuated):
        known = context.known(uuid)
        if known is None or host not in known[1].evacuated_from:
            context.evacuated.discard((uuid, host))  # it has gone, perhaps back to that host
            continue
        if host in away or known[1].task is not None:
            away.add(host)
            continue
        try:
            neighbour = neighbours(host)
            if neighbour.answers():
                neighbour.forget_evacuated(uuid, context.host)
                _told(context, uuid, host)
                continue
        except exception.AgentUnreachable:
            LOG.debug("%s cannot be reached", host)
        except exception.KVMDriverError as error:
            LOG.warning("%s still has its instance %s: %s", host, uuid, error.message)
        away.add(host)
    return len(away)


def _told(context: Context, uuid: str, host: str) -> None:
    with context.locks.hold(uuid):
        if has_evacuated(context, uuid, host):
            domain, record = context.find(uuid)
            others = tuple(other for other in record.evacuated_from if other != host)
            context.save(domain, record.changed(evacuated_from=others))
    context.evacuated.discard((uuid, host))
    LOG.info("%s knows that %s is here", host, uuid)


def _host_uuid(context: Context) -> str:
    return context.hypervisor.host_capabilities().uuid
