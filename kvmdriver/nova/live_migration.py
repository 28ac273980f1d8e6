"""Live migration as nova's compute services do it between them.

The destination prepares, the source moves the guest and calls nova back, which then has both
clean up. Either may run nova's own driver for libvirt instead of this one.
"""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

from lxml import etree
from nova import exception as nova_exception
from nova.network import model as network_model
from nova.objects.image_meta import ImageMeta
from nova.objects.instance import Instance as NovaInstance
from nova.objects.migrate_data import LibvirtLiveMigrateBDMInfo, LibvirtLiveMigrateData
from nova.virt import driver as nova_driver
from oslo_log import log as logging

from kvmdriver import exception
from kvmdriver.definition.disks import disk_element
from kvmdriver.definition.migration import replace_hosts_own, with_addresses
from kvmdriver.definition.nics import nic_element
from kvmdriver.guest.migration.paused import make_movable
from kvmdriver.guest.migration.policy import policy_of
from kvmdriver.guest.migration.result import migration_result
from kvmdriver.guest.migration.watch import Watch
from kvmdriver.guest.undo import undo_on_failure
from kvmdriver.hypervisor import xml
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.events import SUSPENDED_FOR_MIGRATION
from kvmdriver.hypervisor.migration import JobProgress, MigrationSettings
from kvmdriver.model import MigrationOptions, MigrationView
from kvmdriver.nova import (
    block_devices,
    definition,
    demands,
    disks,
    lifecycle,
    migration_pins,
    nics,
    vifs,
    volumes,
)
from kvmdriver.nova.block_devices import Slot
from kvmdriver.nova.migration_check import local_disk_info
from kvmdriver.nova.node import Node
from kvmdriver.progress import ignore

LOG = logging.getLogger(__name__)

PostMethod = Callable[..., Any]

# Seconds between two updates of the progress that nova keeps in its database.
_SAVE_SECONDS = 5.0
_MIB = 1024 * 1024


# The destination


def prepare(
    node: Node,
    context: Any,
    instance: NovaInstance,
    block_device_info: dict[str, Any] | None,
    network_info: Any,
    disk_info: str | None,
    data: LibvirtLiveMigrateData,
) -> LibvirtLiveMigrateData:
    """Make everything that a guest needs on this host, the destination; return where it is.

    :raises nova.exception.DestinationDiskExists: its directory is there already.
    :raises kvmdriver.exception.Unsupported: the server asks for what this driver does not have;
        nothing was connected or made.
    """
    image_meta = instance.image_meta
    machine = node.machine(image_meta, instance)
    slots = block_devices.plan(instance, image_meta, block_device_info, machine)
    wanted = demands.of_server(node, instance, slots)
    node.not_prepared.discard(instance.uuid)
    with undo_on_failure() as undo:
        # nova rolls back as well, and must not take what was here before
        undo.add(node.not_prepared.add, instance.uuid)
        demands.check_move(node, instance, image_meta, wanted)
        node.volume_users.expect(node.hypervisor, instance.uuid, wanted)
        undo.add(node.volume_users.settle, instance.uuid)
        if not data.is_shared_instance_path:
            directory = node.layout(instance).directory
            if os.path.exists(directory):
                raise nova_exception.DestinationDiskExists(path=directory)
            undo.add(shutil.rmtree, directory, True)
            _make_files(node, context, instance, network_info, slots, disk_info, data)
        undo.add(lifecycle.release_volumes, node, instance, block_device_info)
        lifecycle.connect_volumes(node, instance, block_device_info)
        arriving = _arriving_vifs(network_info, data)
        undo.add(vifs.unplug_all, node, instance, arriving)
        vifs.replug_all(node, instance, arriving)
    data.bdms = _volumes(node, slots)
    data.target_connect_addr = node.conf.kvm_migration.inbound_address
    data.supported_perf_events = []
    data.serial_listen_ports = definition.free_serial_ports(node, instance)
    return data


