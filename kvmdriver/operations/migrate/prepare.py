"""The destination prepares: a definition without a guest, disks to fill, files to receive."""

import os
from collections.abc import Mapping

from lxml import etree

from kvmdriver import exception
from kvmdriver.definition.build import domain_xml
from kvmdriver.definition.migration import foreign_devices, with_addresses
from kvmdriver.guest.undo import undo_on_failure
from kvmdriver.host import platform as host_platform
from kvmdriver.hypervisor import xml
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.record import DoneRequest, Owner, Record, Task
from kvmdriver.model import (
    FileReceiver,
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
    check_offer,
    is_leftover,
    refuse,
    uri_of,
)
from kvmdriver.operations.migrate.placement import (
    accept_disk,
    disk_path,
    is_received,
    obtain_images,
    placed,
    shared_images,
    wanted_files,
)
from kvmdriver.storage import private, stream
from kvmdriver.storage.copy import remove_file
from kvmdriver.storage.stream import ExpectedFile, Receiver

CONSOLE_LOG = "console.log"
# The most of it that goes along: virtlogd starts a new file at 2 MiB (virtlogd.conf, max_size).
LOG_BYTES = 4 * 1024 * 1024


def prepare(context: Context, offer: MigrationOffer) -> MigrationPlan:
    """Make everything that an instance needs here, except for its guest.

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
        answer = check_offer(context, offer)
        refuse(offer.instance, context.host, list(answer.problems))
        images = shared_images(context, offer) if answer.shared else obtain_images(context, offer)
        received = tuple(path for path in images.values() if is_received(path))
        instance = placed(context, offer, images)
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
            task=Task(
                name=INCOMING,
                owner=Owner.current(),
                files=() if answer.shared else received,
                migration=migration,
            ),
            requests=tuple(DoneRequest.of(reference) for reference in offer.requests),
            # this host may have the instance back before it was told to forget it
            evacuated_from=tuple(h for h in offer.evacuated_from if h != context.host),
        )
        undo.add(context.arrivals.end, offer.id)
        context.migrations.activity.set()
        domain = context.hypervisor.define(definition(context, offer, record))
        undo.add(forget, domain)
        wanted: tuple[MovingFile, ...] = ()
        if not answer.shared:
            for path in received:
                undo.add(remove_file, path)
            context.claim(domain, record)
            undo.add(context.remove_files, record)
            wanted = wanted_files(offer, images)
            if offer.kind == "live":
                _make_disks(context, offer, images)
        ports = parse_ports(conf.ports)
        if not answer.shared:
            files = _expected(context, offer, wanted, images)
            _receive(context, uuid, offer.id, files, live=offer.kind == "live")
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
            wanted=wanted,
        )


def remove_incoming(context: Context, domain: Domain) -> None:
    """Undo ``prepare``; a QEMU that waits for the memory of the guest ends."""
    record = context.record(domain.uuid)
    task = record.task if record else None
    if record is None or task is None or task.migration is None:
        return
    domain.destroy()
    context.arrivals.end(task.migration.id)
    if not task.migration.shared:
        context.remove_files(record)
        for path in task.files:
            remove_file(path)
    forget(domain)


def forget(domain: Domain) -> None:
    """Undefine a domain; NVRAM is a file like others, and goes with the directory or stays."""
    domain.destroy()
    domain.undefine(keep_nvram=True)


def definition(context: Context, offer: MigrationOffer, record: Record) -> etree._Element:
    """Return a definition for this host of what an offer offers; devices keep their addresses.

    :raises kvmdriver.exception.InvalidRequest: the offered one has devices that the instance has
        not.
    """
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
    old = parse_definition(offer.definition, "offer.definition")
    foreign = foreign_devices(fresh, old)
    if foreign:
        raise exception.InvalidRequest(
            f"the definition has devices that are none of the instance's: {', '.join(foreign)}",
            field="offer.definition",
            instance=instance.name,
            remedy="detach them on the source, e.g. with virsh detach-device",
        )
    return with_addresses(fresh, old)


def parse_definition(text: str, field: str) -> etree._Element:
    """Parse a definition that another host has sent or kept.

    :raises kvmdriver.exception.InvalidRequest: it is none.
    """
    try:
        return xml.parse(text)
    except (ValueError, SyntaxError):
        raise exception.InvalidRequest(
            "is not XML", field=field, remedy="send the domain's XML"
        ) from None


def _make_disks(context: Context, offer: MigrationOffer, images: Mapping[str, str]) -> None:
    layout = context.store.layout(offer.instance.uuid)
    for disk in offer.disks:
        backing = None
        if disk.backing is not None and not offer.full_copy:
            backing = images[disk.backing]
        path = disk_path(layout, offer, disk, shared=False)
        context.qemu_img.create_target(path, disk.format, disk.size, backing=backing)


def _expected(
    context: Context,
    offer: MigrationOffer,
    wanted: tuple[MovingFile, ...],
    images: Mapping[str, str],
) -> dict[str, ExpectedFile]:
    """Return where each file goes that the source is to send, and its size."""
    layout = context.store.layout(offer.instance.uuid)
    disks = {disk.file: disk for disk in offer.disks} if offer.kind == "cold" else {}
    found = {}
    for file in wanted:
        if file.place == "cache":
            found[file.name] = ExpectedFile(images[file.name], file.size)
        elif file.name in disks:
            disk = disks[file.name]
            found[file.name] = ExpectedFile(
                disk_path(layout, offer, disk, shared=False),
                file.size,
                accept=accept_disk(context, disk, images),
            )
        else:
            found[file.name] = ExpectedFile(layout.file(file.name), file.size)
    return found


def receiver(context: Context, uuid: str, identity: str) -> FileReceiver:
    """Return the receiver of files of an instance that moves here, or has just arrived.

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
    return _receive(context, record.instance.uuid, identity, {}, live=True)


def _receive(
    context: Context, uuid: str, identity: str, files: dict[str, ExpectedFile], *, live: bool
) -> FileReceiver:
    """Listen for files. The console's log comes last, after the guest has arrived."""
    conf = context.conf.kvm_migration
    layout = context.store.layout(uuid)
    log = _older_log(layout) if live else layout.console_log
    files = {**files, CONSOLE_LOG: ExpectedFile(log, LOG_BYTES, exact=False)}
    private.require_directory(context.store.cache_directory)
    tls = stream.tls_context(conf.tls_directory, "server") if conf.native_tls else None
    port = context.arrivals.take_port(identity, parse_ports(conf.ports), conf.inbound_address)
    return context.arrivals.receive(
        identity, Receiver(files, tls, require=context.store.require), conf.inbound_address, port
    )


def _older_log(layout: InstanceLayout) -> str:
    """Return where the log of the source goes: as with virtlogd, older logs have a number."""
    number = 0
    while os.path.exists(path := f"{layout.console_log}.{number}"):
        number += 1
    return path
