"""Volumes: connected through os-brick, or reached by QEMU itself.

A connection is what Cinder hands out as ``connection_info``: the kind in ``driver_volume_type``,
the rest in ``data``. Contract: https://docs.openstack.org/os-brick/latest/reference/index.html.
"""

import contextlib
import dataclasses
import os
from typing import Any

from nova import exception as nova_exception
from nova import utils as nova_utils
from nova.virt import block_device as nova_block_device
from os_brick.initiator import connector
from oslo_log import log as logging

from kvmdriver.model import Disk, IoLimits, NetworkHost, Volume
from kvmdriver.nova.block_devices import Slot
from kvmdriver.nova.node import Node
from kvmdriver.nova.shares import User

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Kind:
    """How connections of one kind are made.

    ``protocol`` is os-brick's, None where nothing has to be connected. ``source`` is the kind of
    disk that comes out of it.
    """

    protocol: str | None
    source: str = "block"


KINDS = {
    "iscsi": Kind("ISCSI"),
    "iser": Kind("ISER"),
    "fibre_channel": Kind("FIBRE_CHANNEL"),
    "nvmeof": Kind("NVMEOF"),
    "local": Kind("LOCAL"),
    "storpool": Kind("STORPOOL"),
    "scaleio": Kind("SCALEIO"),
    "lightos": Kind("LIGHTOS"),
    "gpfs": Kind(None, "file"),
    "nfs": Kind("NFS", "file"),
    "smbfs": Kind("SMBFS", "file"),
    "vzstorage": Kind("VZSTORAGE", "file"),
    "quobyte": Kind("QUOBYTE", "file"),
    "rbd": Kind(None, "network"),
    "nbd": Kind(None, "network"),
}

_MOUNT_POINTS = {
    "nfs": "nfs_mount_point_base",
    "smbfs": "smbfs_mount_point_base",
    "vzstorage": "vzstorage_mount_point_base",
    "quobyte": "quobyte_mount_point_base",
}


def kind_of(connection_info: dict[str, Any]) -> Kind:
    """Return how volumes of a connection's kind are connected.

    :raises nova.exception.VolumeDriverNotFound: there is no such kind.
    """
    name = connection_info.get("driver_volume_type")
    if name not in KINDS:
        raise nova_exception.VolumeDriverNotFound(driver_type=name)
    return KINDS[name]


def _connector(node: Node, connection_info: dict[str, Any]) -> Any:
    name = connection_info["driver_volume_type"]
    conf = node.conf.libvirt
    options: dict[str, Any] = {
        "root_helper": nova_utils.get_root_helper(),
        "use_multipath": conf.volume_use_multipath,
        "device_scan_attempts": conf.num_volume_scan_tries,
        "enforce_multipath": conf.volume_enforce_multipath,
    }
    base = _mount_base(node, connection_info)
    if base is not None:
        options["conn"] = {"mount_point_base": base}
        options[f"{name}_mount_options"] = getattr(conf, f"{name}_mount_options", None)
    if name == "iscsi":
        options["transport"] = conf.iscsi_iface or "default"
    return connector.InitiatorConnector.factory(KINDS[name].protocol, **options)


def access_mode(connection_info: dict[str, Any]) -> str | None:
    """``rw`` or ``ro``, or None where Cinder says neither."""
    data = connection_info.get("data") or {}
    return connection_info.get("access_mode") or data.get("access_mode")


def connect(node: Node, connection_info: dict[str, Any], uuid: str) -> None:
    """Make a volume available on this host; ``data.device_path`` says where.

    :param uuid: the server that the volume is for.
    :raises nova.exception.NovaException, os_brick.exception.BrickException: it cannot be.
    """
    kind = kind_of(connection_info)
    if kind.protocol is None:
        return
    data = connection_info["data"]
    mount_point = _mount_point(node, connection_info)
    with (
        node.shares.used(node.hypervisor, mount_point, _user(connection_info, uuid))
        if mount_point
        else contextlib.nullcontext()
    ):
        info = _connector(node, connection_info).connect_volume(data)
    data["device_path"] = info["path"]
    if info.get("multipath_id"):
        data["multipath_id"] = info["multipath_id"]