def _make_files(
    node: Node,
    context: Any,
    instance: NovaInstance,
    network_info: Any,
    slots: Sequence[Slot],
    disk_info: str | None,
    data: LibvirtLiveMigrateData,
) -> None:
    layout = node.store.create(instance.uuid)
    if not data.is_shared_block_storage:
        disks.make_targets(node, context, instance, slots, local_disk_info(disk_info))
    if any(slot.file == "disk.config" for slot in slots):
        # libvirt copies no read-only disks; what nova puts in does not change
        disks.make_config_drive(
            node, context, instance, layout.config_drive, network_info=network_info
        )
    if instance.kernel_id:
        disks.make_boot_files(node, context, layout, instance.kernel_id, instance.ramdisk_id)


def _arriving_vifs(network_info: Any, data: LibvirtLiveMigrateData) -> Any:
    """Return the interfaces as neutron has bound them to the destination."""
    if "vifs" not in data or not data.vifs:
        return network_info
    return network_model.NetworkInfo([vif.get_dest_vif() for vif in data.vifs])


def _volumes(node: Node, slots: Sequence[Slot]) -> list[LibvirtLiveMigrateBDMInfo]:
    """Return how the volumes are reached from here, for the source to put into the definition."""
    found = []
    for slot in slots:
        connection_info = (slot.volume or {}).get("connection_info")
        if not connection_info or not connection_info.get("serial"):
            continue
        info = LibvirtLiveMigrateBDMInfo()
        info.serial = connection_info["serial"]
        info.connection_info = connection_info
        info.bus, info.dev, info.type = slot.bus, slot.name, slot.device
        info.format = None
        info.boot_index = slot.boot_order
        disk = volumes.to_model(node, slot)
        if disk.volume is not None and disk.volume.encryption_secret:
            info.encryption_secret_uuid = disk.volume.encryption_secret
        found.append(info)
    return found


def arrived(
    node: Node,
    context: Any,
    instance: NovaInstance,
    network_info: Any,
    block_device_info: dict[str, Any] | None,
) -> None:
    """Redefine a guest that has arrived as a guest made on this host.

    What libvirt has kept is that of the running guest as the source put it together. The devices
    stay at their addresses.
    """
    node.states.forget()
    domain = node.domain(instance)
    image_meta = instance.image_meta
    machine = node.machine(image_meta, instance)
    slots = block_devices.plan(instance, image_meta, block_device_info, machine)
    with node.locks.hold(instance.uuid):
        fresh = definition.build(node, context, instance, image_meta, slots, network_info)
        node.hypervisor.define(with_addresses(fresh, domain.xml(inactive=True)))
    node.volume_users.settle(instance.uuid)


def roll_back_at_destination(
    node: Node,
    instance: NovaInstance,
    network_info: Any,
    block_device_info: dict[str, Any] | None,
    data: LibvirtLiveMigrateData | None,
) -> None:
    """Remove what ``prepare`` has made. The server itself is the source's: nothing is noted in it.

    A ``prepare`` that failed has removed that already. What is still here is not its work.
    """
    if instance.uuid in node.not_prepared:
        node.not_prepared.discard(instance.uuid)
        return
    shared = data is None or data.is_shared_instance_path
    try:
        vifs.unplug_all(node, instance, network_info, ignore_errors=True)
        lifecycle.release_volumes(node, instance, block_device_info)
        lifecycle.undefine(node, instance, keep_nvram=True)
    finally:
        node.volume_users.settle(instance.uuid)
        if not shared:
            shutil.rmtree(node.layout(instance).directory, ignore_errors=True)


# The source


