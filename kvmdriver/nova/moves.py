"""The part of the ComputeDriver that moves servers: live, cold, to another size or another host."""

import json
import os
import tempfile
from typing import Any

from nova.virt import driver as nova_driver
from oslo_utils import uuidutils

from kvmdriver.nova import (
    disks,
    live_migration,
    migration_check,
    migration_pins,
    resize,
    vifs,
)
from kvmdriver.nova.errors import translate_errors
from kvmdriver.nova.node import Node


@translate_errors
class Moves(nova_driver.ComputeDriver):
    """Methods that delegate in a line or two."""

    node: Node

    def get_instance_disk_info(self, instance: Any, block_device_info: Any = None) -> str:
        return json.dumps(resize.disk_info(self.node, instance))

    # Live migration: the destination

    def check_can_live_migrate_destination(
        self,
        context: Any,
        instance: Any,
        src_compute_info: Any,
        dst_compute_info: Any,
        block_migration: bool | None = False,
        disk_over_commit: bool | None = False,
    ) -> Any:
        return migration_check.at_destination(
            self.node, context, instance, dst_compute_info, block_migration, disk_over_commit
        )

    def cleanup_live_migration_destination_check(self, context: Any, dest_check_data: Any) -> None:
        migration_check.remove_file(self.node, dest_check_data)

    def post_claim_migrate_data(
        self, context: Any, instance: Any, migrate_data: Any, claim: Any
    ) -> Any:
        migrate_data.dst_numa_info = migration_pins.claimed(
            self.node, instance, claim.image_meta, claim.claimed_numa_topology
        )
        return migrate_data

    def pre_live_migration(
        self,
        context: Any,
        instance: Any,
        block_device_info: Any,
        network_info: Any,
        disk_info: str | None,
        migrate_data: Any,
    ) -> Any:
        return live_migration.prepare(
            self.node,
            context,
            instance,
            block_device_info,
            network_info,
            disk_info,
            migrate_data,
        )

    def post_live_migration_at_destination(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        block_migration: bool = False,
        block_device_info: Any = None,
    ) -> None:
        live_migration.arrived(self.node, context, instance, network_info, block_device_info)

    def rollback_live_migration_at_destination(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        block_device_info: Any,
        destroy_disks: bool = True,
        migrate_data: Any = None,
    ) -> None:
        live_migration.roll_back_at_destination(
            self.node, instance, network_info, block_device_info, migrate_data
        )

    # Live migration: the source

    def check_can_live_migrate_source(
        self, context: Any, instance: Any, dest_check_data: Any, block_device_info: Any = None
    ) -> Any:
        return migration_check.at_source(self.node, instance, dest_check_data, block_device_info)

    def live_migration(
        self,
        context: Any,
        instance: Any,
        dest: str,
        post_method: Any,
        recover_method: Any,
        block_migration: bool = False,
        migrate_data: Any = None,
    ) -> None:
        live_migration.migrate(
            self.node,
            context,
            instance,
            dest,
            post_method,
            recover_method,
            block_migration,
            migrate_data,
        )

    def live_migration_force_complete(self, instance: Any) -> None:
        live_migration.force_complete(self.node, instance)

    def live_migration_abort(self, instance: Any) -> None:
        live_migration.abort(self.node, instance)

    def post_live_migration(
        self, context: Any, instance: Any, block_device_info: Any, migrate_data: Any = None
    ) -> None:
        live_migration.left(self.node, instance, block_device_info)

    def post_live_migration_at_source(
        self, context: Any, instance: Any, network_info: Any
    ) -> None:
        vifs.unplug_all(self.node, instance, network_info, ignore_errors=True)

    def rollback_live_migration_at_source(
        self, context: Any, instance: Any, migrate_data: Any
    ) -> None:
        """Do nothing: the source has kept its interfaces."""

    # Another size, or another host while it is off

    def migrate_disk_and_power_off(
        self,
        context: Any,
        instance: Any,
        dest: str,
        flavor: Any,
        network_info: Any,
        block_device_info: Any = None,
        timeout: int = 0,
        retry_interval: int = 0,
    ) -> str:
        return resize.migrate_disk_and_power_off(
            self.node,
            instance,
            dest,
            flavor,
            network_info,
            block_device_info,
            timeout,
            retry_interval,
        )

    def finish_migration(
        self,
        context: Any,
        migration: Any,
        instance: Any,
        disk_info: str,
        network_info: Any,
        image_meta: Any,
        resize_instance: bool,
        allocations: Any,
        block_device_info: Any = None,
        power_on: bool = True,
        share_info: Any = None,
    ) -> None:
        resize.finish_migration(
            self.node,
            context,
            instance,
            network_info,
            image_meta,
            resize_instance,
            block_device_info,
            power_on,
            allocations,
            share_info,
        )

    def confirm_migration(
        self, context: Any, migration: Any, instance: Any, network_info: Any
    ) -> None:
        resize.confirm_migration(self.node, instance)

    def finish_revert_migration(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        migration: Any,
        block_device_info: Any = None,
        power_on: bool = True,
        share_info: Any = None,
    ) -> None:
        resize.finish_revert_migration(
            self.node,
            context,
            instance,
            network_info,
            block_device_info,
            power_on,
            share_info,
        )

    # Shared storage: asked before an evacuation

    def check_instance_shared_storage_local(
        self, context: Any, instance: Any
    ) -> dict[str, str] | None:
        directory = self.node.layout(instance).directory
        if not os.path.isdir(directory):
            return None
        descriptor, path = tempfile.mkstemp(dir=directory, prefix=uuidutils.generate_uuid())
        os.close(descriptor)
        return {"filename": path}

    def check_instance_shared_storage_remote(self, context: Any, data: dict[str, str]) -> bool:
        return os.path.exists(data["filename"])

    def check_instance_shared_storage_cleanup(self, context: Any, data: dict[str, str]) -> None:
        disks.remove_file(data["filename"])
