"""Devices leave the running and the persistent definition, each on its own."""

import unittest
from types import SimpleNamespace
from unittest import mock

from lxml import etree

from kvmdriver import exception
from kvmdriver.guest.devices import detach_device

PATH = "devices/disk[target[@dev='vdb']]"
WITH = "<domain><devices><disk><target dev='vdb'/><alias name='virtio-disk1'/></disk></devices></domain>"
WITHOUT = "<domain><devices/></domain>"


class DetachTest(unittest.TestCase):
    def setUp(self) -> None:
        self.hypervisor = mock.MagicMock()
        self.hypervisor.events.expect.return_value.__exit__.return_value = None
        self.gone = self.hypervisor.events.expect.return_value.__enter__.return_value
        self.domain = mock.Mock(uuid="u")
        self.domain.name = "web"
        self.live, self.config = WITH, WITH
        self.domain.xml.side_effect = lambda inactive=False: etree.fromstring(
            self.config if inactive else self.live
        )

    def detach(self) -> None:
        detach_device(self.hypervisor, self.domain, PATH, "disk vdb", attempts=2, seconds=1)

    def test_the_guest_releases_it(self) -> None:
        self.gone.wait.return_value = SimpleNamespace(kind="device-removed")
        self.detach()
        self.domain.detach_alias.assert_called_once_with("virtio-disk1")
        self.domain.detach.assert_called_once_with(mock.ANY, live=False, config=True)

    def test_the_guest_keeps_it(self) -> None:
        self.gone.wait.return_value = None
        with self.assertRaises(exception.OperationTimeout) as caught:
            self.detach()
        self.assertIn("disk vdb", caught.exception.message)
        self.assertEqual(2, self.domain.detach_alias.call_count)
        # what the guest keeps stays in the persistent definition, too
        self.domain.detach.assert_not_called()

    def test_the_guest_refuses_and_then_agrees(self) -> None:
        self.gone.wait.side_effect = [
            SimpleNamespace(kind="device-removal-failed"),
            SimpleNamespace(kind="device-removed"),
        ]
        self.detach()
        self.assertEqual(2, self.domain.detach_alias.call_count)

    def test_an_event_that_was_lost(self) -> None:
        def release(_alias: str) -> None:
            self.live = WITHOUT

        self.gone.wait.return_value = None
        self.domain.detach_alias.side_effect = release
        self.detach()
        self.assertEqual(1, self.domain.detach_alias.call_count)

    def test_each_definition_on_its_own(self) -> None:
        self.live = WITHOUT
        self.detach()
        self.domain.detach_alias.assert_not_called()
        self.domain.detach.assert_called_once()
        self.live, self.config = WITH, WITHOUT
        self.gone.wait.return_value = SimpleNamespace(kind="device-removed")
        self.domain.detach.reset_mock()
        self.detach()
        self.domain.detach.assert_not_called()

    def test_a_guest_that_is_off_is_not_asked(self) -> None:
        self.domain.is_active.return_value = False
        self.detach()
        self.domain.detach_alias.assert_not_called()
        self.domain.detach.assert_called_once()
