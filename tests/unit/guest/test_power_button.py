"""The driver asks a guest to shut down or to reboot, until the event of the guest comes."""

import unittest
from types import SimpleNamespace
from typing import Any
from unittest import mock

from kvmdriver import exception
from kvmdriver.guest.power_button import shut_down


class PowerButtonTest(unittest.TestCase):
    def setUp(self) -> None:
        self.hypervisor = mock.MagicMock()
        self.expected = self.hypervisor.events.expect.return_value.__enter__.return_value
        self.hypervisor.events.expect.return_value.__exit__.return_value = None
        self.hypervisor.connection.within.return_value.__exit__.return_value = None
        self.domain = mock.Mock(uuid="u")
        self.domain.is_active.return_value = True

    def ask(self, kind: str, press: Any, seconds: float = 60) -> bool:
        return shut_down(self.hypervisor, self.domain, seconds, kind, press)

    def test_a_press_that_is_lost_is_repeated(self) -> None:
        self.expected.wait.side_effect = [None, SimpleNamespace(kind="stopped")]
        press = mock.Mock()
        self.assertTrue(self.ask("stopped", press))
        self.assertEqual(2, press.call_count)

    def test_a_guest_that_went_off_did_not_reboot(self) -> None:
        self.expected.wait.return_value = SimpleNamespace(kind="stopped")
        self.assertFalse(self.ask("rebooted", mock.Mock()))

    def test_a_guest_that_is_off_needs_no_event(self) -> None:
        self.expected.wait.return_value = None
        self.domain.is_active.return_value = False
        self.assertTrue(self.ask("stopped", mock.Mock()))

    def test_no_time_no_press(self) -> None:
        press = mock.Mock()
        self.assertFalse(self.ask("stopped", press, seconds=0))
        press.assert_not_called()

    def test_a_qemu_that_does_not_answer(self) -> None:
        press = mock.Mock(side_effect=exception.InstanceUnresponsive("no answer"))
        self.assertFalse(self.ask("stopped", press))

    def test_a_guest_that_has_just_gone_off(self) -> None:
        press = mock.Mock(side_effect=exception.InvalidState("not running"))
        self.domain.is_active.return_value = False
        self.assertTrue(self.ask("stopped", press))
        self.assertFalse(self.ask("rebooted", press))

    def test_libvirtd_that_comes_back(self) -> None:
        press = mock.Mock(side_effect=exception.HypervisorUnavailable("gone"))
        again = self.hypervisor.domain.return_value
        self.expected.wait.return_value = SimpleNamespace(kind="stopped")
        self.assertTrue(self.ask("stopped", press))
        again.press_power_button.assert_called_once_with()
