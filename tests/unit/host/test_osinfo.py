"""Against the real libosinfo and its database: what it says is what matters."""

import unittest

from kvmdriver import exception
from kvmdriver.host.osinfo import UNKNOWN_OS, OsDatabase


class OsInfoTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.systems = OsDatabase()

    def test_linux(self) -> None:
        for name in ("debian10", "centos7.0", "ubuntu18.04"):
            found = self.systems.defaults(name)
            self.assertEqual(
                ("virtio", "virtio", "scsi"), (found.disk_bus, found.nic_model, found.cdrom_bus)
            )
            self.assertEqual("utc", found.clock)
            self.assertGreater(found.minimum_memory_mib, 0)

    def test_windows(self) -> None:
        found = self.systems.defaults("win10")
        self.assertEqual(
            ("sata", "e1000e", "localtime"), (found.disk_bus, found.nic_model, found.clock)
        )
        self.assertIsNone(found.cdrom_bus)
        self.assertFalse(found.rng)
        self.assertEqual(2048, found.minimum_memory_mib)

    def test_none(self) -> None:
        self.assertIs(UNKNOWN_OS, self.systems.defaults(None))

    def test_the_nearest_names_are_suggested(self) -> None:
        for wrong, right in (
            ("debain11", "debian11"),
            ("ubuntu1804", "ubuntu18.04"),
            ("centos7", "centos7.0"),
        ):
            with self.assertRaises(exception.InvalidRequest) as caught:
                self.systems.defaults(wrong)
            self.assertEqual("os_variant", caught.exception.field)
            self.assertIn(right, caught.exception.remedy)

    def test_search(self) -> None:
        found = self.systems.search("CentOS 7")
        self.assertEqual(["centos7.0"], [view.short_id for view in found])
        self.assertGreater(len(self.systems.search()), 500)
        self.assertEqual([], self.systems.search("no such thing"))
