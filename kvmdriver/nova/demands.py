"""What a server asks of this host, collected from nova's objects for ``refusals`` to decide on."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from lxml import etree
from nova import objects
from nova.conf import devices as nova_devices
from nova.network import model as network_model
from nova.objects.flavor import Flavor
from nova.objects.image_meta import ImageMeta
from nova.objects.instance import Instance as NovaInstance
from nova.virt import block_device as nova_block_device
from oslo_config import cfg

from kvmdriver.hypervisor import xml
from kvmdriver.nova import block_devices, refusals, volumes
from kvmdriver.nova.block_devices import Slot
from kvmdriver.nova.flavor import specs_of
from kvmdriver.nova.node import Node
from kvmdriver.nova.refusals import Demand, VolumeDemand

# Interfaces that are a device of the host, as libvirt calls their types.
_PASSTHROUGH = ("hostdev", "vdpa")


def check(
    node: Node,
    instance: NovaInstance,
    image_meta: ImageMeta,
    wanted: Sequence[VolumeDemand],
    *,
    allocations: Any = None,
    accel_info: Any = None,
    share_info: Any = None,
) -> None:
    """Refuse a server that this driver could not carry out in full. Changes nothing.

    :param wanted: the server's volumes.
    :param allocations: placement's, by resource provider.
    :param accel_info: accelerator requests of the flavor's device profile.
    :param share_info: the server's share mappings.
    :raises kvmdriver.exception.Unsupported: the first thing that is not carried out, by name.
    """
    refusals.check(
        Demand(
            **_of_instance(node, instance, image_meta),
            volumes=tuple(wanted),
            resource_classes=tuple(
                name for entry in (allocations or {}).values() for name in entry["resources"]
            ),
            accelerators=tuple(str(request.get("uuid")) for request in accel_info or ()),
            shares=_shares(share_info),
        )
    )


def check_move(
    node: Node, instance: NovaInstance, image_meta: ImageMeta, wanted: Sequence[VolumeDemand]
) -> None:
    """Refuse the live migration of a server, to or from this host.

    :raises kvmdriver.exception.Unsupported: the first thing that is not carried out, by name.
    """
    refusals.check(
        Demand(
            **_of_instance(node, instance, image_meta),
            volumes=tuple(wanted),
            passthrough_ports=tuple(
                f"{vif['id']} ({vif['vnic_type']})"
                for vif in instance.get_network_info() or ()
                if vif["vnic_type"] in network_model.VNIC_TYPES_DIRECT_PASSTHROUGH
            ),
        )
    )


def check_kept(
    wanted: Sequence[VolumeDemand], kept: etree._Element, share_info: Any = None
) -> None:
    """Refuse to start a guest with a definition that an earlier operation made.

    A volume is fine that QEMU decrypts by that definition.

    :raises kvmdriver.exception.Unsupported: the first thing that is not carried out, by name.
    """
    decrypted = decrypted_in(kept)
    refusals.check(
        Demand(
            volumes=tuple(
                dataclasses.replace(volume, decrypted=volume.id in decrypted) for volume in wanted
            ),
            shares=_shares(share_info),
        )
    )


def check_volumes(wanted: Sequence[VolumeDemand]) -> None:
    """Refuse volumes only, for a server that is here already.

    :raises kvmdriver.exception.Unsupported: a volume that this driver does not carry out.
    """
    refusals.check(Demand(volumes=tuple(wanted)))


def check_flavor(node: Node, flavor: Flavor) -> None:
    """Refuse a flavor only, for a server that is to be resized on this host.

    :raises kvmdriver.exception.Unsupported: an extra spec that this driver does not carry out.
    """
    refusals.check(Demand(specs=specs_of(flavor), mdev_classes=_mdev_classes(node.conf)))


def check_suspend(root: etree._Element) -> None:
    """Refuse to save the memory of a guest that has devices of the host.

    :raises kvmdriver.exception.Unsupported: the first such device, by name.
    """
    interfaces = (
        node for node in root.iterfind("devices/interface") if node.get("type") in _PASSTHROUGH
    )
    refusals.of_suspend(
        [
            xml.attribute(node, "mac", "address") or xml.attribute(node, "alias", "name") or "?"
            for node in (*root.iterfind("devices/hostdev"), *interfaces)
        ]
    )


def of_server(
    node: Node, instance: NovaInstance, slots: Sequence[Slot]
) -> tuple[VolumeDemand, ...]:
    """Return the volumes of a server, and the encrypted disks of its guest, whatever nova says."""
    wanted = of_slots(slots)
    domain = node.hypervisor.find(instance.uuid)
    if domain is None:
        return wanted
    known = {volume.id for volume in wanted if volume.encrypted}
    before = sorted(decrypted_in(domain.xml(inactive=True)) - known)
    return (*wanted, *(VolumeDemand(id=name, name=name, encrypted=True) for name in before))


def of_slots(slots: Sequence[Slot]) -> tuple[VolumeDemand, ...]:
    """Return the volumes among the disks of a server."""
    return tuple(
        of_connection(slot.volume["connection_info"], slot, volume_id=slot.volume.get("volume_id"))
        for slot in slots
        if slot.volume is not None and slot.volume.get("connection_info")
    )


def of_connection(
    connection_info: dict[str, Any],
    slot: Slot,
    encryption: Any = None,
    *,
    volume_id: str | None = None,
) -> VolumeDemand:
    """Return a volume as Cinder describes the connection to it.

    :param encryption: nova's encryption context of the volume, empty for none.

    Cinder says in ``data`` whether a volume is encrypted and how it may be used
    (cinder.volume.manager.VolumeManager._parse_connection_options).
    """
    data = connection_info.get("data") or {}
    return VolumeDemand(
        id=nova_block_device.get_volume_id(connection_info) or volume_id or "?",
        name=slot.name,
        device=slot.device,
        bus=slot.bus,
        encrypted=bool(encryption or data.get("encrypted")),
        access_mode=volumes.access_mode(connection_info),
        multiattach=bool(connection_info.get("multiattach")),
    )


def recorded(context: Any, instance: NovaInstance) -> tuple[VolumeDemand, ...]:
    """Return the volumes of a server from nova's database, where the caller passes none."""
    bdms = objects.BlockDeviceMappingList.get_by_instance_uuid(context, instance.uuid)
    return tuple(
        of_connection(
            json.loads(bdm.connection_info),
            Slot(
                name=block_devices.bare(bdm.device_name) or "?",
                bus=bdm.disk_bus or "virtio",
                device=bdm.device_type or "disk",
            ),
            volume_id=bdm.volume_id,
        )
        for bdm in bdms
        if bdm.is_volume and bdm.connection_info
    )