def migrate(
    node: Node,
    context: Any,
    instance: NovaInstance,
    destination: str,
    post_method: PostMethod,
    recover_method: PostMethod,
    block_migration: bool,
    data: LibvirtLiveMigrateData,
) -> None:
    """Migrate a guest, then call nova: ``post_method`` if it has arrived, else the other one."""
    domain = node.domain(instance)
    status = "failed"
    try:
        with node.hypervisor.events.expect(
            domain.uuid, "suspended", detail=SUSPENDED_FOR_MIGRATION
        ) as switched:
            try:
                _run(node, instance, domain, destination, data)
            except exception.MigrationAborted:
                status = "cancelled"
                raise
            finally:
                node.states.forget()
    except exception.KVMDriverError as error:
        LOG.error("live migration to %s: %s", destination, error, instance=instance)
        if not _has_left(node, instance, switched=switched.event is not None):
            recover_method(context, instance, destination, data, migration_status=status)
            return
    post_method(context, instance, destination, block_migration, data)


def _has_left(node: Node, instance: NovaInstance, *, switched: bool) -> bool:
    """Return whether a guest is at the destination although libvirt has reported an error.

    :raises nova.exception.MigrationError: it cannot be told; nova then marks the server.
    """
    domain = node.hypervisor.find(instance.uuid)
    if domain is None:
        return True
    presence = domain.presence()
    if presence in ("off-migrated", "post-copy", "lost"):
        return True
    if presence == "on" or not switched:
        return False
    if presence == "handed-over":
        raise nova_exception.MigrationError(
            reason=f"{instance.uuid} is paused after its switch-over: see whether it runs on the "
            "destination, then destroy or resume it here with virsh"
        )
    return False


def _run(
    node: Node,
    instance: NovaInstance,
    domain: Domain,
    destination: str,
    data: LibvirtLiveMigrateData,
) -> None:
    conf = node.conf.kvm_migration
    address = data.target_connect_addr if "target_connect_addr" in data else None
    running = domain.migratable_xml()
    copied = _copied_disks(running) if data.block_migration else ()
    policy = policy_of(
        conf, MigrationOptions(), instance.flavor.memory_mb, _disk_bytes(domain, copied)
    )
    paused = domain.status() == "paused"
    if paused:
        policy = policy.changed(post_copy=False)  # libvirt refuses it for such guests
        make_movable(node.hypervisor, domain)
    settings = MigrationSettings(
        uri=_uri(node, address or destination),
        definition=_definition_there(node, instance, running, data),
        address=address if address and not conf.tunnelled else None,
        disks=copied,
        bandwidth=policy.bandwidth,
        parallel_connections=conf.parallel_connections,
        native_tls=conf.native_tls,
        tunnelled=conf.tunnelled,
        auto_converge=policy.auto_converge,
        post_copy=policy.post_copy,
        hand_over=True,
    )
    view = MigrationView(
        id=instance.uuid,
        instance=domain.name,
        uuid=instance.uuid,
        kind="live",
        source=node.conf.host,
        destination=destination,
        state="run",
    )
    wishes = node.migrations.begin(view, policy)
    watch = Watch(node.migrations, domain, view, wishes, ignore)
    record = _Recorder(instance, data)
    try:
        pending = domain.start_migration(settings)
        while not pending.wait(watch.pause):
            watch.look()
            watch.end_if_stuck()
            record.note(watch.seen)
        migration_result(pending)
    finally:
        node.migrations.end(instance.uuid)


class _Recorder:
    """Records progress where ``openstack server migration show`` finds it."""

    def __init__(self, instance: NovaInstance, data: LibvirtLiveMigrateData):
        self._instance = instance
        self._migration = data.migration if "migration" in data else None
        self._next = time.monotonic()

    def note(self, seen: JobProgress | None) -> None:
        """Record a sample, every few seconds."""
        if seen is None or self._migration is None or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _SAVE_SECONDS
        migration = self._migration
        migration.memory_total = int(seen.memory_total * _MIB)
        migration.memory_processed = int(seen.memory_sent * _MIB)
        migration.memory_remaining = int(seen.memory_left * _MIB)
        migration.disk_total = int(seen.disk_total * _MIB)
        migration.disk_processed = int((seen.disk_total - seen.disk_left) * _MIB)
        migration.disk_remaining = int(seen.disk_left * _MIB)
        migration.save()
        if seen.memory_total:
            left = seen.memory_left / seen.memory_total
            self._instance.progress = round(100 * (1 - left))
            self._instance.save()


