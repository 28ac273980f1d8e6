"""Whether a guest that may run virtual machines itself can be saved or moved."""

import unittest
from unittest import mock

from oslo_privsep.daemon import FailedToDropPrivileges

from kvmdriver import exception, privsep
from kvmdriver.guest.nested import require_movable
from kvmdriver.hypervisor import xml


class RequireMovableTest(unittest.TestCase):
    def setUp(self) -> None:
        self.domain = mock.Mock()
        self.domain.name = "web"
        self.domain.xml.return_value = xml.parse("<domain type='kvm'/>")
        self.conf = mock.Mock()
        host = mock.patch("kvmdriver.guest.nested.NestedHost").start()
        self.addCleanup(mock.patch.stopall)
        host.return_value.view.return_value = mock.Mock(nested=True, vendor="AMD", kernel="6.1.0")

    def check(self, policy: str, **pid: object) -> None:
        self.conf.kvm_nested.running_l2 = policy
        with (
            mock.patch.object(privsep, "qemu_pid", **pid),
            mock.patch.object(privsep, "entered_l2", return_value=True),
        ):
            require_movable(self.conf, self.domain, "suspend")

    def test_a_guest_with_guests_of_its_own(self) -> None:
        with self.assertRaises(exception.InvalidState):
            self.check("refuse", return_value=1)
        self.check("allow", return_value=1)

    def test_no_privileged_process(self) -> None:
        """The operator is told; the policy for guests that cannot be looked into decides."""
        with self.assertLogs("kvmdriver.guest.nested", "WARNING") as logs:
            self.check("warn", side_effect=FailedToDropPrivileges("failed to start"))
        self.assertIn("kvmdriver.filters", logs.output[0])
