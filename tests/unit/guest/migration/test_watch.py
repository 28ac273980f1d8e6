"""What is done about a migration that does not get on."""

import unittest
from unittest import mock

from kvmdriver import exception
from kvmdriver.guest.migration import watch


class StuckTest(unittest.TestCase):
    def setUp(self) -> None:
        self.now = 1000.0
        clock = mock.patch.object(watch.time, "monotonic", lambda: self.now)
        clock.start()
        self.addCleanup(clock.stop)
        self.domain = mock.Mock()
        self.watch = watch.Watch(
            mock.MagicMock(),
            self.domain,
            mock.MagicMock(decisions=()),
            mock.MagicMock(),
            mock.Mock(),
        )
        self.watch.seen = mock.Mock(post_copy=False)

    def test_it_is_given_up_once_and_libvirt_in_the_end(self) -> None:
        self.watch.end_if_stuck()
        self.assertEqual([], self.domain.method_calls)
        self.now += 31
        # a job that libvirt has given up already cannot be aborted; QEMU may not have heard of it
        self.domain.abort_job.side_effect = exception.InvalidState("no job")
        self.watch.end_if_stuck()
        self.watch.end_if_stuck()
        self.assertEqual(
            [mock.call.abort_job(), mock.call.wake_cancelled_migration()], self.domain.method_calls
        )
        self.now += 31
        with self.assertRaises(exception.MigrationFailed):
            self.watch.end_if_stuck()

    def test_post_copy_cannot_be_given_up(self) -> None:
        self.watch.seen = mock.Mock(post_copy=True)
        self.now += 100
        self.watch.end_if_stuck()
        self.assertEqual([], self.domain.method_calls)

    def test_a_guest_that_has_left_is_no_reason_for_a_warning(self) -> None:
        for error in (exception.InvalidState("no job"), exception.InstanceNotFound("no domain")):
            self.domain.migration_progress.side_effect = error
            with self.assertNoLogs("kvmdriver", "WARNING"):
                self.watch.look()
