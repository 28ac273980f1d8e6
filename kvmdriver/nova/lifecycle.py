"""Making, starting, stopping and removing instances."""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

from lxml import etree
from nova import exception as nova_exception
from nova.objects.image_meta import ImageMeta
from nova.objects.instance import Instance as NovaInstance
from nova.virt import driver as nova_driver
from oslo_log import log as logging

from kvmdriver import exception
from kvmdriver.guest.nested import require_movable
from kvmdriver.guest.power_button import shut_down
from kvmdriver.guest.undo import undo_on_failure
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.nova import (
    block_devices,
    definition,
    demands,
    device_metadata,
    disks,
    vifs,
    volumes,
)
from kvmdriver.nova.block_devices import Slot
from kvmdriver.nova.node import Node
from kvmdriver.storage.store import remove_entries

LOG = logging.getLogger(__name__)


def spawn(
    node: Node,
    context: Any,
    instance: NovaInstance,
    image_meta: ImageMeta,
    *,
    files: Any,
    admin_password: str | None,
    network_info: Any,
    block_device_info: dict[str, Any] | None,
    power_on: bool = True,
    allocations: Any = None,
    accel_info: Any = None,
) -> None:
    """Make an instance and start it. A failure leaves nothing of the instance.

    :raises kvmdriver.exception.Unsupported: the server asks for what this driver does not have;
        nothing was connected or made.
    """
    machine = node.machine(image_meta, instance)
    slots = block_devices.plan(instance, image_meta, block_device_info, machine)
    wanted = demands.of_server(node, instance, slots)
    demands.check(
        node, instance, image_meta, wanted, allocations=allocations, accel_info=accel_info
    )
    # files that were there before (an evacuation on shared storage) are not ours to remove
    fresh = not os.path.isdir(node.layout(instance).directory)
    with (
        node.volume_users.reserved(node.hypervisor, instance.uuid, wanted),
        undo_on_failure() as undo,
    ):
        undo.add(remove if fresh else undefine, node, instance)
        undo.add(release_volumes, node, instance, block_device_info)
        undo.add(vifs.unplug_all, node, instance, network_info)
        # refused here before anything is downloaded, if it must be
        connect_volumes(node, instance, block_device_info)
        root = definition.build(node, context, instance, image_meta, slots, network_info)
        disks.make_files(node, context, instance, slots, image_id=instance.image_ref)
        if instance.kernel_id:
            disks.make_boot_files(
                node, context, node.layout(instance), instance.kernel_id, instance.ramdisk_id
            )

        def prepare(domain: Domain) -> None:
            instance.device_metadata = device_metadata.build(context, instance, domain)
            if any(slot.file == "disk.config" for slot in slots):
                disks.make_config_drive(
                    node,
                    context,
                    instance,
                    node.layout(instance).config_drive,
                    network_info=network_info,
                    files=files,
                    admin_password=admin_password,
                )

        launch(node, instance, root, network_info, power_on=power_on, prepare=prepare)
    remember_machine(instance, machine)


def remember_machine(instance: NovaInstance, machine: str) -> None:
    """Keep the machine type: a later default must not change the hardware under a guest."""
    if not instance.system_metadata.get("image_hw_machine_type"):
        instance.system_metadata["image_hw_machine_type"] = machine
        instance.save()


def launch(
    node: Node,
    instance: NovaInstance,
    root: etree._Element,
    network_info: Any,
    *,
    power_on: bool = True,
    wait_for_neutron: bool = True,
    prepare: Callable[[Domain], None] | None = None,
) -> Domain:
    """Plug the interfaces, define the domain and start it once neutron is ready.

    :param prepare: called with the domain when its devices have addresses, before it starts.
    """
    # neutron is waited for where "wired" ends, outside of the lock
    with (
        vifs.wired(node, instance, network_info, wait=wait_for_neutron and power_on) as waits,
        node.locks.hold(instance.uuid),
    ):
        vifs.replug_all(node, instance, network_info)
        domain = node.hypervisor.define(root)
        node.states.forget()
        if prepare is not None:
            prepare(domain)
        if power_on:
            domain.start(paused=waits)
    if waits:
        domain.unpause()
    node.states.forget()
    return domain


def connect_volumes(
    node: Node, instance: NovaInstance, block_device_info: dict[str, Any] | None
) -> None:
    for entry in nova_driver.block_device_info_get_mapping(block_device_info):
        if entry["connection_info"]:
            volumes.connect(node, entry["connection_info"], instance.uuid)


