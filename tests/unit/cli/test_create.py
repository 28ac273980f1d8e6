import argparse
import unittest
from unittest import mock

from kvmdriver.cli.create import CreateServer, _request
from kvmdriver.model import Instance


class CreateTest(unittest.TestCase):
    def instance(self, *arguments: str) -> Instance:
        parser = CreateServer(mock.Mock(), None, cmd_name="server create").get_parser("create")
        self.assertIsInstance(parser, argparse.ArgumentParser)
        return Instance.parse(_request(parser.parse_args(["web", *arguments])))

    def test_image(self) -> None:
        instance = self.instance(
            "--image", "/a.qcow2", "--size", "10G", "--memory", "256:512", "--vcpus", "1:2",
            "--os", "debian11", "--network", "default", "--network", "bridge=br0", "--disk", "1G",
        )  # fmt: skip
        self.assertEqual((10240, 1024), tuple(disk.size_mib for disk in instance.disks))
        self.assertEqual(("default", "br0"), tuple(nic.source for nic in instance.nics))
        self.assertEqual((256, 512), (instance.memory.current_mib, instance.memory.maximum_mib))
        self.assertIsNone(instance.config_drive)
        self.assertIsNone(instance.rng)

    def test_installer(self) -> None:
        instance = self.instance("--cdrom", "/a.iso", "--disk", "20G", "--firmware", "uefi")
        self.assertEqual(["disk", "cdrom"], [disk.device for disk in instance.disks])
        self.assertIsNone(instance.memory)
        self.assertEqual("uefi", instance.boot.firmware)

    def test_kernel(self) -> None:
        instance = self.instance("--kernel", "/k", "--initrd", "/i", "--cmdline", "console=ttyS0")
        self.assertEqual(("/k", "/i"), (instance.boot.kernel.path, instance.boot.initrd.path))

    def test_config_drive(self) -> None:
        instance = self.instance(
            "--image",
            "/a",
            "--network",
            "default",
            "--hostname",
            "h",
            "--address",
            "192.0.2.2/24,192.0.2.1",
        )
        drive = instance.config_drive
        self.assertEqual(("h", "192.0.2.1"), (drive.hostname, drive.addresses[0].gateway))

    def test_hotplug_and_cpu(self) -> None:
        instance = self.instance(
            "--image", "/a", "--memory", "512:1G", "--memory-growth", "hotplug",
            "--cpu", "host-model,+svm", "--topology", "1:2:1", "--vcpus", "2",
        )  # fmt: skip
        self.assertEqual("hotplug", instance.memory.growth)
        self.assertEqual("svm", instance.cpu.features[0].name)
        self.assertEqual(2, instance.cpu.topology.cores)
