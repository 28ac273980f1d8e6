"""The source's check before anything moves: what is to move, and what speaks against it here."""

import os

from lxml import etree
from oslo_utils import uuidutils

from kvmdriver import exception
from kvmdriver.guest import console, nested
from kvmdriver.hypervisor import xml
from kvmdriver.hypervisor.capabilities import cpu_set
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.record import Record
from kvmdriver.model import (
    Disk,
    Instance,
    MigrationOffer,
    MigrationOptions,
    MovingDisk,
    MovingFile,
    Problem,
)
from kvmdriver.model.migration import MigrationKind
from kvmdriver.operations import cpu
from kvmdriver.operations.context import Context
from kvmdriver.operations.migrate.terms import marker_of
from kvmdriver.operations.storage_move import outside_disks
from kvmdriver.storage import inspect

_ACTIVE = ("running", "paused")
# Files of an instance besides its disks that a definition refers to.
_FILES = ("disk.config", "kernel", "ramdisk")


def make_offer(
    context: Context,
    domain: Domain,
    record: Record,
    kind: MigrationKind,
    options: MigrationOptions,
) -> MigrationOffer:
    """Return all that another host needs to know of an instance to take it."""
    instance = record.instance
    active = domain.is_active()
    running = domain.xml()
    layout = context.store.layout(instance.uuid)
    disks = tuple(
        moving_disk(context, disk, sent=kind == "cold")
        for disk in instance.disks
        if disk.device == "disk" and disk.file is not None
    )
    names = list(_FILES)
    if kind == "cold" and os.path.exists(layout.nvram):
        names.append(os.path.basename(layout.nvram))
    files = [_moving_file("instance", layout.file(name)) for name in names]
    for disk in instance.disks:
        if disk.device == "cdrom" and disk.file is not None:
            files.append(_moving_file("cache", disk.file.path))
    for moving in disks:
        if moving.backing is not None and not options.full_copy:
            files.append(MovingFile(place="cache", name=moving.backing, size=moving.backing_size))
    identity = uuidutils.generate_uuid()
    return MigrationOffer(
        id=identity,
        kind=kind,
        source=context.host,
        # the name may have changed since, and secrets are not in the record
        instance=instance.changed(
            name=domain.name,
            consoles=console.with_password(
                domain.xml(inactive=True, secure=True), instance.consoles
            ),
        ),
        digest=record.digest,
        requests=tuple(request.reference for request in record.requests),
        evacuated_from=record.evacuated_from,
        active=active,
        autostart=domain.autostart(),
        marker=marker_of(identity),
        definition=xml.to_string(domain.xml(inactive=True)),
        cpu=cpu.of_guest(context, domain.uuid).definition if active else None,
        machine=xml.attribute(running, "os/type", "machine") or None,
        cpus=_pinned(running),
        qemu_version=context.hypervisor.version_numbers()[0],
        native_tls=context.conf.kvm_migration.native_tls,
        full_copy=options.full_copy,
        disks=disks,
        files=tuple({file.name: file for file in files if file is not None}.values()),
    )


def check_source(
    context: Context, domain: Domain, record: Record, kind: MigrationKind
) -> list[Problem]:
    """Return every reason against a migration on this side."""
    found = []
    status = domain.status()
    if kind == "live" and status not in _ACTIVE:
        found.append(
            Problem(
                code="invalid_state",
                field="status",
                message=f"a live migration is not possible while the instance is {status}",
                remedy="move it without running: --cold, or start it first",
            )
        )
    if kind == "cold" and status not in ("stopped", "crashed"):
        found.append(
            Problem(
                code="invalid_state",
                field="status",
                message=f"a cold migration is not possible while the instance is {status}",
                remedy="stop it first, or move it live",
            )
        )
    if kind == "live":
        try:
            nested.require_movable(context.conf, domain, "live migration")
        except exception.KVMDriverError as error:
            found.append(problem_of(error))
    conf = context.conf.kvm_migration
    if conf.tunnelled and conf.parallel_connections > 1:
        found.append(
            Problem(
                code="configuration_error",
                field="kvm_migration.parallel_connections",
                message="a tunnelled migration has one connection only",
                remedy="set parallel_connections to 1, or tunnelled to false",
            )
        )
    for node in domain.xml().iterfind("devices/hostdev"):
        found.append(
            Problem(
                code="unsupported",
                field="devices.hostdev",
                message=f"the guest has a device of this host ({node.get('type', 'hostdev')})",
                remedy="detach it first",
            )
        )
    return found


def check_shared(instance: Instance) -> list[Problem]:
    """Return the reasons against a migration between hosts that share the instance's directory."""
    return [
        Problem(
            code="unsupported",
            field="disks",
            message=f"{path} lies outside of the directory that the hosts share",
            remedy="move the disk back first: kvmdriver server move disk",
        )
        for path in outside_disks(instance)
    ]


def problem_of(error: exception.KVMDriverError) -> Problem:
    """Return an error as one reason among others."""
    return Problem(code=error.code, field=error.field, message=error.message, remedy=error.remedy)


def moving_disk(context: Context, disk: Disk, *, sent: bool) -> MovingDisk:
    """Return a disk with its file, as the offer has it.

    :param sent: the file itself is sent, not its content by QEMU.
    """
    assert disk.file is not None and disk.name is not None  # noqa: S101 the caller has looked
    path = disk.file.path
    status = os.stat(path)
    size, backing, backing_size = status.st_size, None, 0
    if disk.file.format == "qcow2":
        size = inspect.header_size(path)
        base = inspect.header_backing(path)
        if base is not None:
            backing = os.path.basename(base)
            backing_size = os.path.getsize(os.path.join(context.store.cache_directory, backing))
    return MovingDisk(
        name=disk.name,
        file=os.path.basename(path),
        format=disk.file.format,
        size=size,
        allocated=status.st_blocks * 512,
        length=status.st_size if sent else None,
        backing=backing,
        backing_size=backing_size,
    )


def _moving_file(place: str, path: str) -> MovingFile | None:
    if not os.path.exists(path):
        return None
    return MovingFile.model_validate(
        {"place": place, "name": os.path.basename(path), "size": os.path.getsize(path)}
    )


def _pinned(running: etree._Element) -> tuple[int, ...]:
    """Return the numbers of all host CPUs that the domain is pinned to."""
    found: set[int] = set()
    for node in running.iterfind("cputune/*"):
        if node.get("cpuset"):
            found |= set(cpu_set(node.get("cpuset", "")))
    return tuple(sorted(found))
