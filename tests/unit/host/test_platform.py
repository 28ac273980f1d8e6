import unittest
from unittest import mock

from kvmdriver import exception
from kvmdriver.host import platform
from kvmdriver.hypervisor.capabilities import DomainCapabilities, HostCapabilities
from kvmdriver.model import Boot
from tests.unit.hypervisor.test_capabilities import DOMAIN, HOST


class PlatformTest(unittest.TestCase):
    def setUp(self) -> None:
        self.capabilities = DomainCapabilities.parse(DOMAIN)
        self.hypervisor = mock.Mock()
        self.hypervisor.host_capabilities.return_value = HostCapabilities.parse(
            HOST.replace("<domain type='kvm'/>", "")
        )

    def test_kvm_that_cannot_be_had(self) -> None:
        with self.assertRaises(exception.Unsupported) as caught:
            platform.choose_virt_type(self.hypervisor, "kvm", fallback=False)
        self.assertEqual(("virt_type", "kvm"), (caught.exception.field, caught.exception.value))
        self.assertIn("fallback_to_qemu", caught.exception.remedy)
        with self.assertLogs("kvmdriver.host.platform", "WARNING"):
            self.assertEqual(
                "qemu", platform.choose_virt_type(self.hypervisor, "kvm", fallback=True)
            )

    def test_machines_are_pinned_to_their_version(self) -> None:
        self.assertEqual("pc-q35-7.2", platform.choose_machine(self.hypervisor, "q35"))
        with self.assertRaises(exception.Unsupported) as caught:
            platform.choose_machine(self.hypervisor, "s390")
        self.assertIn("q35", caught.exception.remedy)

    def test_firmware(self) -> None:
        platform.check_firmware(Boot(firmware="uefi", secure_boot=True), self.capabilities)
        without = DomainCapabilities.parse(DOMAIN.replace("<value>efi</value>", ""))
        with self.assertRaises(exception.Unsupported):
            platform.check_firmware(Boot(firmware="uefi"), without)
