"""Resize and cold migration: the old directory is put aside until it is confirmed."""

import contextlib
import json
import os
import shutil
from typing import Any

from nova import exception as nova_exception
from nova.objects.flavor import Flavor
from nova.objects.image_meta import ImageMeta
from nova.objects.instance import Instance as NovaInstance
from nova.virt import driver as nova_driver

from kvmdriver import exception
from kvmdriver.guest.undo import undo_on_failure
from kvmdriver.nova import block_devices, definition, demands, disks, lifecycle, vifs
from kvmdriver.nova.node import Node
from kvmdriver.nova.remote import RemoteHost
from kvmdriver.storage.copy import copy_file

_ASIDE = "_resize"

# swap is made anew: nothing in it outlives the guest's shutdown
_NOT_COPIED = ("disk.swap", "disk.config", "console.log", "unrescue.xml")


def migrate_disk_and_power_off(
    node: Node,
    instance: NovaInstance,
    dest: str,
    flavor: Flavor,
    network_info: Any,
    block_device_info: dict[str, Any] | None,
    timeout: int,
    retry_interval: int,
) -> str:
    """Switch off, put the directory aside and copy its disks to a fresh one; disks as JSON.

    :raises nova.exception.InstanceFaultRollback: it cannot be done, and nothing was changed.
    """
    _check(instance, flavor, block_device_info)
    _check_demands(node, instance, flavor, dest, block_device_info)
    layout = node.layout(instance)
    aside = layout.directory + _ASIDE
    remote = _remote(node, layout.directory, dest)
    with undo_on_failure() as undo:
        if remote is not None:
            undo.add(remote.remove, layout.directory)
        lifecycle.power_off(node, instance, timeout, retry_interval)
        vifs.unplug_all(node, instance, network_info)
        lifecycle.release_volumes(
            node, instance, block_device_info, force=False, ignore_errors=False
        )
        info = disk_info(node, instance)
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(layout.directory, aside)
        undo.add(_put_back, layout.directory)
        files = [
            entry.path
            for entry in os.scandir(aside)
            if entry.is_file(follow_symlinks=False) and entry.name not in _NOT_COPIED
        ]
        if remote is None:
            node.store.create(instance.uuid)
            for path in files:
                copy_file(path, layout.file(os.path.basename(path)))
        else:
            remote.send(files, layout.directory)
            _send_images(node, remote, info)
    return json.dumps(info)


def _remote(node: Node, directory: str, dest: str) -> RemoteHost | None:
    """Return the host that disks are copied to, with a directory for them; None if none are copied.

    :raises nova.exception.InstanceFaultRollback: it cannot be reached.
    """
    if _is_here(node, dest):
        return None
    try:
        remote = RemoteHost(dest, node.conf.libvirt.remote_filesystem_transport)
        if remote.shares(directory):
            return None
        remote.make_directory(directory, fresh=True)
    except exception.HostError as error:
        raise nova_exception.InstanceFaultRollback(
            nova_exception.ResizeError(reason=str(error))
        ) from error
    return remote


def _send_images(node: Node, remote: RemoteHost, info: list[dict[str, Any]]) -> None:
    """Images under the disks: glance may have lost them since."""
    names = {entry["backing_file"] for entry in info if entry["backing_file"]}
    paths = [os.path.join(node.images.directory, name) for name in sorted(names)]
    missing = [path for path in paths if os.path.exists(path) and not remote.has(path)]
    if missing:
        remote.make_directory(node.images.directory)
        remote.send(missing, node.images.directory)


def _check(
    instance: NovaInstance,
    flavor: Flavor,
    block_device_info: dict[str, Any] | None,
) -> None:
    old = instance.flavor
    mapping = nova_driver.block_device_info_get_mapping(block_device_info)
    from_volume = any(entry.get("boot_index") == 0 for entry in mapping)
    ephemerals = nova_driver.block_device_info_get_ephemerals(block_device_info)
    ephemeral_gb = sum(entry["size"] for entry in ephemerals) or old.ephemeral_gb
    if (flavor.root_gb < old.root_gb and not from_volume) or flavor.ephemeral_gb < ephemeral_gb:
        raise nova_exception.InstanceFaultRollback(
            nova_exception.ResizeError(
                reason=f"disks cannot be made smaller: {old.root_gb} and {ephemeral_gb} GiB to "
                f"{flavor.root_gb} and {flavor.ephemeral_gb} GiB"
            )
        )


