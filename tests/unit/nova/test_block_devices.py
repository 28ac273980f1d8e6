"""Which disks, under which names, on which buses."""

import unittest
from types import SimpleNamespace
from typing import Any

from nova import exception

from kvmdriver.nova import block_devices
from tests.unit.nova import objects as made


def names(slots: list[block_devices.Slot]) -> list[tuple[str, str, str | None]]:
    return [(slot.name, slot.bus, slot.file) for slot in slots]


class PlanTest(unittest.TestCase):
    def plan(self, image: Any = None, info: Any = None, machine: str = "pc", **fields: Any) -> Any:
        image = image or made.image_meta()
        return block_devices.plan(made.instance(image=image, **fields), image, info, machine)

    def setUp(self) -> None:
        made.configuration()

    def test_root_only(self) -> None:
        slots = self.plan()
        self.assertEqual([("vda", "virtio", "disk")], names(slots))
        self.assertEqual((1024, 1), (slots[0].size_mib, slots[0].boot_order))

    def test_bus_and_config_drive(self) -> None:
        image = made.image_meta(hw_disk_bus="scsi", hw_cdrom_bus="scsi")
        slots = self.plan(image, root_device_name="/dev/sda", config_drive="True")
        self.assertEqual([("sda", "scsi", "disk"), ("sdg", "scsi", "disk.config")], names(slots))
        self.assertEqual("cdrom", slots[1].device)

    def test_default_bus_of_a_cd(self) -> None:
        for machine, name, bus in (("pc", "hdd", "ide"), ("pc-q35-7.2", "sdf", "sata")):
            slots = self.plan(machine=machine, config_drive="True")
            self.assertEqual((name, bus), (slots[-1].name, slots[-1].bus))

    def test_flavor_with_ephemeral_and_swap(self) -> None:
        slots = self.plan(instance_flavor=made.flavor(ephemeral_gb=2, swap=64))
        self.assertEqual(
            [
                ("vda", "virtio", "disk"),
                ("vdb", "virtio", "disk.local"),
                ("vdc", "virtio", "disk.swap"),
            ],
            names(slots),
        )
        self.assertEqual([1024, 2048, 64], [slot.size_mib for slot in slots])

    def test_mapping_of_nova(self) -> None:
        volume = {"mount_device": "/dev/vdd", "connection_info": {}, "boot_index": None}
        info = {
            "root_device_name": "/dev/vda",
            "ephemerals": [
                {
                    "device_name": "/dev/vdb",
                    "size": 1,
                    "disk_bus": "virtio",
                    "guest_format": "ext4",
                }
            ],
            "swap": {"device_name": "/dev/vdc", "swap_size": 32, "disk_bus": "virtio"},
            "block_device_mapping": [volume],
        }
        slots = self.plan(info=info)
        self.assertEqual(
            [
                ("vda", "virtio", "disk"),
                ("vdb", "virtio", "disk.eph0"),
                ("vdc", "virtio", "disk.swap"),
                ("vdd", "virtio", None),
            ],
            names(slots),
        )
        self.assertEqual("ext4", slots[1].file_system)

    def test_boot_from_volume(self) -> None:
        volume = {
            "mount_device": "/dev/vda",
            "connection_info": {},
            "boot_index": 0,
            "disk_bus": "virtio",
            "device_type": "disk",
        }
        slots = self.plan(info={"block_device_mapping": [volume]}, image_ref="")
        self.assertEqual([("vda", "virtio", None)], names(slots))
        self.assertEqual(1, slots[0].boot_order)

    def test_unknown_bus(self) -> None:
        image = made.image_meta(hw_disk_bus="lxc")
        self.assertRaises(exception.UnsupportedHardware, self.plan, image)

    def test_legacy_rescue(self) -> None:
        own = self.plan(config_drive="True")
        rescue = made.image_meta()
        slots = block_devices.rescue_plan(own, made.image_meta(), rescue, "pc")
        self.assertEqual(
            [
                ("vda", "virtio", "disk.rescue"),
                ("vdb", "virtio", "disk"),
                ("hdd", "ide", "disk.config.rescue"),
            ],
            names(slots),
        )
        self.assertEqual([1, None, None], [slot.boot_order for slot in slots])

    def test_stable_rescue(self) -> None:
        own = self.plan(config_drive="True")
        rescue = made.image_meta(hw_rescue_device="disk", hw_rescue_bus="scsi")
        slots = block_devices.rescue_plan(own, made.image_meta(), rescue, "pc")
        self.assertEqual(names(own), names(slots[:-1]))
        self.assertEqual(("sda", "scsi", "disk.rescue"), names(slots)[-1])
        self.assertEqual([None, None, 1], [slot.boot_order for slot in slots])

    def test_default_names(self) -> None:
        saved = []

        def bdm(**fields: Any) -> Any:
            entry = SimpleNamespace(
                **{"device_name": None, "disk_bus": None, "device_type": None, **fields}
            )
            entry.save = lambda: saved.append(entry)
            return entry

        bdms = [bdm(), bdm(device_name="/dev/vdb"), bdm(disk_bus="scsi")]
        image = made.image_meta()
        block_devices.assign_default_names(
            made.instance(), image, "/dev/vda", "pc", bdms[:1], bdms[1:]
        )
        self.assertEqual(
            ["/dev/vdc", "/dev/vdb", "/dev/sda"], [entry.device_name for entry in bdms]
        )
        self.assertEqual(3, len(saved))
