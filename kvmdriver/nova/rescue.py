"""Rescue: boot an instance from another image beside its own disks, and go back."""

import dataclasses
import glob
import os
from typing import Any

from lxml import etree
from nova import exception as nova_exception
from nova.objects.image_meta import ImageMeta
from nova.objects.instance import Instance as NovaInstance

from kvmdriver.guest.undo import undo_on_failure
from kvmdriver.hypervisor import xml
from kvmdriver.model.layout import InstanceLayout
from kvmdriver.nova import block_devices, definition, demands, disks, lifecycle
from kvmdriver.nova.image_meta import field
from kvmdriver.nova.node import Node

# Nova's in-tree driver keeps the definition to return to under this name.
_DEFINITION = "unrescue.xml"
_SUFFIX = ".rescue"


def rescue(
    node: Node,
    context: Any,
    instance: NovaInstance,
    network_info: Any,
    rescue_meta: ImageMeta,
    password: str | None,
    block_device_info: dict[str, Any] | None,
    share_info: Any = None,
) -> None:
    """Boot from the rescue image.

    On failure the instance is left as it was: running until libvirt has accepted the definition
    to rescue it with, afterwards switched off.

    :raises kvmdriver.exception.Unsupported: the server asks for what this driver does not have.
    """
    layout = node.layout(instance)
    domain = node.domain(instance)
    before = domain.xml(inactive=True, secure=True)
    image_meta = instance.image_meta
    machine = node.machine(image_meta, instance)
    own = block_devices.plan(instance, image_meta, block_device_info, machine)
    wanted = demands.of_server(node, instance, own)
    demands.check(node, instance, image_meta, wanted, share_info=share_info)
    slots = block_devices.rescue_plan(own, image_meta, rescue_meta, machine)
    stable = block_devices.is_stable_rescue(rescue_meta)
    conf = node.conf.libvirt
    image_id = field(rescue_meta, "id") or conf.rescue_image_id or instance.image_ref
    if not image_id:
        raise nova_exception.InstanceNotRescuable(
            instance_id=instance.uuid, reason="there is no rescue image"
        )
    kernel_id = None if stable else conf.rescue_kernel_id or instance.kernel_id
    ramdisk_id = None if stable else conf.rescue_ramdisk_id or instance.ramdisk_id
    with undo_on_failure() as undo:
        undo.add(_remove_files, layout)
        _write(layout.file(_DEFINITION), before)
        rescue_disk = next(slot for slot in slots if slot.file == "disk.rescue")
        rescue_disk = dataclasses.replace(rescue_disk, size_mib=None)
        disks.make_files(node, context, instance, [rescue_disk], image_id=image_id)
        rescue_layout = node.layout(instance, _SUFFIX)
        if kernel_id:
            disks.make_boot_files(node, context, rescue_layout, kernel_id, ramdisk_id)
        for slot in slots:
            if slot.file == "disk.config.rescue":
                disks.make_config_drive(
                    node,
                    context,
                    instance,
                    layout.file(slot.file),
                    network_info=network_info,
                    admin_password=password,
                )
        root = definition.build(
            node,
            context,
            instance,
            image_meta,
            slots,
            network_info,
            suffix=_SUFFIX if kernel_id else "",
            direct_boot=bool(kernel_id),
            has_ramdisk=bool(ramdisk_id),
        )
        undo.add(node.hypervisor.define, before)
        lifecycle.relaunch(node, instance, root, network_info)


def unrescue(node: Node, context: Any, instance: NovaInstance) -> None:
    """Boot the instance from its own disks again.

    :raises kvmdriver.exception.Unsupported: the definition to return to would not give the guest
        what its volumes hold; the guest goes on in the rescue system.
    :raises nova.exception.InstanceInvalidState: what it was before is not known any more.
    """
    layout = node.layout(instance)
    path = layout.file(_DEFINITION)
    try:
        with open(path) as file:
            before = xml.parse(file.read())
    except FileNotFoundError:
        raise nova_exception.InstanceInvalidState(
            instance_uuid=instance.uuid,
            attr="vm_state",
            state=instance.vm_state,
            method=f"unrescue: {path} is missing; a hard reboot brings the instance back",
        ) from None
    demands.check_kept(demands.recorded(context, instance), before)
    network_info = instance.info_cache.network_info if instance.info_cache else []
    lifecycle.relaunch(node, instance, before, network_info)
    _remove_files(layout)


def _write(path: str, root: etree._Element) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(xml.to_string(root))


def _remove_files(layout: InstanceLayout) -> None:
    directory = layout.directory
    for path in (
        os.path.join(directory, _DEFINITION),
        *glob.glob(os.path.join(glob.escape(directory), "*" + _SUFFIX)),
    ):
        if os.path.exists(path):
            os.unlink(path)
    disks.forget_formats(layout, _SUFFIX)
