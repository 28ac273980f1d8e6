"""The checks of both hosts before nova migrates a server live.

``LibvirtLiveMigrateData`` is what nova's compute services tell each other; the other one may run
this driver or nova's own for libvirt, so every field means what it means there.
"""

import json
import os
import tempfile
from typing import Any

from nova import exception as nova_exception
from nova.objects.instance import Instance as NovaInstance
from nova.objects.migrate_data import LibvirtLiveMigrateData, VIFMigrateData
from nova.virt import driver as nova_driver
from nova.virt import hardware
from oslo_log import log as logging

from kvmdriver import exception
from kvmdriver.guest.nested import require_movable
from kvmdriver.host import certificates
from kvmdriver.nova import block_devices, demands, disks, resize, translate
from kvmdriver.nova.node import Node

LOG = logging.getLogger(__name__)

_MIB_IN_GIB = 1024


def at_destination(
    node: Node,
    context: Any,
    instance: NovaInstance,
    destination: dict[str, Any],
    block_migration: bool | None,
    disk_over_commit: bool | None,
) -> LibvirtLiveMigrateData:
    """Return the destination's answer; leave a file that a host which shares the directory sees.

    :param destination: the compute node of this host, as nova keeps it.
    :raises nova.exception.MigrationPreCheckError: guests like this one cannot run here.
    """
    problems = _problems_here(node, context, instance)
    if problems:
        raise nova_exception.MigrationPreCheckError(reason="; ".join(problems))
    conf = node.conf
    data = LibvirtLiveMigrateData()
    data.filename = _leave_file(node)
    data.image_type = conf.libvirt.images_type
    data.graphics_listen_addr_vnc = conf.vnc.server_listen
    data.graphics_listen_addr_spice = conf.spice.server_listen
    serial = conf.serial_console
    data.serial_listen_addr = serial.proxyclient_address if serial.enabled else None
    if block_migration is not None:
        data.block_migration = block_migration
    if disk_over_commit is not None:
        data.disk_over_commit = disk_over_commit
    free = "free_disk_gb" if disk_over_commit else "disk_available_least"
    available = destination.get(free)
    if available is None:
        available = destination.get("free_disk_gb") or 0
    data.disk_available_mb = available * _MIB_IN_GIB - conf.reserved_host_disk_mb
    data.dst_wants_file_backed_memory = conf.libvirt.file_backed_memory > 0
    if instance.numa_topology:
        data.dst_supports_numa_live_migration = True
    data.dst_cpu_shared_set_info = (
        hardware.get_cpu_shared_set() or hardware.get_vcpu_pin_set() or set()
    )
    data.vifs = VIFMigrateData.create_skeleton_migrate_vifs(instance.get_network_info())
    for vif in data.vifs:
        vif.supports_os_vif_delegation = True
    return data


def _problems_here(node: Node, context: Any, instance: NovaInstance) -> list[str]:
    """Return every reason against such a guest on this host."""
    found = []
    try:
        wanted = demands.recorded(context, instance)
        demands.check_move(node, instance, instance.image_meta, wanted)
        node.volume_users.check(node.hypervisor, instance.uuid, wanted)
        machine = node.machine(instance.image_meta, instance)
        translate.check_cpu(node, instance, machine)
    except (exception.KVMDriverError, nova_exception.NovaException) as error:
        found.append(str(error))
    conf = node.conf.kvm_migration
    if conf.native_tls:
        found += [p.message for p in certificates.problems(conf.tls_directory, "server")]
    return found


def _leave_file(node: Node) -> str:
    descriptor, path = tempfile.mkstemp(dir=node.store.root)
    os.close(descriptor)
    return os.path.basename(path)


def remove_file(node: Node, data: LibvirtLiveMigrateData) -> None:
    """Remove the file that ``at_destination`` has left."""
    path = os.path.join(node.store.root, os.path.basename(data.filename))
    if os.path.exists(path):
        os.unlink(path)


def at_source(
    node: Node,
    instance: NovaInstance,
    data: LibvirtLiveMigrateData,
    block_device_info: dict[str, Any] | None,
) -> LibvirtLiveMigrateData:
    """Return the destination's answer with that of this host, the source.

    :raises nova.exception.NovaException: the storage is not as the request has it, or the guest
        cannot leave.
    """
    domain = node.domain(instance)
    image_meta = instance.image_meta
    slots = block_devices.plan(
        instance, image_meta, block_device_info, node.machine(image_meta, instance)
    )
    try:
        demands.check_move(node, instance, image_meta, demands.of_server(node, instance, slots))
        require_movable(node.conf, domain, "live migration")
    except exception.KVMDriverError as error:
        raise nova_exception.MigrationPreCheckError(reason=str(error)) from error
    conf = node.conf.kvm_migration
    problems = [p.message for p in certificates.problems(conf.tls_directory, "client")]
    if conf.native_tls and problems:
        raise nova_exception.MigrationPreCheckError(reason="; ".join(problems))
    seen = os.path.exists(os.path.join(node.store.root, os.path.basename(data.filename)))
    data.is_shared_instance_path = seen
    files = _local_files(node, instance)
    copied = [entry for entry in files if not entry["path"].endswith("disk.config")]
    # a config drive is copied by nobody, but the destination makes one only where it is told
    # that there is something local
    shared = seen or bool(data.is_volume_backed and not files)
    data.is_shared_block_storage = shared
    if "block_migration" not in data:
        data.block_migration = not shared
    if data.block_migration:
        if shared:
            raise nova_exception.InvalidLocalStorage(
                reason="the hosts share the storage, there is nothing to copy", path=node.conf.host
            )
        _check_space(copied, data)
        mapping = nova_driver.block_device_info_get_mapping(block_device_info)
        if conf.tunnelled and copied:
            raise nova_exception.MigrationPreCheckError(
                reason="disks cannot be copied through a tunnel: set [kvm_migration] tunnelled "
                f"to false{' (volumes, too)' if mapping else ''}"
            )
    elif not shared and (copied or not data.is_volume_backed):
        raise nova_exception.InvalidSharedStorage(
            reason="the hosts do not share the storage, and the disks are not to be copied",
            path=node.conf.host,
        )
    data.instance_relative_path = instance.uuid
    if instance.numa_topology:
        data.src_supports_numa_live_migration = True
    return data


def _local_files(node: Node, instance: NovaInstance) -> list[dict[str, Any]]:
    if not os.path.isdir(node.layout(instance).directory):
        return []
    return resize.disk_info(node, instance)


def _check_space(copied: list[dict[str, Any]], data: LibvirtLiveMigrateData) -> None:
    if "disk_over_commit" not in data or "disk_available_mb" not in data:
        return
    field = "disk_size" if data.disk_over_commit else "virt_disk_size"
    needed = sum(int(entry[field]) for entry in copied)
    available = data.disk_available_mb * 1024**2
    if needed > available:
        raise nova_exception.MigrationPreCheckError(
            reason=f"the disks need {needed >> 20} MiB, the destination has "
            f"{max(available, 0) >> 20} MiB"
        )


def local_disk_info(text: str | None) -> list[dict[str, Any]]:
    """Return the disks of the source, as its compute service has sent them."""
    if not text:
        return []
    found = json.loads(text)
    for entry in found:
        # a path of another host: only the name counts
        entry["name"] = os.path.basename(entry["path"])
        if not disks.is_disk_name(entry["name"]):
            raise nova_exception.InvalidDiskInfo(reason=f"{entry['name']} is no disk of a server")
    return found
