import unittest
from unittest import mock

from kvmdriver import exception
from kvmdriver.model import Nic
from kvmdriver.network import check


class CheckTest(unittest.TestCase):
    def setUp(self) -> None:
        self.hypervisor = mock.Mock()
        self.hypervisor.connection.embedded = False
        self.hypervisor.networks.return_value = {"default": True, "idle": False}

    def refused(self, **nic: object) -> exception.NetworkNotFound:
        with self.assertRaises(exception.NetworkNotFound) as caught:
            check.check(Nic.parse(nic), self.hypervisor, field="nics.3")
        self.assertEqual("nics.3.source", caught.exception.field)
        return caught.exception

    def test_networks(self) -> None:
        check.check(Nic(source="default"), self.hypervisor, field="nics.0")
        self.assertIn("net-start idle", self.refused(source="idle").remedy)
        self.assertIn("default, idle", self.refused(source="nowhere").remedy)

    def test_the_embedded_driver_has_none(self) -> None:
        self.hypervisor.connection.embedded = True
        self.assertIn("start libvirtd", self.refused(source="default").remedy)

    def test_bridges(self) -> None:
        self.assertIn("ip link add", self.refused(type="bridge", source="nonexistent0").remedy)
        with mock.patch("os.path.isdir", return_value=True):
            check.check(Nic(type="bridge", source="br0"), self.hypervisor, field="nics.0")

    def test_user_networking_needs_nothing(self) -> None:
        check.check(Nic(type="user"), self.hypervisor, field="nics.0")
        self.assertEqual([], self.hypervisor.mock_calls)
