"""The destination makes ready: a definition that waits, disks to fill, files to receive."""

import os

from lxml import etree

from kvmdriver import exception
from kvmdriver.definition.build import domain_xml
from kvmdriver.definition.migration import with_addresses
from kvmdriver.host import platform as host_platform
from kvmdriver.hypervisor import xml
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.record import DoneRequest, Owner, Record, Task
from kvmdriver.model import (
    Disk,
    FileReceiver,
    Instance,
    Migration,
    MigrationOffer,
    MigrationPlan,
    MovingFile,
)
from kvmdriver.model.layout import InstanceLayout
from kvmdriver.operations.context import Context
from kvmdriver.operations.migrate.arrivals import parse_ports
from kvmdriver.operations.migrate.check import (
    INCOMING,
    check_destination,
    is_leftover,
    refuse,
    uri_of,
)
from kvmdriver.operations.undo import undo_on_failure
from kvmdriver.progress import ignore
from kvmdriver.storage import stream
from kvmdriver.storage.image_cache import Role

CONSOLE_LOG = "console.log"


def prepare(context: Context, offer: MigrationOffer) -> MigrationPlan:
    """Make everything that an instance needs here, its guest excepted.

    What an earlier migration from the same host has left is removed first, so that the same offer
    can come twice. From then on a crash leaves a domain whose record says what it is.

    :raises kvmdriver.exception.MigrationRefused: it cannot run here; with all reasons.
    """
    conf = context.conf.kvm_migration
    uuid = offer.instance.uuid
    with context.locks.hold(uuid), undo_on_failure() as undo:
        leftover = context.hypervisor.find(uuid)
        if leftover is not None and is_leftover(context.record(uuid), offer):
            remove_incoming(context, leftover)
        answer = check_destination(context, offer)
        refuse(offer.instance, context.host, list(answer.problems))
        instance = placed(context, offer)
        migration = Migration(
            id=offer.id,
            kind=offer.kind,
            peer=offer.source,
            state="prepare",
            shared=answer.shared,
            autostart=offer.autostart,
            was_active=offer.active,
        )
        record = Record(
            instance=instance,
            root=context.store.root,
            digest=offer.digest,
            task=Task(name=INCOMING, owner=Owner.current(), migration=migration),
            requests=tuple(DoneRequest.of(reference) for reference in offer.requests),
            # this host may have the instance back before it was told to forget it
            evacuated_from=tuple(h for h in offer.evacuated_from if h != context.host),
        )
        undo.add(context.arrivals.end, offer.id)
        context.migrations.activity.set()
        domain = context.hypervisor.define(definition(context, offer, record))
        undo.add(forget, domain)
        wanted: list[MovingFile] = []
        if not answer.shared:
            context.claim(domain, record)
            undo.add(context.remove_files, record)
            wanted = _wanted(context, offer, instance)
            if offer.kind == "live":
                _make_disks(context, offer)
        ports = parse_ports(conf.ports)
        if not answer.shared:
            _receive(context, uuid, offer.id, wanted, live=offer.kind == "live")
        address = conf.inbound_address
        live = offer.kind == "live"
        disks = tuple(d.name for d in offer.disks) if live and not answer.shared else ()
        return MigrationPlan(
            definition=xml.to_string(domain.xml(inactive=True, secure=True)),
            address=address,
            uri=uri_of(context),
            memory_port=context.arrivals.take_port(offer.id, ports, address) if live else None,
            disk_port=context.arrivals.take_port(offer.id, ports, address) if disks else None,
            copied_disks=disks,
            wanted=tuple(wanted),
        )


def remove_incoming(context: Context, domain: Domain) -> None:
    """Take back what ``prepare`` has made, a QEMU that waits for its memory included."""
    record = context.record(domain.uuid)
    task = record.task if record else None
    if record is None or task is None or task.migration is None:
        return
    domain.destroy()
    context.arrivals.end(task.migration.id)
    if not task.migration.shared:
        context.remove_files(record)
    forget(domain)


def forget(domain: Domain) -> None:
    """Remove a definition; NVRAM is a file like others, and goes with the directory or stays."""
    domain.destroy()
    domain.undefine(keep_nvram=True)


def definition(context: Context, offer: MigrationOffer, record: Record) -> etree._Element:
    """A definition for this host of what an offer offers; devices keep their addresses."""
    instance = record.instance
    capabilities = host_platform.guest_capabilities(
        context.hypervisor,
        instance.virt_type or "kvm",
        instance.machine or offer.machine or "",
        fallback=False,
    )
    fresh = domain_xml(
        instance,
        context.platform(instance.uuid, capabilities.emulator),
        record.to_element(),
    )
    return with_addresses(fresh, parse_definition(offer.definition, "offer.definition"))