def decrypted_in(root: etree._Element) -> frozenset[str]:
    """Return serial or target name of each disk that QEMU decrypts in a definition."""
    return frozenset(
        disk.findtext("serial") or xml.attribute(disk, "target", "dev")
        for disk in root.iterfind("devices/disk")
        if disk.find(".//encryption") is not None
    )


def _shares(share_info: Any) -> tuple[str, ...]:
    return tuple(mapping.share_id for mapping in share_info or ())


def _of_instance(node: Node, instance: NovaInstance, image_meta: ImageMeta) -> dict[str, Any]:
    return {
        "specs": specs_of(instance.flavor),
        "properties": image_meta.properties.to_dict(),
        "mdev_classes": _mdev_classes(node.conf),
        "pci_aliases": _pci_aliases(instance),
    }


def _mdev_classes(conf: cfg.ConfigOpts) -> tuple[str, ...]:
    """Return the resource classes of mediated devices, from mdev_class of each [mdev_TYPE]."""
    nova_devices.register_dynamic_opts(conf)
    return tuple(conf[f"mdev_{kind}"].mdev_class for kind in conf.devices.enabled_mdev_types)


def _pci_aliases(instance: NovaInstance) -> tuple[str, ...]:
    """Return the aliases of devices that the flavor asks for; requests of ports have none."""
    if "pci_requests" not in instance and instance._context is None:
        return ()
    found = instance.pci_requests
    return tuple(
        request.alias_name
        for request in (found.requests if found is not None else ())
        if request.alias_name
    )
