"""Snapshots of an instance's root disk to Glance."""

import os
from collections.abc import Callable
from typing import Any

from nova import exception as nova_exception
from nova.compute import task_states
from nova.objects.instance import Instance as NovaInstance

from kvmdriver import exception
from kvmdriver.guest.block_copy import copy_running
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.nova import images, translate
from kvmdriver.nova.image_meta import field
from kvmdriver.nova.node import Node


def snapshot(
    node: Node,
    context: Any,
    instance: NovaInstance,
    image_id: str,
    update_task_state: Callable[..., None],
) -> None:
    """Upload the root disk as the image ``image_id``, which exists and is empty.

    A running guest keeps running.

    :raises nova.exception.InstanceNotRunning: libvirt does not know the instance.
    """
    try:
        domain = node.domain(instance)
    except exception.InstanceNotFound as error:
        raise nova_exception.InstanceNotRunning(instance_id=instance.uuid) from error
    name, path, source_format = _root_disk(domain)
    image_format = node.conf.libvirt.snapshot_image_format or source_format
    meta = node.image_api.get(context, image_id)
    with images.working_file(node) as part:
        update_task_state(task_state=task_states.IMAGE_PENDING_UPLOAD)
        _copy(node, instance, domain, name, path, source_format, part, image_format)
        update_task_state(
            task_state=task_states.IMAGE_UPLOADING,
            expected_state=task_states.IMAGE_PENDING_UPLOAD,
        )
        with open(part, "rb") as data:
            node.image_api.update(
                context,
                image_id,
                _properties(instance, image_format, meta["name"]),
                data,
                purge_props=False,
            )


def _root_disk(domain: Domain) -> tuple[str, str, str]:
    """Target name, path and format of the first disk with a file of its own."""
    for disk in domain.xml().iterfind("devices/disk"):
        source, target, driver = disk.find("source"), disk.find("target"), disk.find("driver")
        if disk.get("device", "disk") not in ("disk", "cdrom") or source is None:
            continue
        if source.get("file") and target is not None and driver is not None:
            return target.get("dev", ""), source.get("file", ""), driver.get("type", "raw")
    raise nova_exception.InvalidDevicePath(path=domain.name)


def _copy(
    node: Node,
    instance: NovaInstance,
    domain: Domain,
    disk: str,
    path: str,
    source_format: str,
    part: str,
    image_format: str,
) -> None:
    must_freeze = bool(instance.image_meta.properties.get("os_require_quiesce", False))
    if domain.status() in ("running", "paused"):
        if must_freeze and not translate.wants_guest_agent(instance.image_meta):
            raise nova_exception.QemuGuestAgentNotEnabled()
        copy_running(
            node.hypervisor,
            node.qemu_img,
            domain,
            disk,
            part,
            image_format,
            must_freeze=must_freeze,
        )
        return
    node.qemu_img.convert(path, source_format, part, image_format)
    os.chmod(part, 0o600)


def _properties(instance: NovaInstance, image_format: str, name: str) -> dict[str, Any]:
    meta = instance.image_meta
    properties = {
        "kernel_id": instance.kernel_id,
        "ramdisk_id": instance.ramdisk_id,
        "image_location": "snapshot",
        "image_state": "available",
        "owner_id": instance.project_id,
    }
    if instance.os_type:
        properties["os_type"] = instance.os_type
    container = field(meta, "container_format") or "bare"
    return {
        "status": "active",
        "name": name,
        "properties": properties,
        "disk_format": image_format,
        "container_format": container,
    }
