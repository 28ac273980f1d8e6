"""Shares stay mounted while a server of the host uses one of their volumes."""

import os
import tempfile
import unittest
from unittest import mock

from oslo_concurrency import processutils

from kvmdriver.nova.shares import Shares


class SharesTest(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.mount_point = os.path.join(scratch.name, "share")
        self.mounted: set[str] = set()
        for name, replacement in (
            ("kvmdriver.nova.shares._is_mounted", self.mounted.__contains__),
            ("nova.privsep.fs.umount", self.mounted.remove),
        ):
            patch = mock.patch(name, side_effect=replacement)
            self.addCleanup(patch.stop)
            patch.start()
        self.hypervisor = mock.Mock()
        self.hypervisor.disk_files.return_value = {}
        self.shares = Shares()

    def enter(self, uuid: str, volume: str, error: BaseException | None = None) -> None:
        with self.shares.used(self.hypervisor, self.mount_point, (uuid, volume)):
            os.makedirs(self.mount_point, exist_ok=True)
            if error:
                raise error
            self.mounted.add(self.mount_point)

    def leave(self, uuid: str, volume: str) -> None:
        self.shares.leave(self.hypervisor, self.mount_point, (uuid, volume))

    def test_the_last_user_unmounts(self) -> None:
        self.enter("first", "one")
        self.enter("first", "one")
        self.enter("first", "two")
        self.enter("second", "two")
        for user in (("first", "one"), ("first", "two")):
            self.leave(*user)
            self.assertIn(self.mount_point, self.mounted)
        self.leave("second", "two")
        self.assertEqual(set(), self.mounted)
        self.assertFalse(os.path.exists(self.mount_point))
        # nova disconnects a volume twice now and then
        self.leave("second", "two")

    def test_servers_from_before_the_start_are_users(self) -> None:
        os.mkdir(self.mount_point)
        self.mounted.add(self.mount_point)
        self.hypervisor.disk_files.return_value = {
            "first": {("one", f"{self.mount_point}/volume-one"), ("", "/var/lib/nova/disk")},
            "second": {("two", f"{self.mount_point}-of-others/volume-two")},
        }
        self.enter("third", "three")
        self.leave("third", "three")
        self.assertIn(self.mount_point, self.mounted)
        self.leave("first", "one")
        self.assertEqual(set(), self.mounted)

    def test_a_share_that_cannot_be_mounted_has_no_user(self) -> None:
        with self.assertRaises(OSError):
            self.enter("first", "one", OSError("no route to host"))
        self.assertFalse(os.path.exists(self.mount_point))
        self.enter("second", "two")
        # a second connection that fails takes nothing from those that are there
        with self.assertRaises(OSError):
            self.enter("second", "two", OSError("no route to host"))
        self.assertIn(self.mount_point, self.mounted)
        self.leave("second", "two")
        self.assertEqual(set(), self.mounted)

    def test_a_share_that_somebody_else_uses_stays(self) -> None:
        self.enter("first", "one")
        busy = processutils.ProcessExecutionError(stderr="target is busy")
        with (
            mock.patch("nova.privsep.fs.umount", side_effect=busy),
            self.assertLogs("kvmdriver.nova.shares", "WARNING") as logs,
        ):
            self.leave("first", "one")
        self.assertIn("target is busy", logs.output[0])
        self.assertTrue(os.path.exists(self.mount_point))
        # the next server finds the share, and is the last one
        self.enter("second", "two")
        self.leave("second", "two")
        self.assertFalse(os.path.exists(self.mount_point))
