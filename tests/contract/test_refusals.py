"""What is refused leaves a real guest as it was: running on, with the same definition."""

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

from lxml import etree
from nova import exception as nova_exception
from nova import objects
from nova.tests.unit import utils as test_utils
from oslo_utils.fixture import uuidsentinel as uuids

from kvmdriver import exception as our_exception
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.nova import definition, volumes
from tests.contract.booted import IMAGE, BootedGuest

MIB = 1 << 20


class RefusalsTest(BootedGuest):
    def setUp(self) -> None:
        super().setUp()
        self.instance.pci_requests = objects.InstancePCIRequests(requests=[])

    def volume(self, name: str = "volume", **data: Any) -> dict[str, Any]:
        """A volume on a file: a plain one, unless ``data`` says otherwise."""
        path = os.path.join(self.root, name)
        with open(path, "wb") as file:
            file.truncate(8 * MIB)
        return {
            "driver_volume_type": "gpfs",
            "serial": getattr(uuids, name),
            "data": {"device_path": path, "name": name, **data},
        }

    def mapping(self, *connections: dict[str, Any]) -> dict[str, Any]:
        return {
            "root_device_name": "/dev/vda",
            "block_device_mapping": [
                {
                    "mount_device": f"/dev/vd{letter}",
                    "connection_info": connection_info,
                    "boot_index": None,
                    "disk_bus": "virtio",
                    "device_type": "disk",
                }
                for letter, connection_info in zip("bcd", connections, strict=False)
            ],
        }

    def number(self) -> int:
        """libvirt's number of the running guest: another one for each start."""
        return int(self.driver.get_info(self.instance, use_cache=False).internal_id)

    def definition(self) -> bytes:
        return etree.tostring(self.driver.node.domain(self.instance).xml(inactive=True))

    @contextlib.contextmanager
    def nothing_changes(self) -> Iterator[None]:
        """The guest runs on, and is defined as before; no volume is connected."""
        before = self.number(), self.definition()
        with mock.patch.object(volumes, "connect") as connect:
            yield
        connect.assert_not_called()
        self.assertEqual(before, (self.number(), self.definition()))

    def refused(self, name: str, method: Callable[..., Any], *args: Any, **named: Any) -> None:
        error = self.assertRaises(nova_exception.Invalid, method, *args, **named)
        self.assertIn(name, str(error))

    def recorded(self, *connections: dict[str, Any]) -> Any:
        """nova's database with these volumes of the server."""
        bdms = [
            mock.Mock(
                is_volume=True,
                connection_info=json.dumps(connection_info),
                device_name="/dev/vdb",
                disk_bus="virtio",
                device_type="disk",
                volume_id=connection_info["serial"],
                tag=None,
            )
            for connection_info in connections
        ]
        return mock.patch.object(
            objects.BlockDeviceMappingList, "get_by_instance_uuid", return_value=bdms
        )

    def test_encrypted_volume_of_a_running_guest(self) -> None:
        self.spawn(wait=False)
        secret = self.volume("secret", encrypted=True)
        plain = self.volume("plain")
        arguments = (self.context, self.instance, self.network_info)
        info = self.mapping(secret)
        driver, name = self.driver, secret["serial"]
        with self.nothing_changes():
            self.refused(
                name, driver.attach_volume, self.context, secret, self.instance, "/dev/vdb"
            )
            self.refused(
                plain["serial"], driver.attach_volume, self.context, plain, self.instance,
                "/dev/vdb", encryption={"provider": "luks"},
            )  # fmt: skip
            self.refused(name, driver.reboot, *arguments, "HARD", info)
            self.refused(name, driver.power_on, *arguments, info)
            self.refused(name, driver.resume, *arguments, info)
            self.refused(name, driver.rescue, *arguments, self.meta, "", info, None)
            self.refused(
                name, driver.swap_volume, self.context, plain, secret, self.instance,
                "/dev/vda", 0,
            )  # fmt: skip
            self.refused(name, driver.extend_volume, self.context, secret, self.instance, 16 * MIB)
            self.refused(
                name, driver.finish_migration, self.context, mock.Mock(), self.instance, "[]",
                [], self.meta, False, {}, info,
            )  # fmt: skip
            self.refused(name, driver.finish_revert_migration, *arguments, mock.Mock(), info)
            with self.recorded(secret):
                error = self.assertRaises(
                    nova_exception.MigrationPreCheckError,
                    driver.check_can_live_migrate_destination,
                    self.context, self.instance, {}, {},
                )  # fmt: skip
            self.assertIn(name, str(error))
            error = self.assertRaises(
                nova_exception.MigrationPreCheckError,
                driver.check_can_live_migrate_source,
                self.context, self.instance, objects.LibvirtLiveMigrateData(), info,
            )  # fmt: skip
            self.assertIn(name, str(error))
            self.refused(
                name, driver.pre_live_migration, self.context, self.instance, info, [], "[]",
                objects.LibvirtLiveMigrateData(is_shared_instance_path=False),
            )  # fmt: skip
            error = self.assertRaises(
                nova_exception.InstanceFaultRollback,
                driver.migrate_disk_and_power_off,
                self.context, self.instance, "elsewhere", self.instance.flavor, [], info,
            )  # fmt: skip
            self.assertIn(name, str(error))
        driver.power_off(self.instance)
        before = self.definition()
        self.refused(name, driver.power_on, *arguments, info)
        self.refused(name, driver.resume_state_on_host_boot, *arguments, None, info)
        self.assertEqual(before, self.definition())
        # a server that is done with still goes
        driver.destroy(*arguments, info)
        self.assertFalse(driver.instance_exists(self.instance))

    def test_a_decrypted_disk_of_the_driver_in_tree_stays(self) -> None:
        """nova may have lost what it knew of a volume: the guest's definition still has it."""
        self.spawn(wait=False)
        domain = self.driver.node.domain(self.instance)
        root = domain.xml(inactive=True, secure=True)
        disk = etree.fromstring(
            f"<disk type='file' device='disk'><driver name='qemu' type='raw'/>"
            f"<source file='{self.volume()['data']['device_path']}'><encryption format='luks'>"
            f"<secret type='passphrase' uuid='{uuids.secret}'/></encryption></source>"
            f"<target dev='vdb' bus='virtio'/><serial>{uuids.volume}</serial></disk>"
        )
        root.find("devices").append(disk)
        self.driver.node.hypervisor.define(root)
        arguments = (self.context, self.instance, self.network_info)
        with self.nothing_changes():
            self.refused(uuids.volume, self.driver.reboot, *arguments, "HARD", None)
            self.refused(uuids.volume, self.driver.power_on, *arguments, None)

    def test_encrypted_volume_of_a_new_server(self) -> None:
        secret = self.volume("secret", encrypted=True)
        with mock.patch.object(volumes, "connect") as connect:
            self.refused(secret["serial"], self.spawn, self.mapping(secret))
        connect.assert_not_called()
        self.assertIsNone(self.driver.node.hypervisor.find(self.instance.uuid))
        self.assertFalse(os.path.exists(self.driver.node.layout(self.instance).directory))

    def test_devices_and_shares(self) -> None:
        self.spawn(wait=False)
        arguments = (self.context, self.instance, self.network_info)
        share = [SimpleNamespace(share_id="the-share")]
        with self.nothing_changes():
            for method in (self.driver.power_on, self.driver.resume):
                self.refused("the-share", method, *arguments, None, share_info=share)
            self.refused("the-share", self.driver.rescue, *arguments, self.meta, "", None, share)
            accelerators = [{"uuid": "the-request"}]
            self.refused("the-request", self.driver.power_on, *arguments, None, accelerators)
            self.instance.pci_requests.requests.append(
                objects.InstancePCIRequest(count=1, alias_name="gpu", spec=[{"x": "y"}])
            )
            self.refused("gpu", self.driver.reboot, *arguments, "HARD", None)
            self.instance.pci_requests.requests.clear()
            self.instance.flavor.extra_specs = {"resources1:VGPU": "1"}
            self.refused("resources1:VGPU", self.driver.reboot, *arguments, "HARD", None)

    def test_hard_reboot_that_cannot_be_translated(self) -> None:
        self.spawn(wait=False)
        arguments = (self.context, self.instance, self.network_info, "HARD", None)
        before = self.number(), self.definition()
        self.instance.system_metadata["image_hw_video_model"] = "vmvga"
        error = self.assertRaises(nova_exception.InvalidVideoMode, self.driver.reboot, *arguments)
        self.assertIn("vmvga", str(error))
        self.assertEqual(before, (self.number(), self.definition()))

    def test_hard_reboot_with_a_definition_that_libvirt_does_not_accept(self) -> None:
        self.spawn(wait=False)
        build = definition.build

        def broken(*args: Any, **named: Any) -> etree._Element:
            root = build(*args, **named)
            root.find("devices").append(etree.fromstring("<disk type='file' device='nothing'/>"))
            return root

        arguments = (self.context, self.instance, self.network_info)
        before = self.number(), self.definition()
        with mock.patch.object(definition, "build", broken):
            for method in (
                lambda: self.driver.reboot(*arguments, "HARD", None),
                lambda: self.driver.power_on(*arguments, None),
                lambda: self.driver.rescue(*arguments, self.meta, "", None, None),
            ):
                self.assertRaises(nova_exception.NovaException, method)
                self.assertEqual(before, (self.number(), self.definition()))
        self.driver.reboot(*arguments, "HARD", None)
        self.assertNotEqual(before[0], self.number())

    def test_hard_reboot_of_a_guest_that_cannot_be_switched_off(self) -> None:
        self.spawn(wait=False)
        before = self.number(), self.definition()
        # the new definition is another one
        self.instance.system_metadata["image_hw_video_model"] = "cirrus"
        arguments = (self.context, self.instance, self.network_info, "HARD", None)
        error = our_exception.HypervisorError("QEMU does not end")
        with mock.patch.object(Domain, "destroy", side_effect=error):
            self.assertRaises(nova_exception.InternalError, self.driver.reboot, *arguments)
        self.assertEqual(before, (self.number(), self.definition()))
        self.driver.reboot(*arguments)
        self.assertNotEqual(before, (self.number(), self.definition()))

    def test_hard_reboot_without_the_root_disk(self) -> None:
        self.spawn(wait=False)
        before = self.number(), self.definition()
        os.unlink(self.driver.node.layout(self.instance).file("disk"))
        self.assertRaises(
            nova_exception.DiskNotFound, self.driver.reboot,
            self.context, self.instance, self.network_info, "HARD", None,
        )  # fmt: skip
        self.assertEqual(before, (self.number(), self.definition()))

    def test_hard_reboot_of_a_suspended_server_boots(self) -> None:
        """Saved memory would bring the hung guest back instead."""
        self.spawn()
        self.driver.suspend(self.context, self.instance)
        self.driver.reboot(self.context, self.instance, self.network_info, "HARD", None)
        self.wait_for_boot(2)

    def other_server(self) -> Any:
        other = test_utils.get_test_instance(flavor=self.instance.flavor, obj=True)
        other.pci_requests = objects.InstancePCIRequests(requests=[])
        return other

    def test_multiattach_volume_has_one_server_on_a_host(self) -> None:
        self.spawn(wait=False)
        first, second = self.instance, self.other_server()
        volume = {**self.volume(), "multiattach": True}
        spawn = (self.context, second, self.meta, [], "secret", {})
        self.driver.spawn(*spawn, network_info=[])
        self.driver.attach_volume(self.context, volume, first, "/dev/vdb", "virtio")
        self.refused(
            volume["serial"], self.driver.attach_volume,
            self.context, volume, second, "/dev/vdb", "virtio",
        )  # fmt: skip
        self.refused(
            first.uuid, self.driver.power_on, self.context, second, [], self.mapping(volume)
        )
        self.driver.destroy(self.context, second, [], None)
        self.refused(
            volume["serial"], self.driver.spawn, *spawn, network_info=[],
            block_device_info=self.mapping(volume),
        )  # fmt: skip
        # what nova does after a spawn that failed
        self.driver.destroy(self.context, second, [], self.mapping(volume))
        with self.recorded(volume):
            error = self.assertRaises(
                nova_exception.MigrationPreCheckError,
                self.driver.check_can_live_migrate_destination,
                self.context, second, {}, {},
            )  # fmt: skip
        self.assertIn(volume["serial"], str(error))
        # the first one is restarted with it, lets it go, and the next one has it
        arguments = (self.context, first, self.network_info)
        self.driver.reboot(*arguments, "HARD", self.mapping(volume))
        self.driver.detach_volume(self.context, volume, first, "/dev/vdb")
        self.driver.spawn(*spawn, network_info=[], block_device_info=self.mapping(volume))
        self.refused(
            second.uuid, self.driver.attach_volume,
            self.context, volume, first, "/dev/vdb", "virtio",
        )  # fmt: skip
        self.driver.destroy(self.context, second, [], self.mapping(volume))
        self.driver.attach_volume(self.context, volume, first, "/dev/vdb", "virtio")

    def test_multiattach_volume_for_two_servers_at_once(self) -> None:
        self.spawn(wait=False)
        first, second = self.instance, self.other_server()
        self.driver.spawn(self.context, second, self.meta, [], "secret", {}, network_info=[])
        volume = {**self.volume(), "multiattach": True}
        together = threading.Barrier(2)
        errors: dict[str, Exception] = {}

        def attach(server: Any) -> None:
            together.wait(10)
            try:
                self.driver.attach_volume(self.context, volume, server, "/dev/vdb", "virtio")
            except nova_exception.Invalid as error:
                errors[server.uuid] = error

        threads = [threading.Thread(target=attach, args=(s,)) for s in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual(1, len(errors), errors)
        serials = self.driver.node.hypervisor.disk_serials()
        users = {uuid for uuid, found in serials.items() if volume["serial"] in found}
        self.assertEqual({first.uuid, second.uuid} - set(errors), users)

    def test_read_only_volume(self) -> None:
        self.instance.system_metadata["image_hw_qemu_guest_agent"] = "yes"
        self.meta = objects.ImageMeta.from_dict(
            {"id": IMAGE, "disk_format": "qcow2", "properties": {"hw_qemu_guest_agent": "yes"}}
        )
        fixed = self.volume("fixed", access_mode="ro")
        self.spawn(self.mapping(fixed))
        hot = self.volume("hot", access_mode="ro")
        writable = self.volume("writable", access_mode="rw")
        self.driver.attach_volume(self.context, hot, self.instance, "/dev/vdc", "virtio")
        self.driver.attach_volume(self.context, writable, self.instance, "/dev/vdd", "virtio")
        self.driver.set_admin_password(self.instance, "x")  # waits for the agent
        for name in ("vdb", "vdc"):
            self.assertNotEqual(0, self.write_in_guest(name))
        self.assertEqual(0, self.write_in_guest("vdd"))
        for volume in (fixed, hot):
            with open(volume["data"]["device_path"], "rb") as file:
                self.assertEqual(bytes(8 * MIB), file.read())
        with open(writable["data"]["device_path"], "rb") as file:
            self.assertNotEqual(bytes(8 * MIB), file.read())
        self.refused(
            hot["serial"], self.driver.attach_volume,
            self.context, hot, self.instance, "/dev/sda", "sata",
        )  # fmt: skip

    def write_in_guest(self, name: str) -> int:
        """Exit status of a write to a disk by the guest's root."""
        # the guest's kernel takes a moment to find a disk that is attached while it runs
        found = f"until [ -b /dev/{name} ]; do sleep 1; done"
        return self.run_in_guest(f"{found}; echo written | dd of=/dev/{name} conv=fsync")