def _uri(node: Node, address: str) -> str:
    """Return the URI of the destination's libvirtd."""
    host = f"[{address}]" if ":" in address else address
    template = node.conf.libvirt.live_migration_uri
    if template:
        return str(template % host)
    return f"qemu+{node.conf.kvm_migration.transport}://{host}/system"


def _copied_disks(running: etree._Element) -> tuple[str, ...]:
    """Return local disks of the guest: files of its own directory that it may write to."""
    found = []
    uuid = running.findtext("uuid") or ""
    for node in running.iterfind("devices/disk[@type='file']"):
        writable = node.find("readonly") is None and node.find("shareable") is None
        directory = os.path.dirname(xml.attribute(node, "source", "file"))
        if writable and os.path.basename(directory) == uuid:
            found.append(xml.attribute(node, "target", "dev"))
    return tuple(found)


def _disk_bytes(domain: Domain, names: Sequence[str]) -> int:
    return sum(domain.block_info(name)[0] for name in names)


def _definition_there(
    node: Node, instance: NovaInstance, running: etree._Element, data: LibvirtLiveMigrateData
) -> etree._Element:
    """Return the running definition with what the destination has decided."""
    devices = running.find("devices")
    if devices is None:
        return running
    others = etree.Element("devices")
    _add_consoles(others, devices, data)
    for info in data.bdms if "bdms" in data else ():
        slot = Slot(
            name=info.dev,
            bus=info.bus,
            device=info.type,
            volume={"connection_info": info.connection_info},
        )
        others.append(disk_element(volumes.to_model(node, slot)))
    image_meta: ImageMeta = instance.image_meta
    for migrating in data.vifs if "vifs" in data else ():
        nic = nics.translate(node.conf, migrating.get_dest_vif(), image_meta, instance.flavor)
        others.append(nic_element(nic))
    replace_hosts_own(devices, others)
    migration_pins.replace(running, data)
    return running


def _add_consoles(
    others: etree._Element, devices: etree._Element, data: LibvirtLiveMigrateData
) -> None:
    for graphics in devices.iterfind("graphics"):
        kind = graphics.get("type", "")
        field = f"graphics_listen_addr_{kind}"
        if field in data.fields and field in data:
            listen = str(getattr(data, field))
            new = etree.SubElement(others, "graphics", type=kind, listen=listen)
            etree.SubElement(new, "listen", type="address", address=listen)
    ports = list(data.serial_listen_ports) if "serial_listen_ports" in data else []
    if not ports or not data.serial_listen_addr:
        return
    for tag in ("serial", "console"):
        for number, old in enumerate(devices.iterfind(f"{tag}[@type='tcp']")):
            source = old.find("source")
            if source is not None and number < len(ports):
                source.set("host", str(data.serial_listen_addr))
                source.set("service", str(ports[number]))


def force_complete(node: Node, instance: NovaInstance) -> None:
    """Complete a migration at once.

    :raises nova.exception.MigrationNotFound: there is none.
    """
    wishes = node.migrations.wishes(instance.uuid)
    if wishes is None:
        raise nova_exception.MigrationNotFoundForInstance(
            migration_id="-", instance_id=instance.uuid
        )
    wishes.force = True


def abort(node: Node, instance: NovaInstance) -> None:
    """Cancel a migration. An instance without a migration is left alone."""
    wishes = node.migrations.wishes(instance.uuid)
    if wishes is not None:
        wishes.abort = True


def left(node: Node, instance: NovaInstance, block_device_info: dict[str, Any] | None) -> None:
    """Disconnect the volumes of a guest that has left. The log tells of errors: the move is done."""
    for entry in nova_driver.block_device_info_get_mapping(block_device_info):
        try:
            volumes.disconnect(node, entry["connection_info"], instance.uuid)
        except Exception:
            LOG.exception("could not release volume %s", entry.get("volume_id"), instance=instance)
