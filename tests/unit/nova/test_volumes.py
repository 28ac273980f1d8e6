"""Connections of Cinder against os-brick's contract."""

import unittest
from typing import Any
from unittest import mock

from nova import exception

from kvmdriver.nova import volumes
from kvmdriver.nova.block_devices import Slot
from tests.unit.nova import objects as made

FACTORY = "os_brick.initiator.connector.InitiatorConnector.factory"


class VolumesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.node = made.node(volume_use_multipath=True, num_volume_scan_tries=4)

    def connect(self, kind: str, **data: Any) -> tuple[Any, dict[str, Any]]:
        info = {"driver_volume_type": kind, "serial": made.UUID, "data": data}
        with mock.patch(FACTORY) as factory:
            factory.return_value.connect_volume.return_value = {"path": "/dev/sdx"}
            volumes.connect(self.node, info, made.UUID)
        return factory, info

    def model(self, info: dict[str, Any]) -> Any:
        entry = {"connection_info": info}
        return volumes.to_model(self.node, Slot(name="vdb", bus="virtio", volume=entry))

    def test_block(self) -> None:
        for kind, protocol in (
            ("iscsi", "ISCSI"),
            ("fibre_channel", "FIBRE_CHANNEL"),
            ("nvmeof", "NVMEOF"),
            ("local", "LOCAL"),
            ("lightos", "LIGHTOS"),
        ):
            with self.subTest(kind):
                factory, info = self.connect(kind, target_lun=1, qos_specs={"read_iops_sec": "7"})
                arguments = factory.call_args
                self.assertEqual(protocol, arguments.args[0])
                self.assertTrue(arguments.kwargs["use_multipath"])
                self.assertEqual(4, arguments.kwargs["device_scan_attempts"])
                disk = self.model(info)
                self.assertEqual(("block", "/dev/sdx"), (disk.volume.type, disk.volume.path))
                self.assertEqual(("none", "native", made.UUID), (disk.cache, disk.io, disk.serial))
                self.assertEqual(7, disk.limits.read_iops_sec)

    def test_nfs(self) -> None:
        factory, info = self.connect("nfs", export="host:/x", name="volume-1", format="qcow2")
        base = factory.call_args.kwargs["conn"]["mount_point_base"]
        self.assertEqual(self.node.conf.libvirt.nfs_mount_point_base, base)
        disk = self.model(info)
        self.assertEqual(("file", "qcow2"), (disk.volume.type, disk.volume.format))

    def test_network(self) -> None:
        factory, info = self.connect(
            "rbd",
            name="pool/volume",
            hosts=["192.0.2.1", "192.0.2.2"],
            ports=["6789", "6789"],
            auth_enabled=True,
            auth_username="cinder",
            secret_uuid=made.UUID,
        )
        factory.assert_not_called()
        volume = self.model(info).volume
        self.assertEqual(
            ("network", "rbd", "pool/volume"), (volume.type, volume.protocol, volume.path)
        )
        self.assertEqual(["192.0.2.1", "192.0.2.2"], [host.name for host in volume.hosts])
        self.assertEqual(("cinder", made.UUID), (volume.user, volume.auth_secret))

    def test_multiattach(self) -> None:
        _, info = self.connect("iscsi")
        disk = self.model({**info, "multiattach": True})
        self.assertEqual((True, "none"), (disk.volume.shareable, disk.cache))

    def test_disconnect(self) -> None:
        _, info = self.connect("iscsi", target_lun=1)
        with mock.patch(FACTORY) as factory:
            volumes.disconnect(self.node, info, made.UUID, force=True)
        call = factory.return_value.disconnect_volume.call_args
        self.assertEqual(
            ({"path": "/dev/sdx"}, True, True),
            (call.args[1], call.kwargs["force"], call.kwargs["ignore_errors"]),
        )

    def test_a_multiattach_volume_of_another_server_stays_connected(self) -> None:
        _, info = self.connect("iscsi", target_lun=1)
        info["multiattach"] = True
        other = "7b4f0e6a-93c5-4f0c-9d0a-0b7f3c1b2a44"
        for users, calls in (({other: {made.UUID}}, 0), ({made.UUID: {made.UUID}}, 1), ({}, 1)):
            self.node.hypervisor.disk_serials.return_value = users
            with self.subTest(users), mock.patch(FACTORY) as factory:
                volumes.disconnect(self.node, info, made.UUID)
                self.assertEqual(calls, factory.return_value.disconnect_volume.call_count)

    def test_read_only(self) -> None:
        for mode, read_only in (("ro", True), ("rw", False), (None, False)):
            with self.subTest(mode):
                _, info = self.connect("iscsi", access_mode=mode)
                self.assertEqual(read_only, self.model(info).volume.read_only)

    def test_extend(self) -> None:
        _, info = self.connect("iscsi")
        with mock.patch(FACTORY) as factory:
            factory.return_value.extend_volume.return_value = 2 << 30
            self.assertEqual(2 << 30, volumes.extend(self.node, info, 1 << 30))
        self.assertEqual(
            1 << 30, volumes.extend(self.node, {"driver_volume_type": "rbd", "data": {}}, 1 << 30)
        )

    def test_unknown(self) -> None:
        self.assertRaises(exception.VolumeDriverNotFound, self.connect, "sheepdog")
