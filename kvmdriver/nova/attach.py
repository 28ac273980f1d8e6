"""Attaching and detaching volumes and interfaces."""

import os
from typing import Any

from nova import exception as nova_exception
from nova.network import model as network_model
from nova.objects.instance import Instance as NovaInstance
from os_brick import exception as brick_exception
from oslo_log import log as logging

from kvmdriver import exception
from kvmdriver.definition.disks import disk_element, free_name
from kvmdriver.definition.nics import nic_element
from kvmdriver.guest import devices
from kvmdriver.guest.block_copy import mirrored
from kvmdriver.guest.undo import undo_on_failure
from kvmdriver.hypervisor import xml
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.nova import block_devices, demands, nics, vifs, volumes
from kvmdriver.nova.block_devices import Slot
from kvmdriver.nova.node import Node

LOG = logging.getLogger(__name__)


def attach_volume(
    node: Node,
    connection_info: dict[str, Any],
    instance: NovaInstance,
    mountpoint: str,
    disk_bus: str | None,
    device_type: str | None,
    encryption: Any,
) -> None:
    """Connect a volume and plug it in, into the running guest as well.

    :param encryption: what Cinder says of a volume that the host is to decrypt, else empty.
    :raises kvmdriver.exception.Unsupported: the volume is encrypted, or in use by another server
        of this host; nothing was connected.
    """
    machine = node.machine(instance.image_meta, instance)
    device = device_type or "disk"
    name = block_devices.bare(mountpoint) or ""
    bus = disk_bus or block_devices.bus_of_name(name)
    slot = Slot(
        name=name,
        bus=block_devices.bus_of(bus, instance.image_meta, device, machine),
        device=device,
        volume={"connection_info": connection_info},
    )
    wanted = demands.of_connection(connection_info, slot, encryption)
    demands.check_volumes([wanted])
    with (
        node.locks.hold(instance.uuid),
        node.volume_users.reserved(node.hypervisor, instance.uuid, [wanted]),
        undo_on_failure() as undo,
    ):
        domain = node.domain(instance)
        volumes.connect(node, connection_info, instance.uuid)
        undo.add(volumes.disconnect, node, connection_info, instance.uuid)
        disk = volumes.to_model(node, slot)
        live = domain.is_active()
        devices.ensure_scsi_controller(domain, disk, live)
        domain.attach(disk_element(disk), live=live, config=True)


def detach_volume(
    node: Node, connection_info: dict[str, Any], instance: NovaInstance, mountpoint: str
) -> None:
    """Unplug a volume and disconnect it. A volume that is not plugged in is still disconnected.

    :raises nova.exception.DeviceDetachFailed: the guest does not release the volume.
    """
    name = block_devices.bare(mountpoint)
    domain = node.hypervisor.find(instance.uuid)
    if domain is not None:
        _detach(node, domain, f"devices/disk[target[@dev='{name}']]", mountpoint)
    try:
        volumes.disconnect(node, connection_info, instance.uuid)
    except brick_exception.VolumeDeviceNotFound as error:
        LOG.warning("the volume was gone already: %s", error, instance=instance)


def _detach(node: Node, domain: Domain, path: str, device: str) -> None:
    """Detach a device without the lock of the instance, as the guest may take long.

    Nova itself keeps other changes of the instance away.
    """
    try:
        devices.detach_device(
            node.hypervisor,
            domain,
            path,
            device,
            attempts=node.conf.libvirt.device_detach_attempts,
            seconds=node.conf.libvirt.device_detach_timeout,
        )
    except exception.OperationTimeout as error:
        raise nova_exception.DeviceDetachFailed(device=device, reason=str(error)) from error


def extend_volume(
    node: Node, connection_info: dict[str, Any], instance: NovaInstance, requested_size: int
) -> None:
    """Show a running guest the new size of a volume.

    :param requested_size: bytes; what counts is the size that the host finds.
    :raises kvmdriver.exception.Unsupported: the volume is encrypted; the guest keeps the old size.
    """
    demands.check_volumes([demands.of_connection(connection_info, Slot(name="-", bus="virtio"))])
    size = volumes.extend(node, connection_info, requested_size)
    domain = node.domain(instance)
    if not domain.is_active():
        return
    serial = connection_info.get("serial")
    for disk in domain.xml().iterfind("devices/disk"):
        target = disk.find("target")
        if disk.findtext("serial") == serial and target is not None:
            domain.resize_block(target.get("dev", ""), size)
            return
    raise nova_exception.ExtendVolumeNotSupported(
        f"the guest has no disk with the serial number {serial}"
    )


