"""The ComputeDriver that nova-compute loads: each method delegates in a line or two.

The contract is nova.virt.driver.ComputeDriver of nova 34 (2026.2).
"""

import os
from typing import Any

import os_vif
from nova import exception as nova_exception
from nova.conf import CONF
from nova.image import glance
from nova.virt import hardware
from nova.virt import node as nova_node
from oslo_log import log as logging

from kvmdriver import exception
from kvmdriver.nova import (
    attach,
    block_devices,
    consoles,
    device_metadata,
    diagnostics,
    guest_agent,
    image_cache,
    lifecycle,
    rescue,
    resources,
    service_status,
    snapshot,
    startup,
    vifs,
    volume_snapshots,
    volumes,
)
from kvmdriver.nova.capabilities import CAPABILITIES, of_host
from kvmdriver.nova.errors import translate_errors
from kvmdriver.nova.events import LifecycleEvents
from kvmdriver.nova.moves import Moves
from kvmdriver.nova.node import Node
from kvmdriver.nova.states import NOVA_STATES

LOG = logging.getLogger(__name__)


@translate_errors
class NovaDriver(Moves):
    """KVM/QEMU guests for nova-compute."""

    capabilities = CAPABILITIES

    def __init__(self, virtapi: Any, read_only: bool = False):
        super().__init__(virtapi)
        os_vif.initialize()
        self.node = Node.make(CONF, virtapi, glance.API())
        self._lifecycle: LifecycleEvents | None = None

    # The host

    def init_host(self, host: str) -> None:
        startup.prepare(self.node)
        self.capabilities = of_host(self.node)
        self._lifecycle = LifecycleEvents(self.emit_event)
        self.node.hypervisor.events.subscribe(self._lifecycle.on_event)
        self.node.hypervisor.events.subscribe(service_status.Watcher(host).on_event)

    def process_instances_at_startup(self, context: Any, instances: Any) -> Any:
        startup.check_instances(self.node, instances)
        return instances

    def cleanup_host(self, host: str) -> None:
        if self._lifecycle is not None:
            self.node.hypervisor.events.unsubscribe(self._lifecycle.on_event)
            self._lifecycle.close()
        self.node.hypervisor.close()

    def get_available_nodes(self, refresh: bool = False) -> list[str]:
        return [self.node.hypervisor.hostname()]

    def get_nodenames_by_uuid(self, refresh: bool = False) -> dict[str, str]:
        return {nova_node.get_local_node_uuid(): self.node.hypervisor.hostname()}

    def node_is_available(self, nodename: str) -> bool:
        return nodename == self.node.hypervisor.hostname() and self.node.hypervisor.is_alive()

    def get_available_resource(self, nodename: str) -> dict[str, Any]:
        return resources.available(self.node)

    def update_provider_tree(
        self, provider_tree: Any, nodename: str, allocations: Any = None
    ) -> None:
        resources.update_provider_tree(self.node, self, provider_tree, nodename)

    def get_host_ip_addr(self) -> str:
        return str(CONF.my_ip)

    def get_host_uptime(self) -> str:
        return resources.uptime()

    def get_host_cpu_stats(self) -> dict[str, int]:
        return resources.cpu_stats(self.node)

    def manage_image_cache(self, context: Any, all_instances: Any) -> None:
        image_cache.manage(self.node, all_instances)

    def cache_image(self, context: Any, image_id: str) -> bool:
        return image_cache.prefetch(self.node, context, image_id)

    def poll_rebooting_instances(self, timeout: int, instances: Any) -> None:
        """Do nothing: a soft reboot that takes too long has become a hard one by itself."""

    # Which instances there are

    def list_instances(self) -> list[str]:
        return [entry.name for entry in self.node.hypervisor.summaries()]

    def list_instance_uuids(self) -> list[str]:
        return list(self.node.states.all())

    def get_num_instances(self) -> int:
        return len(self.node.states.all())

    def instance_exists(self, instance: Any) -> bool:
        return instance.uuid in self.node.states.all()

    def get_info(self, instance: Any, use_cache: bool = True) -> hardware.InstanceInfo:
        if not use_cache:
            self.node.states.forget()
        state = self.node.states.get(instance.uuid)
        number = state.number if state.number >= 0 else None
        return hardware.InstanceInfo(state=NOVA_STATES[state.status], internal_id=number)

    def instance_on_disk(self, instance: Any) -> bool:
        return os.access(self.node.layout(instance).directory, os.W_OK)

    # Making and removing

    def spawn(
        self,
        context: Any,
        instance: Any,
        image_meta: Any,
        injected_files: Any,
        admin_password: str | None,
        allocations: Any,
        network_info: Any = None,
        block_device_info: Any = None,
        power_on: bool = True,
        accel_info: Any = None,
    ) -> None:
        lifecycle.spawn(
            self.node,
            context,
            instance,
            image_meta,
            files=injected_files,
            admin_password=admin_password,
            network_info=network_info or [],
            block_device_info=block_device_info,
            power_on=power_on,
            allocations=allocations,
            accel_info=accel_info,
        )

    def destroy(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        block_device_info: Any = None,
        destroy_disks: bool = True,
        destroy_secrets: bool = True,
    ) -> None:
        lifecycle.destroy(self.node, instance)
        self.cleanup(context, instance, network_info, block_device_info, destroy_disks)

    def cleanup(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        block_device_info: Any = None,
        destroy_disks: bool = True,
        migrate_data: Any = None,
        destroy_vifs: bool = True,
        destroy_secrets: bool = True,
    ) -> None:
        lifecycle.cleanup(
            self.node,
            instance,
            network_info,
            block_device_info,
            destroy_disks=destroy_disks,
            destroy_vifs=destroy_vifs,
        )

    def delete_instance_files(self, instance: Any) -> bool:
        return lifecycle.delete_files(self.node, instance)

    # Power

    def reboot(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        reboot_type: str,
        block_device_info: Any = None,
        bad_volumes_callback: Any = None,
        accel_info: Any = None,
        share_info: Any = None,
    ) -> None:
        lifecycle.reboot(
            self.node,
            context,
            instance,
            network_info,
            block_device_info,
            soft=reboot_type == "SOFT",
            accel_info=accel_info,
            share_info=share_info,
        )

    def pause(self, instance: Any) -> None:
        lifecycle.pause(self.node, instance)

    def unpause(self, instance: Any) -> None:
        lifecycle.unpause(self.node, instance)

    def suspend(self, context: Any, instance: Any) -> None:
        lifecycle.suspend(self.node, instance)

    def resume(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        block_device_info: Any = None,
        share_info: Any = None,
    ) -> None:
        lifecycle.resume(self.node, instance, network_info, block_device_info, share_info)

    def resume_state_on_host_boot(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        share_info: Any,
        block_device_info: Any = None,
    ) -> None:
        domain = self.node.hypervisor.find(instance.uuid)
        if domain is None or not domain.is_active():
            lifecycle.hard_reboot(
                self.node,
                context,
                instance,
                network_info,
                block_device_info,
                share_info=share_info,
            )

    def power_off(self, instance: Any, timeout: int = 0, retry_interval: int = 0) -> None:
        lifecycle.power_off(self.node, instance, timeout, retry_interval)

    def power_on(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        block_device_info: Any = None,
        accel_info: Any = None,
        share_info: Any = None,
    ) -> None:
        lifecycle.hard_reboot(
            self.node,
            context,
            instance,
            network_info,
            block_device_info,
            accel_info=accel_info,
            share_info=share_info,
        )

    def trigger_crash_dump(self, instance: Any) -> None:
        try:
            self.node.domain(instance).inject_nmi()
        except exception.Unsupported as error:
            raise nova_exception.TriggerCrashDumpNotSupported() from error

    def rescue(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        image_meta: Any,
        rescue_password: str | None,
        block_device_info: Any,
        share_info: Any,
    ) -> None:
        rescue.rescue(
            self.node,
            context,
            instance,
            network_info,
            image_meta,
            rescue_password,
            block_device_info,
            share_info,
        )

    def unrescue(self, context: Any, instance: Any) -> None:
        rescue.unrescue(self.node, context, instance)

    # Images

    def snapshot(self, context: Any, instance: Any, image_id: str, update_task_state: Any) -> None:
        snapshot.snapshot(self.node, context, instance, image_id, update_task_state)

    def quiesce(self, context: Any, instance: Any, image_meta: Any) -> None:
        guest_agent.quiesce(self.node, instance, image_meta, freeze=True)

    def unquiesce(self, context: Any, instance: Any, image_meta: Any) -> None:
        guest_agent.quiesce(self.node, instance, image_meta, freeze=False)

    # Volumes and interfaces

    def attach_volume(
        self,
        context: Any,
        connection_info: Any,
        instance: Any,
        mountpoint: str,
        disk_bus: str | None = None,
        device_type: str | None = None,
        encryption: Any = None,
    ) -> None:
        attach.attach_volume(
            self.node, connection_info, instance, mountpoint, disk_bus, device_type, encryption
        )
        self._refresh_device_metadata(context, instance)

    def detach_volume(
        self,
        context: Any,
        connection_info: Any,
        instance: Any,
        mountpoint: str,
        encryption: Any = None,
    ) -> None:
        attach.detach_volume(self.node, connection_info, instance, mountpoint)

    def swap_volume(
        self,
        context: Any,
        old_connection_info: Any,
        new_connection_info: Any,
        instance: Any,
        mountpoint: str,
        resize_to: int,
    ) -> None:
        attach.swap_volume(
            self.node, old_connection_info, new_connection_info, instance, mountpoint, resize_to
        )

    def extend_volume(
        self, context: Any, connection_info: Any, instance: Any, requested_size: int
    ) -> None:
        attach.extend_volume(self.node, connection_info, instance, requested_size)

    def volume_snapshot_create(
        self, context: Any, instance: Any, volume_id: str, create_info: Any
    ) -> None:
        volume_snapshots.refuse_create(context, instance, volume_id, create_info)

    def volume_snapshot_delete(
        self, context: Any, instance: Any, volume_id: str, snapshot_id: str, delete_info: Any
    ) -> None:
        volume_snapshots.refuse_delete(context, instance, volume_id, snapshot_id)

    # Shares: a server that has one is refused by name where it is started

    def mount_share(self, context: Any, instance: Any, share_mapping: Any) -> None:
        """Mount nothing. An error here would put the server into the state ERROR."""

    def umount_share(self, context: Any, instance: Any, share_mapping: Any) -> bool:
        return False

    def is_share_mounted(self, share_mapping: Any) -> bool:
        return False

    def get_volume_connector(self, instance: Any) -> dict[str, Any]:
        return volumes.host_connector(self.node)

    def attach_interface(self, context: Any, instance: Any, image_meta: Any, vif: Any) -> None:
        attach.attach_interface(self.node, instance, image_meta, vif)
        self._refresh_device_metadata(context, instance)

    def detach_interface(self, context: Any, instance: Any, vif: Any) -> None:
        attach.detach_interface(self.node, instance, vif)

    def plug_vifs(self, instance: Any, network_info: Any) -> None:
        vifs.plug_all(self.node, instance, network_info)

    def unplug_vifs(self, instance: Any, network_info: Any) -> None:
        vifs.unplug_all(self.node, instance, network_info)

    def _refresh_device_metadata(self, context: Any, instance: Any) -> None:
        instance.device_metadata = device_metadata.build(
            context, instance, self.node.domain(instance)
        )
        instance.save()

    # Names of block devices

    def default_root_device_name(self, instance: Any, image_meta: Any, root_bdm: Any) -> str:
        machine = self.node.machine(image_meta, instance)
        return block_devices.root_device_name(image_meta, root_bdm, machine)

    def default_device_names_for_instance(
        self, instance: Any, root_device_name: str, *block_device_lists: Any
    ) -> None:
        image_meta = instance.image_meta
        block_devices.assign_default_names(
            instance,
            image_meta,
            root_device_name,
            self.node.machine(image_meta, instance),
            *block_device_lists,
        )

    def get_device_name_for_instance(self, instance: Any, bdms: Any, block_device_obj: Any) -> str:
        return attach.next_device_name(self.node, instance, bdms, block_device_obj)

    # Consoles and counters

    def get_console_output(self, context: Any, instance: Any) -> bytes:
        return consoles.output(self.node, instance)

    def get_vnc_console(self, context: Any, instance: Any) -> Any:
        return consoles.vnc(self.node, instance)

    def get_spice_console(self, context: Any, instance: Any) -> Any:
        return consoles.spice(self.node, instance)

    def get_serial_console(self, context: Any, instance: Any) -> Any:
        return consoles.serial(self.node, instance)

    def get_diagnostics(self, instance: Any) -> dict[str, Any]:
        return diagnostics.legacy(self.node, instance)

    def get_instance_diagnostics(self, instance: Any) -> Any:
        return diagnostics.versioned(self.node, instance)

    def block_stats(self, instance: Any, disk_id: str) -> list[int]:
        return diagnostics.block_stats(self.node, instance, disk_id)

    def get_all_volume_usage(self, context: Any, compute_host_bdms: Any) -> list[dict[str, Any]]:
        return diagnostics.volume_usage(self.node, compute_host_bdms)

    def set_admin_password(self, instance: Any, new_pass: str) -> None:
        guest_agent.set_admin_password(self.node, instance, new_pass)
