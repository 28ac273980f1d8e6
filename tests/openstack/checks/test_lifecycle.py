"""The life of a server as its owner and its operator see it."""

import json
import os
from typing import Any

from lxml import etree

from tests.openstack.checks.base import PATHS, Failed, StackTest, act, openstack, run, wait_for
from tests.openstack.checks.consoles import ConsoleTest
from tests.openstack.paths import FIRST


class LifecycleTest(StackTest):
    def test_power(self) -> None:
        server = self.create("power")
        wait_for(
            lambda: "GUEST: up" in run("openstack", "console", "log", "show", "power"),
            60,
            "the boot on the console",
        )
        guest = self.reach("power")
        self.assertEqual("power", guest.run("hostname"))
        self.assertTrue(190 < guest.memory_mib() <= 256, guest.memory_mib())
        first = guest.boot()
        guest.run("echo kept > /root/file; sync")

        act("server", "reboot", "--wait", "power")
        second = guest.wait().boot()
        self.assertNotEqual(first, second)
        act("server", "reboot", "--hard", "--wait", "power")
        third = guest.wait().boot()
        self.assertNotEqual(second, third)

        act("server", "pause", "power")
        self.wait_for_status("power", "PAUSED")
        self.assertFalse(guest.answers())
        act("server", "unpause", "power")
        self.wait_for_status("power", "ACTIVE")
        self.assertEqual(third, guest.wait().boot())

        act("server", "suspend", "power")
        self.wait_for_status("power", "SUSPENDED")
        act("server", "resume", "power")
        self.wait_for_status("power", "ACTIVE")
        self.assertEqual(third, guest.wait().boot())

        act("server", "stop", "power")
        self.wait_for_status("power", "SHUTOFF")
        # virtlogd writes what it was sent a moment after the guest is gone
        wait_for(lambda: "GUEST: down" in run("openstack", "console", "log", "show", "power"), 30)
        act("server", "start", "power")
        self.wait_for_status("power", "ACTIVE")
        self.assertNotEqual(third, guest.wait().boot())
        self.assertEqual("kept", guest.run("cat /root/file"))

        # what the guest does by itself reaches nova as an event
        guest.run("poweroff >/dev/null 2>&1 &")
        self.wait_for_status("power", "SHUTOFF", 60)
        act("server", "delete", "--wait", "power")
        self.assert_nothing_left(server)

    def test_images(self) -> None:
        server = self.create("images")
        guest = self.reach("images")
        guest.run("echo original > /root/file; sync")

        act("server", "rescue", "--image", "guest-alternative", "images")
        self.wait_for_status("images", "RESCUE")
        self.assertIn("vdb", guest.wait().disks_mib(), "the instance's own disk is the second")
        act("server", "unrescue", "images")
        self.wait_for_status("images", "ACTIVE")
        self.assertEqual("original", guest.wait().run("cat /root/file"))
        self.assertEqual(
            [], [n for n in os.listdir(f"{PATHS.instances}/{server['id']}") if "rescue" in n]
        )

        self.addCleanup(act, "image", "delete", "snapshot")
        boot = guest.boot()
        act("server", "image", "create", "--wait", "--name", "snapshot", "images")
        self.assertEqual(boot, guest.boot(), "a live snapshot leaves the guest running")
        copy = self.create("copy", "--image", "snapshot")
        self.assertEqual("original", self.reach("copy").run("cat /root/file"))
        act("server", "delete", "--wait", "copy")
        self.assert_nothing_left(copy)

        act("server", "rebuild", "--wait", "--image", "guest-alternative", "images")
        self.wait_for_status("images", "ACTIVE")
        self.assertEqual("", guest.wait().run("cat /root/file 2>/dev/null; true"))
        guest.run("echo shelved > /root/file; sync")
        self._shelve("images")
        self.assert_nothing_left(server)
        act("server", "unshelve", "--wait", "images")
        self.wait_for_status("images", "ACTIVE")
        self.assertEqual("shelved", guest.wait().run("cat /root/file"))
        act("server", "delete", "--wait", "images")
        self.assert_nothing_left(server)

    def _shelve(self, name: str) -> None:
        """Nova takes a shelved server off its host by itself: a second request for it would be late."""
        act("server", "shelve", name)
        self.wait_for_status(name, "SHELVED_OFFLOADED")

    def test_a_server_on_a_volume(self) -> None:
        volume = self.create_volume("root", "--image", "guest", "--size", "2")
        server = self.create("on-volume", "--volume", volume)
        guest = self.reach("on-volume")
        self.assertEqual(2048, guest.disks_mib()["vda"])
        guest.run("echo kept > /root/file; sync")
        root = etree.fromstring(run("virsh", "dumpxml", server["id"]))
        disk = root.find("devices/disk[serial]")
        self.assertEqual(
            (volume, "raw"), (disk.findtext("serial"), disk.find("driver").get("type"))
        )
        act("server", "reboot", "--hard", "--wait", "on-volume")
        self.assertEqual("kept", guest.wait().run("cat /root/file"))
        self._shelve("on-volume")
        self.assert_nothing_left(server)
        act("server", "unshelve", "--wait", "on-volume")
        self.wait_for_status("on-volume", "ACTIVE")
        self.assertEqual("kept", guest.wait().run("cat /root/file"))
        act("server", "delete", "--wait", "on-volume")
        self.wait_for_volume(volume, "available")
        self.assert_nothing_left(server)


