"""Volumes in a real guest: those that need no kernel module of the host are really attached."""

import dataclasses
import os
import re
import socket
import subprocess
import uuid
from typing import Any

import fixtures
import nova.privsep
import os_brick.privileged
from nova import exception as nova_exception
from os_brick import exception as brick_exception
from os_brick.initiator.connectors.remotefs import RemoteFsConnector

from kvmdriver.nova.shares import Shares
from tests import namespace
from tests.contract.booted import GUEST, BootedGuest
from tests.openstack import stand_ins

MIB = 1 << 20
# nova's fixture replaces it later
MOUNT = RemoteFsConnector.connect_volume


class VolumesTest(BootedGuest):
    def file_volume(self, name: str, mib: int = 32) -> dict[str, Any]:
        path = os.path.join(self.root, name)
        with open(path, "wb") as file:
            file.truncate(mib * MIB)
        return {
            "driver_volume_type": "gpfs",
            "serial": name,
            "data": {"device_path": path, "name": name},
        }

    def sizes(self) -> dict[str, int]:
        """MiB of each disk of the guest, as QEMU shows them to it."""
        domain = self.driver.node.domain(self.instance)
        targets = [node.get("dev", "") for node in domain.xml().iterfind("devices/disk/target")]
        return {name: domain.block_info(name)[0] // MIB for name in targets}

    def test_file_attach_extend_detach(self) -> None:
        self.spawn()
        volume = self.file_volume("one")
        self.driver.attach_volume(self.context, volume, self.instance, "/dev/vdb", "virtio")
        self.assertEqual(32, self.sizes()["vdb"])
        self.driver.extend_volume(self.context, volume, self.instance, 48 * MIB)
        self.assertEqual(48, self.sizes()["vdb"])
        # the guest's kernel agrees to let go: libvirt says so with an event
        self.driver.detach_volume(self.context, volume, self.instance, "/dev/vdb")
        self.assertNotIn("vdb", self.sizes())
        self.driver.detach_volume(self.context, volume, self.instance, "/dev/vdb")

    def test_swap(self) -> None:
        self.spawn()
        old, new = self.file_volume("old"), self.file_volume("new", 1024)
        with open(old["data"]["device_path"], "r+b") as file:
            file.write(b"what was there" * 1000)
        self.driver.attach_volume(self.context, old, self.instance, "/dev/vdb", "virtio")
        self.driver.swap_volume(self.context, old, new, self.instance, "/dev/vdb", 1)
        domain = self.driver.node.domain(self.instance)
        for inactive in (False, True):
            (disk,) = domain.xml(inactive=inactive).xpath("devices/disk[target[@dev='vdb']]")
            self.assertEqual(new["data"]["device_path"], disk.find("source").get("file"))
        with open(new["data"]["device_path"], "rb") as file:
            self.assertTrue(file.read(100).startswith(b"what was there"))
        # a copy that cannot be made leaves the guest as it was
        missing = self.file_volume("missing")
        os.unlink(missing["data"]["device_path"])
        with self.assertRaises(Exception):  # noqa: B017 whatever libvirt says
            self.driver.swap_volume(self.context, new, missing, self.instance, "/dev/vdb", 0)
        self.assertEqual(1024, self.sizes()["vdb"])
        self.driver.detach_volume(self.context, new, self.instance, "/dev/vdb")
        self.driver.power_off(self.instance)
        with self.assertRaises(nova_exception.NovaException):
            self.driver.swap_volume(self.context, new, old, self.instance, "/dev/vdb", 0)

    def test_attached_while_off(self) -> None:
        self.spawn()
        self.driver.power_off(self.instance)
        volume = self.file_volume("cold")
        self.driver.attach_volume(self.context, volume, self.instance, "/dev/vdb", "virtio")
        info = {
            "root_device_name": "/dev/vda",
            "block_device_mapping": [
                {
                    "mount_device": "/dev/vdb",
                    "connection_info": volume,
                    "boot_index": None,
                    "disk_bus": "virtio",
                    "device_type": "disk",
                }
            ],
        }
        self.driver.power_on(self.context, self.instance, self.network_info, info)
        self.wait_for_boot(2)
        self.assertEqual(32, self.sizes()["vdb"])

    def test_boot_from_volume(self) -> None:
        path = os.path.join(self.root, "root")
        subprocess.run(
            ["qemu-img", "convert", "-O", "raw", f"{GUEST}/guest.qcow2", path], check=True
        )
        volume = {
            "driver_volume_type": "gpfs",
            "serial": "root",
            "data": {"device_path": path, "name": "root"},
        }
        self.instance.image_ref = ""
        self.spawn(
            {
                "root_device_name": "/dev/vda",
                "block_device_mapping": [
                    {
                        "mount_device": "/dev/vda",
                        "connection_info": volume,
                        "boot_index": 0,
                        "disk_bus": "virtio",
                        "device_type": "disk",
                    }
                ],
            }
        )
        files = os.listdir(self.driver.node.layout(self.instance).directory)
        self.assertNotIn("disk", files)

    def test_share(self) -> None:
        """Two volumes of one NFS share, which leaves the host with the second."""
        self.stand_in_for_nfs()
        exported = os.path.join(self.root, "exported")
        os.mkdir(exported)
        volumes = [self.volume_of_share(exported, name) for name in ("one", "two")]
        self.spawn()
        for volume, device in zip(volumes, ("/dev/vdb", "/dev/vdc"), strict=True):
            self.driver.attach_volume(self.context, volume, self.instance, device, "virtio")
        self.assertLessEqual({"vdb": 16, "vdc": 16}.items(), self.sizes().items())
        mount_point = os.path.dirname(volumes[0]["data"]["device_path"])
        self.assertTrue(os.path.ismount(mount_point))
        self.driver.detach_volume(self.context, volumes[0], self.instance, "/dev/vdb")
        self.assertTrue(os.path.ismount(mount_point))
        # a nova-compute that was started meanwhile
        node = dataclasses.replace(self.driver.node, shares=Shares())
        self.driver.node = node
        self.driver.attach_volume(self.context, volumes[0], self.instance, "/dev/vdb", "virtio")
        self.driver.detach_volume(self.context, volumes[0], self.instance, "/dev/vdb")
        self.assertTrue(os.path.ismount(mount_point))
        self.driver.detach_volume(self.context, volumes[1], self.instance, "/dev/vdc")
        self.assertEqual([], os.listdir(os.path.dirname(mount_point)))

    def test_share_that_cannot_be_mounted(self) -> None:
        self.stand_in_for_nfs()
        volume = self.volume_of_share(self.root, "one")
        volume["data"]["export"] += "/missing"
        self.spawn(wait=False)
        with self.assertRaises(brick_exception.BrickException):
            self.driver.attach_volume(self.context, volume, self.instance, "/dev/vdb", "virtio")
        self.assertEqual([], os.listdir(os.path.join(self.root, "mounts")))
        self.assertNotIn("vdb", self.sizes())

    def stand_in_for_nfs(self) -> None:
        """A client of NFS in user space, and privileged functions in this process."""
        commands = os.path.join(self.root, "commands")
        stand_ins.write(commands)
        path = f"{commands}:{os.environ['PATH']}"
        self.useFixture(fixtures.EnvironmentVariable("PATH", path))
        self.stub_out(f"{RemoteFsConnector.__module__}.RemoteFsConnector.connect_volume", MOUNT)
        self.flags(group="libvirt", nfs_mount_point_base=os.path.join(self.root, "mounts"))
        for privileged in (nova.privsep.sys_admin_pctxt, os_brick.privileged.default):
            privileged.set_client_mode(False)
            self.addCleanup(privileged.set_client_mode, True)

    def volume_of_share(self, exported: str, name: str) -> dict[str, Any]:
        with open(os.path.join(exported, name), "wb") as file:
            file.truncate(16 * MIB)
        return {
            "driver_volume_type": "nfs",
            "serial": str(uuid.uuid4()),
            "data": {"export": f"storage:{exported}", "name": name, "options": None},
        }

    def test_network(self) -> None:
        path = os.path.join(self.root, "exported")
        with open(path, "wb") as file:
            file.truncate(24 * MIB)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = subprocess.Popen(
            ["qemu-nbd", "-f", "raw", "-x", "export", "-b", "127.0.0.1", "-p", str(port), path]
        )
        self.addCleanup(server.wait)
        self.addCleanup(server.terminate)
        namespace.wait_for(lambda: _listens(port), 10)
        volume = {
            "driver_volume_type": "nbd",
            "serial": "net",
            "data": {"name": "export", "hosts": ["127.0.0.1"], "ports": [str(port)]},
        }
        self.spawn()
        self.driver.attach_volume(self.context, volume, self.instance, "/dev/vdb", "virtio")
        self.assertEqual(24, self.sizes()["vdb"])
        self.driver.detach_volume(self.context, volume, self.instance, "/dev/vdb")
        self.assertNotIn("vdb", self.sizes())


def _listens(port: int) -> bool:
    found = subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, check=True).stdout
    return re.search(rf":{port}\b", found) is not None
