import os
import pathlib
import shutil
import tempfile
import unittest
from unittest import mock

from kvmdriver import exception
from kvmdriver.host import pci


class PciTest(unittest.TestCase):
    """On a made-up tree: this has a card with SR-IOV, which test machines have not."""

    def setUp(self) -> None:
        self.root = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        patch = mock.patch.object(pci, "_PCI", str(self.root))
        patch.start()
        self.addCleanup(patch.stop)
        self.make("0000:00:01.0", vendor="0x8086", device="0x7000", numa_node="-1")
        self.make(
            "0000:81:00.0", vendor="0x8086", device="0x1572", numa_node="1", sriov_totalvfs="64"
        )
        (self.root / "0000:81:00.0/net/ens1").mkdir(parents=True)
        for number in (0, 1):
            address = f"0000:81:02.{number}"
            self.make(address, vendor="0x8086", device="0x154c", numa_node="1")
            os.symlink("../0000:81:00.0", self.root / address / "physfn")
            os.symlink(f"../{address}", self.root / f"0000:81:00.0/virtfn{number}")
        (self.root / "0000:81:02.1/vdpa0/vhost-vdpa-3").mkdir(parents=True)

    def make(self, address: str, **files: str) -> None:
        (self.root / address).mkdir()
        for name, text in files.items():
            (self.root / address / name).write_text(text + "\n")

    def test_devices(self) -> None:
        plain, card, virtual, vdpa = pci.devices()
        self.assertEqual(
            ("0000:00:01.0", "8086", "7000", "standard", None),
            (plain.address, plain.vendor, plain.product, plain.kind, plain.numa_node),
        )
        self.assertEqual(("physical", 1, None), (card.kind, card.numa_node, card.parent))
        self.assertEqual(
            ("virtual", "0000:81:00.0", "ens1"),
            (virtual.kind, virtual.parent, virtual.parent_interface),
        )
        self.assertEqual("vdpa", vdpa.kind)

    def test_parents_and_paths(self) -> None:
        self.assertEqual(("ens1", 1), pci.physical_function("0000:81:02.1"))
        self.assertEqual("ens1", pci.interface_of("0000:81:00.0"))
        self.assertEqual("/dev/vhost-vdpa-3", pci.vdpa_path("0000:81:02.1"))
        for function in (pci.physical_function, pci.interface_of, pci.vdpa_path):
            with self.assertRaises(exception.DeviceNotFound):
                function("0000:00:01.0")