def parse_definition(text: str, field: str) -> etree._Element:
    """A definition that another host has sent or kept.

    :raises kvmdriver.exception.InvalidRequest: it is none.
    """
    try:
        return xml.parse(text)
    except (ValueError, SyntaxError):
        raise exception.InvalidRequest(
            "is not XML", field=field, remedy="send the domain's XML"
        ) from None


def placed(context: Context, offer: MigrationOffer) -> Instance:
    """The instance with its files where this host keeps them."""
    layout = context.store.layout(offer.instance.uuid)
    names = {disk.name: disk for disk in offer.disks}
    found = []
    for disk in offer.instance.disks:
        if disk.file is None:
            found.append(disk)
        elif disk.device == "cdrom":
            name = os.path.basename(disk.file.path)
            found.append(_at(disk, os.path.join(context.store.cache_directory, name), "raw"))
        elif disk.name in names:
            moving = names[disk.name]
            found.append(_at(disk, layout.file(moving.file), moving.format))
        else:
            raise exception.InvalidRequest(
                f"disk {disk.name} of the instance is not among the disks that move",
                field="offer.disks",
            )
    return offer.instance.changed(disks=tuple(found))


def _at(disk: Disk, path: str, image_format: str) -> Disk:
    return disk.changed(file={"path": path, "format": image_format})


def _wanted(context: Context, offer: MigrationOffer, instance: Instance) -> list[MovingFile]:
    """What the source has to send: what is not here, and cannot be had from its origin."""
    found = []
    for file in offer.files:
        if (
            file.place == "instance"
            or not _in_cache(context, file)
            and not _from_origin(context, file, instance)
        ):
            found.append(file)
    if offer.kind == "cold":
        found += [
            MovingFile(place="instance", name=disk.file, size=disk.allocated)
            for disk in offer.disks
        ]
    return found


def _in_cache(context: Context, file: MovingFile) -> bool:
    path = os.path.join(context.store.cache_directory, file.name)
    return os.path.exists(path) and os.path.getsize(path) == file.size


def _from_origin(context: Context, file: MovingFile, instance: Instance) -> bool:
    """Make the cached copy of an image from the image itself, if it is known by its checksum."""
    for disk in instance.disks:
        image = disk.image
        role: Role = "cdrom" if disk.device == "cdrom" else "disk"
        if image is None or image.checksum is None:
            continue
        try:
            if os.path.basename(context.images.locate(image, role)) == file.name:
                context.images.get(image, role, ignore)
                return True
        except exception.KVMDriverError:
            continue  # then the source sends it
    return False


def _make_disks(context: Context, offer: MigrationOffer) -> None:
    layout = context.store.layout(offer.instance.uuid)
    for disk in offer.disks:
        backing = None
        if disk.backing is not None and not offer.full_copy:
            backing = os.path.join(context.store.cache_directory, disk.backing)
        context.qemu_img.create_target(
            layout.file(disk.file), disk.format, disk.size, backing=backing
        )


def receiver(context: Context, uuid: str, identity: str) -> FileReceiver:
    """Where the files of an instance that moves here are taken, or of one that has just come.

    :raises kvmdriver.exception.InvalidState: that migration is not one to this host.
    """
    found = context.arrivals.receiver(identity)
    if found is not None:
        return found
    record = context.record(uuid)
    task = record.task if record else None
    migration = task.migration if task else None
    known = migration is not None and migration.id == identity
    if record is None or not (known or record.came_by == identity):
        raise exception.InvalidState(
            f"{context.host} has no migration {identity} of the instance", instance=uuid
        )
    # an agent that has been started again, or a source that was away at the end
    return _receive(context, record.instance.uuid, identity, [], live=True)


def _receive(
    context: Context, uuid: str, identity: str, wanted: list[MovingFile], *, live: bool
) -> FileReceiver:
    """Listen for files; the console's log comes last, when the guest has gone over."""
    conf = context.conf.kvm_migration
    layout = context.store.layout(uuid)
    files = {file.name: _target(context, layout, file) for file in wanted}
    files[CONSOLE_LOG] = _older_log(layout) if live else layout.console_log
    os.makedirs(context.store.cache_directory, mode=0o711, exist_ok=True)
    tls = stream.tls_context(conf.tls_directory, "server") if conf.native_tls else None
    port = context.arrivals.take_port(identity, parse_ports(conf.ports), conf.inbound_address)
    return context.arrivals.receive(identity, files, conf.inbound_address, port, tls)


def _older_log(layout: InstanceLayout) -> str:
    """Where what was printed elsewhere goes: in virtlogd's manner, older logs have a number."""
    number = 0
    while os.path.exists(path := f"{layout.console_log}.{number}"):
        number += 1
    return path


def _target(context: Context, layout: InstanceLayout, file: MovingFile) -> str:
    if file.place == "cache":
        return os.path.join(context.store.cache_directory, file.name)
    return layout.file(file.name)
