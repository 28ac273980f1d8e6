"""A snapshot that Cinder asks Nova for is refused, and Cinder does not wait for it."""

import unittest
from unittest import mock

from nova import exception as nova_exception

from kvmdriver.nova import driver
from tests.unit.nova import objects as made

VOLUME = "3b4f0e6a-93c5-4f0c-9d0a-0b7f3c1b2a44"
SNAPSHOT = "4b4f0e6a-93c5-4f0c-9d0a-0b7f3c1b2a44"


class VolumeSnapshotsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.driver = object.__new__(driver.NovaDriver)
        cinder = mock.patch("kvmdriver.nova.volume_snapshots.cinder.API").start()
        self.addCleanup(mock.patch.stopall)
        self.tell = cinder.return_value.update_snapshot_status
        self.context = mock.sentinel.context

    def create(self) -> str:
        info = {"snapshot_id": SNAPSHOT, "type": "qcow2", "new_file": "volume.snap"}
        with self.assertRaises(nova_exception.Invalid) as caught:
            self.driver.volume_snapshot_create(self.context, made.instance(), VOLUME, info)
        return str(caught.exception)

    def test_create(self) -> None:
        said = self.create()
        self.tell.assert_called_once_with(self.context, SNAPSHOT, "error")
        for part in (VOLUME, made.UUID, "detach the volume, then make the snapshot"):
            self.assertIn(part, said)

    def test_delete(self) -> None:
        with self.assertRaisesRegex(nova_exception.Invalid, "does not remove snapshots"):
            self.driver.volume_snapshot_delete(
                self.context, made.instance(), VOLUME, SNAPSHOT, {"volume_id": VOLUME}
            )
        self.tell.assert_called_once_with(self.context, SNAPSHOT, "error_deleting")

    def test_cinder_is_away(self) -> None:
        self.tell.side_effect = nova_exception.CinderConnectionFailed(reason="refused")
        with self.assertLogs("kvmdriver.nova.volume_snapshots", "ERROR") as logs:
            self.assertIn(VOLUME, self.create())
        self.assertIn(SNAPSHOT, logs.output[0])