def _check_demands(
    node: Node,
    instance: NovaInstance,
    flavor: Flavor,
    dest: str,
    block_device_info: dict[str, Any] | None,
) -> None:
    """Refuse here what the destination would refuse when the guest is off already.

    The destination may run another driver, so the new flavor counts on this host only.

    :raises nova.exception.InstanceFaultRollback: it would; the server goes on as it was.
    """
    image_meta = instance.image_meta
    slots = block_devices.plan(
        instance, image_meta, block_device_info, node.machine(image_meta, instance)
    )
    try:
        demands.check_volumes(demands.of_server(node, instance, slots))
        if _is_here(node, dest):
            demands.check_flavor(node, flavor)
    except exception.Unsupported as error:
        raise nova_exception.InstanceFaultRollback(
            nova_exception.ResizeError(reason=str(error))
        ) from error


def _is_here(node: Node, dest: str) -> bool:
    return dest in (node.conf.my_ip, node.conf.host)


def _put_back(directory: str) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    os.rename(directory + _ASIDE, directory)


def disk_info(node: Node, instance: NovaInstance) -> list[dict[str, Any]]:
    """Return the local disks, as one compute service tells another."""
    layout = node.layout(instance)
    found = []
    for name in sorted(os.listdir(layout.directory)):
        if not name.startswith("disk") or name == "disk.info" or "." in name[5:]:
            continue
        path = layout.file(name)
        kind = disks.file_format(node, layout, name)
        virtual = disks.virtual_size(path, kind)
        actual = os.stat(path).st_blocks * 512
        found.append(
            {
                "type": kind,
                "path": path,
                "virt_disk_size": virtual,
                "backing_file": disks.backing_name(path, kind),
                "disk_size": actual,
                "over_committed_disk_size": max(0, virtual - actual) if kind == "qcow2" else 0,
            }
        )
    return found


def finish_migration(
    node: Node,
    context: Any,
    instance: NovaInstance,
    network_info: Any,
    image_meta: ImageMeta,
    resize_instance: bool,
    block_device_info: dict[str, Any] | None,
    power_on: bool,
    allocations: Any = None,
    share_info: Any = None,
) -> None:
    """Start the instance with its new size.

    :raises kvmdriver.exception.Unsupported: the server asks for what this driver does not have;
        nothing was connected, and the disks have their old size.
    """
    machine = node.machine(image_meta, instance)
    layout = node.layout(instance)
    slots = block_devices.plan(instance, image_meta, block_device_info, machine)
    wanted = demands.of_server(node, instance, slots)
    demands.check(
        node, instance, image_meta, wanted, allocations=allocations, share_info=share_info
    )
    with node.volume_users.reserved(node.hypervisor, instance.uuid, wanted):
        lifecycle.connect_volumes(node, instance, block_device_info)
        root = definition.build(node, context, instance, image_meta, slots, network_info)
        disks.require_files(node, context, instance, slots)
        if resize_instance:
            for slot in slots:
                if slot.file_system != "swap" and slot.file != "disk.config":
                    disks.grow(node, layout, slot)
        lifecycle.restore_config_drive(node, context, instance, slots, network_info)
        # on the same host the domain of the old size is replaced; its NVRAM goes on being used
        domain = lifecycle.relaunch(node, instance, root, network_info, power_on=power_on)
    if power_on:
        lifecycle.sync_time(domain)


def confirm_migration(node: Node, instance: NovaInstance) -> None:
    """Throw the old size away, and on another host than the server's all that is left of it."""
    shutil.rmtree(node.layout(instance).directory + _ASIDE, ignore_errors=True)
    if instance.host != node.conf.host:
        lifecycle.undefine(node, instance, keep_nvram=True)


def finish_revert_migration(
    node: Node,
    context: Any,
    instance: NovaInstance,
    network_info: Any,
    block_device_info: dict[str, Any] | None,
    power_on: bool,
    share_info: Any = None,
) -> None:
    """Go back to the old size, with the disks as they were.

    :raises kvmdriver.exception.Unsupported: the server asks for what this driver does not have;
        the disks are where they were.
    """
    image_meta = instance.image_meta
    slots = block_devices.plan(
        instance, image_meta, block_device_info, node.machine(image_meta, instance)
    )
    demands.check(
        node, instance, image_meta, demands.of_server(node, instance, slots), share_info=share_info
    )
    directory = node.layout(instance).directory
    with contextlib.suppress(FileNotFoundError):
        os.stat(directory + _ASIDE)
        _put_back(directory)
    lifecycle.hard_reboot(
        node,
        context,
        instance,
        network_info,
        block_device_info,
        power_on=power_on,
        share_info=share_info,
    )