def swap_volume(
    node: Node,
    old_connection_info: dict[str, Any],
    new_connection_info: dict[str, Any],
    instance: NovaInstance,
    mountpoint: str,
    resize_to: int,
) -> None:
    """Copy a volume to another while the guest runs, and switch the guest to the copy.

    :param resize_to: GiB of the new volume where it is larger, else 0.
    :raises kvmdriver.exception.InvalidState: the guest does not run.
    :raises kvmdriver.exception.Unsupported: one of the volumes is encrypted, or the new one in use
        by another server of this host; nothing was connected.
    :raises kvmdriver.exception.StorageError: the copy failed; the guest keeps the old volume.
    """
    name = block_devices.bare(mountpoint) or ""
    domain = node.domain(instance)
    if not domain.is_active():
        raise exception.InvalidState(
            "a volume is copied by the running guest's QEMU",
            field="status",
            value=domain.status(),
            instance=instance.uuid,
            remedy="start the server first",
        )
    before = next(
        (
            disk
            for disk in domain.xml(inactive=True).iterfind("devices/disk")
            if xml.attribute(disk, "target", "dev") == name
        ),
        None,
    )
    if before is None:
        raise nova_exception.DiskNotFound(location=mountpoint)
    slot = Slot(
        name=name,
        bus=xml.attribute(before, "target", "bus"),
        device=before.get("device", "disk"),
        volume={"connection_info": new_connection_info},
    )
    wanted = demands.of_connection(new_connection_info, slot)
    demands.check_volumes([demands.of_connection(old_connection_info, slot), wanted])
    with (
        node.volume_users.reserved(node.hypervisor, instance.uuid, [wanted]),
        undo_on_failure() as undo,
    ):
        volumes.connect(node, new_connection_info, instance.uuid)
        undo.add(volumes.disconnect, node, new_connection_info, instance.uuid)
        disk = volumes.to_model(node, slot)
        after = disk_element(disk)
        if resize_to and disk.volume and disk.volume.type == "file":
            # QEMU copies onto a file of the same size only; it grows again afterwards
            os.truncate(disk.volume.path or "", domain.block_info(name)[0])
        # outside of the lock: it takes as long as the volume is large
        with mirrored(node.hypervisor, domain, name, after, "copy volume"):
            domain.pivot(name)
    with node.locks.hold(instance.uuid):
        domain.detach(before, live=False, config=True)
        domain.attach(after, live=False, config=True)
        if resize_to:
            domain.resize_block(name, resize_to * 1024**3)
    volumes.disconnect(node, old_connection_info, instance.uuid)


def attach_interface(node: Node, instance: NovaInstance, image_meta: Any, vif: Any) -> None:
    """Plug an interface in, on the host and into the guest."""
    with node.locks.hold(instance.uuid), undo_on_failure() as undo:
        domain = node.domain(instance)
        undo.add(vifs.unplug, node, instance, vif)
        vifs.plug(node, instance, vif)
        nic = nics.translate(node.conf, vif, image_meta, instance.flavor)
        try:
            domain.attach(nic_element(nic), live=domain.is_active(), config=True)
        except exception.KVMDriverError as error:
            raise nova_exception.InterfaceAttachFailed(instance_uuid=instance.uuid) from error


def detach_interface(node: Node, instance: NovaInstance, vif: Any) -> None:
    """Unplug an interface. An interface that the guest does not have is no error."""
    domain = node.hypervisor.find(instance.uuid)
    if domain is not None:
        mac = vif["address"].lower()
        path = _interface_path(vif)
        try:
            _detach(node, domain, path, f"interface {mac}")
        except nova_exception.DeviceDetachFailed as error:
            raise nova_exception.InterfaceDetachFailed(instance_uuid=instance.uuid) from error
    vifs.unplug(node, instance, vif)


def _interface_path(vif: Any) -> str:
    """Return where an interface is in a definition: by its MAC, or by its PCI address without a MAC.

    A whole network card (vnic type direct-physical) is a ``<hostdev>``, which has no MAC.
    """
    if vif["type"] not in (network_model.VIF_TYPE_HOSTDEV, network_model.VIF_TYPE_IB_HOSTDEV):
        return f"devices/interface[mac[@address='{vif['address'].lower()}']]"
    domain, bus, rest = vif["profile"]["pci_slot"].split(":")
    slot, function = rest.split(".")
    names = {"domain": domain, "bus": bus, "slot": slot, "function": function}
    # libvirt writes these as 0x0000, 0x81, 0x00 and 0x0, with as many digits as PCI does
    wanted = " and ".join(f"@{name}='0x{value.lower()}'" for name, value in names.items())
    return f"devices/hostdev[source/address[{wanted}]]"


def next_device_name(node: Node, instance: NovaInstance, bdms: Any, block_device: Any) -> str:
    """Return a free device name for a volume, on the bus that is asked for or that the image names."""
    machine = node.machine(instance.image_meta, instance)
    device = block_device.device_type or "disk"
    bus = block_devices.bus_of(block_device.disk_bus, instance.image_meta, device, machine)
    block_device.disk_bus, block_device.device_type = bus, device
    taken = {block_devices.bare(bdm.device_name) or "" for bdm in bdms}
    domain = node.hypervisor.find(instance.uuid)
    if domain is not None:
        for target in domain.xml().iterfind("devices/disk/target"):
            taken.add(target.get("dev", ""))
    taken.add(block_devices.bare(instance.root_device_name) or "")
    try:
        return "/dev/" + free_name(bus, taken)
    except ValueError as error:
        raise nova_exception.TooManyDiskDevices(maximum=26) from error
