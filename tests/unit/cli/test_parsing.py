import unittest

from kvmdriver import exception
from kvmdriver.cli import parsing
from kvmdriver.model import Cpu, Disk, Nic


class ParsingTest(unittest.TestCase):
    def test_sizes(self) -> None:
        for text, mib in (
            ("512", 512),
            ("512M", 512),
            ("2G", 2048),
            ("1.5GiB", 1536),
            ("1T", 1 << 20),
        ):
            self.assertEqual(mib, parsing.mebibytes(text))
        for text in ("x", "1.3", "-1", "", "G"):
            with self.assertRaises(ValueError):
                parsing.mebibytes(text)

    def test_now_and_at_most(self) -> None:
        self.assertEqual({"current_mib": 1024, "maximum_mib": 2048}, parsing.memory("1024:2G"))
        self.assertEqual({"current": 1}, parsing.vcpus("1"))
        self.assertEqual({"current": 1, "maximum": 2}, parsing.vcpus("1:2"))

    def test_cpus(self) -> None:
        Cpu.parse(parsing.cpu("host-model,+svm"))
        cpu = Cpu.parse(parsing.cpu("EPYC,qemu64,+svm,-la57"))
        self.assertEqual(("custom", ("EPYC", "qemu64")), (cpu.mode, cpu.models))
        self.assertEqual(["require", "disable"], [f.policy for f in cpu.features])
        self.assertIsNone(Cpu.parse(parsing.cpu("+svm")).mode)

    def test_disks(self) -> None:
        self.assertEqual({"size_mib": 10240}, parsing.disk("10G"))
        disk = Disk.parse(
            parsing.disk("size=1G,bus=scsi,cache=none,discard=yes,total_iops_sec=100,name=sda")
        )
        self.assertEqual((1024, "scsi", True), (disk.size_mib, disk.bus, disk.discard))
        self.assertEqual(100, disk.limits.total_iops_sec)
        self.assertEqual("cdrom", Disk.parse(parsing.disk("image=/a.iso,device=cdrom")).device)

    def test_nics(self) -> None:
        self.assertEqual(Nic(source="default"), Nic.parse(parsing.nic("default")))
        self.assertEqual("br0", Nic.parse(parsing.nic("bridge=br0,model=e1000,mtu=1400")).source)
        self.assertEqual("user", Nic.parse(parsing.nic("user")).type)
        with self.assertRaises(ValueError):
            parsing.nic("tap=x")

    def test_images(self) -> None:
        self.assertTrue(parsing.image("a.qcow2")["path"].startswith("/"))
        url = parsing.image("https://host/a.qcow2#sha256:" + "0" * 64)
        self.assertEqual("https://host/a.qcow2", url["url"])
        with self.assertRaises(exception.InvalidRequest) as caught:
            parsing.image("https://host/a.qcow2")
        self.assertIn("sha256", caught.exception.remedy)
