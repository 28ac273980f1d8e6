"""The console log of an agent that is not root."""

import unittest
from unittest import mock

from oslo_privsep.daemon import FailedToDropPrivileges

from kvmdriver import exception, privsep
from kvmdriver.guest import console
from kvmdriver.model.layout import InstanceLayout

LAYOUT = InstanceLayout("/instances", "0a1b2c3d-0000-4000-8000-000000000001")


class LogTest(unittest.TestCase):
    def read(self, *answers: bytes | Exception) -> bytes:
        with mock.patch.object(privsep, "read_tail", side_effect=answers):
            return console.read_log(LAYOUT, 100)

    def test_older_files_come_first(self) -> None:
        self.assertEqual(b"one two", self.read(b"two", b"one ", FileNotFoundError()))

    def test_a_guest_that_has_written_nothing(self) -> None:
        self.assertEqual(b"", self.read(FileNotFoundError(), FileNotFoundError()))

    def test_a_log_that_only_root_reads_is_a_typed_error_with_a_remedy(self) -> None:
        for error in (
            PermissionError(f"{LAYOUT.console_log} is not the console log of an instance"),
            FailedToDropPrivileges("privsep helper command exited non-zero (1)"),
        ):
            with self.assertRaises(exception.StorageError) as caught:
                self.read(error)
            self.assertIn(str(error), caught.exception.message)
            self.assertEqual(LAYOUT.console_log, caught.exception.value)
            self.assertIn("privsep-helper", caught.exception.remedy)
