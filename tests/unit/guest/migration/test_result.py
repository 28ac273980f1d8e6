"""What libvirt answers to a migration, in the terms of the driver."""

import unittest
from unittest import mock

from kvmdriver import exception
from kvmdriver.guest.migration.result import migration_result


class ResultTest(unittest.TestCase):
    def raised(self, error: exception.KVMDriverError) -> BaseException:
        pending = mock.Mock()
        pending.result.side_effect = error
        with self.assertRaises(exception.KVMDriverError) as caught:
            migration_result(pending)
        return caught.exception

    def test_success_raises_nothing(self) -> None:
        migration_result(mock.Mock())

    def test_an_abortion_and_a_lost_libvirtd_stay_what_they_are(self) -> None:
        for error in (
            exception.MigrationAborted("aborted", instance="web"),
            exception.HypervisorUnavailable("libvirtd has gone"),
        ):
            self.assertIs(error, self.raised(error))

    def test_any_other_error_is_a_failed_migration(self) -> None:
        error = exception.HypervisorError("no route to host", instance="web", remedy="look at it")
        raised = self.raised(error)
        self.assertIsInstance(raised, exception.MigrationFailed)
        self.assertEqual(
            ("no route to host", "web", "look at it"),
            (raised.message, raised.instance, raised.remedy),
        )