def release_volumes(
    node: Node,
    instance: NovaInstance,
    block_device_info: dict[str, Any] | None,
    *,
    force: bool = True,
    ignore_errors: bool = True,
) -> None:
    for entry in nova_driver.block_device_info_get_mapping(block_device_info):
        connection_info = entry["connection_info"]
        if not connection_info:
            continue
        try:
            volumes.disconnect(node, connection_info, instance.uuid, force=force)
        except Exception:
            if not ignore_errors:
                raise
            LOG.exception("could not release volume %s", entry.get("volume_id"), instance=instance)


def remove(node: Node, instance: NovaInstance) -> None:
    """Remove the domain and all files of an instance."""
    undefine(node, instance)
    shutil.rmtree(node.layout(instance).directory, ignore_errors=True)


def undefine(node: Node, instance: NovaInstance, *, keep_nvram: bool = False) -> None:
    domain = node.hypervisor.find(instance.uuid)
    if domain is not None:
        domain.destroy()
        with contextlib.suppress(exception.InstanceNotFound):
            domain.undefine(keep_nvram=keep_nvram)
    node.states.forget()


def destroy(node: Node, instance: NovaInstance) -> None:
    """Switch an instance off. An instance that is gone is no error."""
    domain = node.hypervisor.find(instance.uuid)
    if domain is not None:
        domain.destroy()
    node.states.forget()


def cleanup(
    node: Node,
    instance: NovaInstance,
    network_info: Any,
    block_device_info: dict[str, Any] | None,
    *,
    destroy_disks: bool,
    destroy_vifs: bool = True,
) -> None:
    """Remove what an instance has on this host."""
    if destroy_vifs:
        vifs.unplug_all(node, instance, network_info, ignore_errors=True)
    release_volumes(node, instance, block_device_info, ignore_errors=destroy_disks)
    undefine(node, instance, keep_nvram=not destroy_disks)
    if destroy_disks:
        attempts = int(instance.system_metadata.get("clean_attempts", "0"))
        done = delete_files(node, instance)
        # nova's periodic task that removes left-overs reads both
        instance.system_metadata["clean_attempts"] = str(attempts + 1)
        if done:
            instance.cleaned = True
        with contextlib.suppress(nova_exception.InstanceNotFound):
            instance.save()