class HardwareTest(ConsoleTest):
    """What flavors and operators give to servers; in a worker of its own."""

    def test_sizes_and_devices(self) -> None:
        server = self.create("sizes")
        guest = self.reach("sizes")
        guest.run("echo kept > /root/file; sync")
        self.assertEqual(1024, guest.disks_mib()["vda"])
        act("server", "resize", "--flavor", "large", "--wait", "sizes")
        self.wait_for_status("sizes", "VERIFY_RESIZE")
        self.assertEqual(2048, guest.wait().disks_mib()["vda"])
        self.assertEqual("2", guest.run("nproc"))
        act("server", "resize", "revert", "sizes")
        self.wait_for_status("sizes", "ACTIVE")
        self.assertEqual(1024, guest.wait().disks_mib()["vda"])
        act("server", "resize", "--flavor", "large", "--wait", "sizes")
        self.wait_for_status("sizes", "VERIFY_RESIZE")
        act("server", "resize", "confirm", "sizes")
        self.wait_for_status("sizes", "ACTIVE")
        self.assertTrue(300 < guest.wait().memory_mib() <= 384)
        self.assertEqual("kept", guest.run("cat /root/file"))
        self.assertFalse(os.path.exists(f"{PATHS.instances}/{server['id']}_resize"))
        self._check_openstackclient(server)

        before = len(self._macs(guest))
        # a network of its own without DHCP, so that the guest's routes stay as they are
        act("network", "create", "apart")
        self.addCleanup(act, "network", "delete", "apart")
        act("subnet", "create", "--network", "apart", "--no-dhcp", "--gateway", "none",
            "--subnet-range", "10.78.0.0/24", "apart")  # fmt: skip
        port = openstack("port", "create", "--network", "apart", "second")
        self.addCleanup(act, "port", "delete", "second")
        act("server", "add", "port", "sizes", "second")
        wait_for(lambda: port["mac_address"] in self._macs(guest), 30, "the interface")
        act("server", "remove", "port", "sizes", "second")
        wait_for(lambda: len(self._macs(guest)) == before, 30, "the interface to go")
        act("server", "delete", "--wait", "sizes")
        self.assert_nothing_left(server)

    def _check_openstackclient(self, server: dict[str, Any]) -> None:
        """``openstack kvm`` asks Nova's API about a server when no host is named."""
        shown = openstack("kvm", "server", "show", "sizes")
        self.assertEqual(
            (server["id"], "running", 384, 2, FIRST),
            tuple(shown[key] for key in ("uuid", "status", "memory_mib", "vcpus", "host")),
        )
        self.assertEqual(1, len(shown["nics"]))
        moved = openstack("kvm", "server", "migration", "show", "sizes")
        self.assertEqual(("cold", "completed"), (moved["kind"], moved["state"]))
        rows = openstack("kvm", "server", "migration", "list")
        own = [row["State"] for row in rows if row["Instance"] == "sizes"]
        self.assertEqual(["aborted", "completed"], own, "the first was reverted")
        with self.assertRaises(Failed) as caught:
            act("kvm", "server", "migration", "set", "sizes", "--downtime", "100")
        self.assertIn("code: unsupported", str(caught.exception))

    @staticmethod
    def _macs(guest) -> list[str]:
        return guest.run("cat /sys/class/net/*/address").split()

    def test_ephemeral_and_swap(self) -> None:
        server = self.create("extra", flavor="extra")
        guest = self.reach("extra")
        disks = guest.disks_mib()
        self.assertEqual((1024, 64), (disks["vdb"], disks["vdc"]))
        self.assertIn(
            "SWAPSPACE2", guest.run("dd if=/dev/vdc bs=4096 count=1 2>/dev/null | strings")
        )
        guest.run("mkdir -p /tmp/eph; mount -t ext4 /dev/vdb /tmp/eph; touch /tmp/eph/file")
        vnc = openstack("console", "url", "show", "--novnc", "extra")
        self.assertIn("token", vnc["url"])
        act("server", "delete", "--wait", "extra")
        self.assert_nothing_left(server)

    def test_consoles(self) -> None:
        self.check_consoles()

    def test_flavor_and_tags(self) -> None:
        """What a flavor asks for is in the domain; tags of devices are in the guest's metadata."""
        self.addCleanup(act, "flavor", "delete", "special")
        act(
            "flavor", "create", "--ram", "256", "--vcpus", "1", "--disk", "1",
            "--property", "hw:cpu_policy=dedicated",
            "--property", "hw:watchdog_action=reset",
            "--property", "hw_rng:rate_bytes=4096",
            "--property", "hw_rng:rate_period=100",
            "--property", "quota:disk_read_iops_sec=500",
            "special",
        )  # fmt: skip
        server = self.create("special", "--nic", "net-id=private,tag=front", flavor="special")
        guest = self.reach("special")
        root = etree.fromstring(run("virsh", "dumpxml", server["id"]))
        pins = [pin.get("cpuset") for pin in root.iterfind("cputune/vcpupin")]
        self.assertEqual(1, len(pins))
        self.assertRegex(pins[0], "^[0-9]+$")
        self.assertEqual(1, len(root.findall("cpu/numa/cell")))
        self.assertEqual("reset", root.find("devices/watchdog").get("action"))
        self.assertEqual("4096", root.find("devices/rng/rate").get("bytes"))
        self.assertEqual("500", root.findtext("devices/disk/iotune/read_iops_sec"))
        # Intel's 6300ESB, as the guest's own PCI bus shows it
        self.assertIn("0x25ab", guest.run("cat /sys/bus/pci/devices/*/device").split())
        guest.run("mkdir -p /tmp/config && mount -o ro /dev/sr0 /tmp/config")
        metadata = json.loads(guest.run("cat /tmp/config/openstack/latest/meta_data.json"))
        devices = [(device["type"], device["tags"]) for device in metadata["devices"]]
        self.assertEqual([("nic", ["front"])], devices)
        act("server", "delete", "--wait", "special")
        self.assert_nothing_left(server)

    def test_nested_virtualization(self) -> None:
        """A flavor with the trait gives a guest that runs guests; one without does not."""
        self.addCleanup(act, "flavor", "delete", "nested")
        act(
            "flavor", "create", "--ram", "256", "--vcpus", "1", "--disk", "1",
            "--property", "trait:HW_CPU_X86_SVM=required", "nested",
        )  # fmt: skip
        server = self.create("nested", flavor="nested")
        guest = self.reach("nested")
        guest.run("load-kvm")
        self.assertEqual("L2 runs", guest.run("l2"))
        act("server", "delete", "--wait", "nested")
        self.assert_nothing_left(server)
        plain = self.create("plain")
        guest = self.reach("plain")
        self.assertEqual("0", guest.run("grep -c svm /proc/cpuinfo || true"))
        act("server", "delete", "--wait", "plain")
        self.assert_nothing_left(plain)

    def test_from_server_to_server(self) -> None:
        volume = self.create_volume("wandering")
        first = self.create("first")
        guest = self.reach("first")
        self.attach("first", volume, guest)
        guest.write("vdb", "written by the first")
        act("server", "stop", "first")
        self.wait_for_status("first", "SHUTOFF")
        act("server", "start", "first")
        self.wait_for_status("first", "ACTIVE")
        self.assertEqual("written by the first", guest.wait().first_line("vdb"))
        self.detach("first", volume, guest)
        act("volume", "set", "--size", "2", volume)
        self.wait_for_volume(volume, "available")
        act("server", "delete", "--wait", "first")
        self.assert_nothing_left(first)

        second = self.create("second")
        guest = self.reach("second")
        self.attach("second", volume, guest)
        self.assertEqual(2048, guest.disks_mib()["vdb"])
        self.assertEqual("written by the first", guest.first_line("vdb"))
        act("server", "delete", "--wait", "second")
        self.wait_for_volume(volume, "available")
        self.assert_nothing_left(second)