def disconnect(
    node: Node, connection_info: dict[str, Any], uuid: str, *, force: bool = False
) -> None:
    """Take back ``connect`` for a server. A volume that is gone already is no error.

    A multiattach volume that another server of this host has stays connected.

    :param uuid: the server that the volume leaves.
    """
    kind = kind_of(connection_info)
    if kind.protocol is None:
        return
    mount_point = _mount_point(node, connection_info)
    if mount_point:
        node.shares.leave(node.hypervisor, mount_point, _user(connection_info, uuid))
        return
    volume_id = nova_block_device.get_volume_id(connection_info)
    if not connection_info.get("multiattach") or not volume_id:
        _disconnect(node, connection_info, force)
        return
    with node.volume_users.leaving(node.hypervisor, uuid, volume_id) as alone:
        if alone:
            _disconnect(node, connection_info, force)
        else:
            LOG.info("volume %s stays connected: another server of this host has it", volume_id)


def _disconnect(node: Node, connection_info: dict[str, Any], force: bool) -> None:
    data = connection_info["data"]
    _connector(node, connection_info).disconnect_volume(
        data, {"path": data.get("device_path")}, force=force, ignore_errors=force
    )


def _mount_base(node: Node, connection_info: dict[str, Any]) -> str | None:
    """Return the directory below which shares are mounted; None for volumes without a share."""
    option = _MOUNT_POINTS.get(connection_info["driver_volume_type"])
    return None if option is None else str(getattr(node.conf.libvirt, option))


def _mount_point(node: Node, connection_info: dict[str, Any]) -> str | None:
    """Where os-brick mounts the share that the volume is a file of; None for other volumes."""
    base = _mount_base(node, connection_info)
    if base is None:
        return None
    return os.path.join(base, nova_utils.get_hash_str(connection_info["data"]["export"]))


def _user(connection_info: dict[str, Any], uuid: str) -> User:
    volume_id = nova_block_device.get_volume_id(connection_info)
    return uuid, volume_id or connection_info["data"]["name"]


def extend(node: Node, connection_info: dict[str, Any], size: int) -> int:
    """Have the host see the new size of a volume; the size in bytes."""
    kind = kind_of(connection_info)
    if kind.protocol is None or kind.source != "block":
        return size
    return int(_connector(node, connection_info).extend_volume(connection_info["data"]) or size)


def to_model(node: Node, slot: Slot) -> Disk:
    """Return a connected volume as a disk of the model."""
    entry = slot.volume
    connection_info = entry["connection_info"]
    data = connection_info["data"]
    kind = kind_of(connection_info)
    serial = connection_info.get("serial") or entry.get("volume_id")
    shareable = bool(connection_info.get("multiattach"))
    volume: dict[str, Any] = {
        "type": kind.source,
        "format": data.get("format") or "raw",
        "shareable": shareable,
        "read_only": access_mode(connection_info) == "ro",
        "encryption_secret": data.get("encryption_secret_uuid"),
    }
    for name in ("physical_block_size", "logical_block_size"):
        if data.get(name):
            volume[name] = int(data[name])
    if kind.source == "network":
        volume |= _network(connection_info)
    else:
        volume["path"] = data["device_path"]
    return Disk.model_validate(
        {
            "name": slot.name,
            "device": slot.device,
            "bus": slot.bus,
            "volume": Volume.model_validate(volume),
            "cache": "none"
            if shareable or kind.source == "block"
            else node.cache_mode(kind.source),
            "io": "native" if kind.source == "block" else None,
            "discard": bool(data.get("discard")),
            "serial": serial,
            "limits": _limits(data.get("qos_specs")),
            "boot_order": slot.boot_order,
            "iothread": 1 if slot.bus == "virtio" else None,
        }
    )


def _network(connection_info: dict[str, Any]) -> dict[str, Any]:
    data = connection_info["data"]
    hosts = [
        NetworkHost(name=host, port=int(port) if port else None)
        for host, port in zip(data.get("hosts", []), data.get("ports", [None] * 64), strict=False)
    ]
    found: dict[str, Any] = {
        "protocol": connection_info["driver_volume_type"],
        "path": data["name"],
        "hosts": tuple(hosts),
    }
    if data.get("auth_enabled"):
        found |= {"user": data.get("auth_username"), "auth_secret": data.get("secret_uuid")}
    return found


def _limits(specs: dict[str, Any] | None) -> IoLimits | None:
    """Cinder's front-end QoS; names that libvirt does not have are Cinder's own business."""
    known = {
        name: int(value) for name, value in (specs or {}).items() if name in IoLimits.model_fields
    }
    return IoLimits(**known) if known else None


def host_connector(node: Node) -> dict[str, Any]:
    """Return what Cinder has to know of this host to hand out connections."""
    conf = node.conf
    found = connector.get_connector_properties(
        nova_utils.get_root_helper(),
        conf.my_block_storage_ip,
        conf.libvirt.volume_use_multipath,
        enforce_multipath=True,
        host=conf.host,
    )
    return dict(found)