def delete_files(node: Node, instance: NovaInstance) -> bool:
    """Remove an instance's directory, and what a resize has put aside; return whether all is gone.

    The directory gets another name first: a new instance of the same UUID (a rebuild) must never
    meet half-removed files. Files that another domain uses stay where they are: virt-clone puts the
    disks of a clone beside those of the original.
    """
    directory = node.layout(instance).directory
    used = node.hypervisor.used_by_others(instance.uuid, directory)
    if used and os.path.isdir(directory):
        LOG.warning("files stay, which other domains use: %s", used, instance=instance)
        remove_entries(directory, keep=used)
        return False
    doomed = directory + "_del"
    for source in (directory, directory + "_resize"):
        shutil.rmtree(doomed, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.rename(source, doomed)
    shutil.rmtree(doomed, ignore_errors=True)
    return not any(os.path.exists(path) for path in (directory, doomed, directory + "_resize"))


def reboot(
    node: Node,
    context: Any,
    instance: NovaInstance,
    network_info: Any,
    block_device_info: dict[str, Any] | None,
    *,
    soft: bool,
    accel_info: Any = None,
    share_info: Any = None,
) -> None:
    """Reboot a guest: soft by a shutdown and a start, hard (or if soft fails) by off and on."""
    if soft and soft_reboot(node, instance):
        return
    hard_reboot(
        node,
        context,
        instance,
        network_info,
        block_device_info,
        accel_info=accel_info,
        share_info=share_info,
    )


def soft_reboot(node: Node, instance: NovaInstance) -> bool:
    """Return whether the guest has rebooted within [libvirt] wait_soft_reboot_seconds."""
    domain = node.domain(instance)
    if domain.status() != "running":
        return False
    seconds = node.conf.libvirt.wait_soft_reboot_seconds
    done = shut_down(node.hypervisor, domain, seconds, "rebooted", domain.reboot)
    node.states.forget()
    return done


def hard_reboot(
    node: Node,
    context: Any,
    instance: NovaInstance,
    network_info: Any,
    block_device_info: dict[str, Any] | None,
    *,
    power_on: bool = True,
    accel_info: Any = None,
    share_info: Any = None,
) -> None:
    """Switch a guest off, define the domain from what Nova knows, and start the guest.

    Everything is checked, connected and built while the guest still runs. A failure up to the
    moment when libvirt has accepted the new definition leaves guest and definition as they were.

    :raises kvmdriver.exception.Unsupported: the server asks for what this driver does not have.
    """
    image_meta = instance.image_meta
    machine = node.machine(image_meta, instance)
    slots = block_devices.plan(instance, image_meta, block_device_info, machine)
    wanted = demands.of_server(node, instance, slots)
    demands.check(node, instance, image_meta, wanted, accel_info=accel_info, share_info=share_info)
    with node.volume_users.reserved(node.hypervisor, instance.uuid, wanted):
        connect_volumes(node, instance, block_device_info)
        root = definition.build(node, context, instance, image_meta, slots, network_info)
        disks.require_files(node, context, instance, slots)
        layout = node.layout(instance)
        if instance.kernel_id:
            disks.make_boot_files(node, context, layout, instance.kernel_id, instance.ramdisk_id)
        restore_config_drive(node, context, instance, slots, network_info)
        relaunch(node, instance, root, network_info, power_on=power_on)


def relaunch(
    node: Node,
    instance: NovaInstance,
    root: etree._Element,
    network_info: Any,
    *,
    power_on: bool = True,
) -> Domain:
    """Redefine an instance, switch it off and start it with the new definition.

    libvirt sees the new definition while the guest still runs with the old one. What libvirt does
    not accept changes nothing, and a guest that cannot be switched off gets its old one back.
    """
    with node.locks.hold(instance.uuid), undo_on_failure() as undo:
        domain = node.hypervisor.find(instance.uuid)
        if domain is not None:
            before = domain.xml(inactive=True, secure=True)
            node.hypervisor.define(root)
            undo.add(node.hypervisor.define, before)
            domain.destroy()
            # a start would restore it instead of booting
            domain.remove_managed_save()
    return launch(node, instance, root, network_info, power_on=power_on, wait_for_neutron=False)


def restore_config_drive(
    node: Node, context: Any, instance: NovaInstance, slots: Sequence[Slot], network_info: Any
) -> None:
    """Make the config drive again if it is missing."""
    path = node.layout(instance).config_drive
    if any(slot.file == "disk.config" for slot in slots) and not os.path.exists(path):
        disks.make_config_drive(node, context, instance, path, network_info=network_info)


def power_off(node: Node, instance: NovaInstance, timeout: int, retry_interval: int) -> None:
    """Give the guest ``timeout`` seconds to shut down, then switch it off.

    The power button is pressed again every ``retry_interval`` seconds: a guest that is still in
    its firmware does not notice the first time.
    """
    domain = node.hypervisor.find(instance.uuid)
    if domain is None:
        return
    if timeout and domain.status() == "running":
        shut_down(
            node.hypervisor,
            domain,
            timeout,
            "stopped",
            domain.press_power_button,
            again=retry_interval or timeout,
        )
    domain.destroy()
    node.states.forget()


def resume(
    node: Node,
    instance: NovaInstance,
    network_info: Any,
    block_device_info: dict[str, Any] | None,
    share_info: Any = None,
) -> None:
    """Start a suspended instance with its saved memory and the definition that it had.

    :raises kvmdriver.exception.Unsupported: that definition would not give the guest what its
        volumes hold; nothing was connected or started.
    """
    domain = node.domain(instance)
    image_meta = instance.image_meta
    slots = block_devices.plan(
        instance, image_meta, block_device_info, node.machine(image_meta, instance)
    )
    kept = domain.xml(inactive=True)
    demands.check_kept(demands.of_slots(slots), kept, share_info=share_info)
    connect_volumes(node, instance, block_device_info)
    if not domain.is_active():
        vifs.replug_all(node, instance, network_info)
        domain.start()
    node.states.forget()
    sync_time(domain)


def sync_time(domain: Domain) -> None:
    """Set the guest's clock after a pause, if its agent can."""
    with contextlib.suppress(exception.KVMDriverError):
        domain.set_time(time.time())


def pause(node: Node, instance: NovaInstance) -> None:
    """Stop the guest's CPUs. A paused guest is left alone."""
    domain = node.domain(instance)
    if domain.status() == "running":
        domain.pause()
    node.states.forget()


def unpause(node: Node, instance: NovaInstance) -> None:
    """Let the guest's CPUs run again. A running guest is left alone."""
    domain = node.domain(instance)
    if domain.status() != "running":
        domain.unpause()
    node.states.forget()
    sync_time(domain)


def suspend(node: Node, instance: NovaInstance) -> None:
    """Save the guest's memory to disk and switch it off.

    :raises kvmdriver.exception.Unsupported: the guest has a device of the host; it runs on.
    """
    domain = node.domain(instance)
    demands.check_suspend(domain.xml())
    require_movable(node.conf, domain, "suspend")
    domain.managed_save()
    node.states.forget()
