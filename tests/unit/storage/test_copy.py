import errno
import os
import tempfile
import unittest
from unittest import mock

from kvmdriver import exception
from kvmdriver.storage.copy import copy_file, write_error


class CopyTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.source = os.path.join(directory.name, "source")
        self.target = os.path.join(directory.name, "target")

    def test_content_and_holes(self) -> None:
        with open(self.source, "wb") as source:
            source.write(b"start")
            source.seek(50 << 20)
            source.write(b"middle")
            source.truncate(100 << 20)
        seen = []
        copy_file(self.source, self.target, progress=lambda *report: seen.append(report))
        with open(self.source, "rb") as a, open(self.target, "rb") as b:
            self.assertEqual(a.read(), b.read())
        self.assertLess(os.stat(self.target).st_blocks * 512, 2 << 20)
        self.assertEqual(("copy file", 100 << 20, 100 << 20), seen[-1])

    def test_nothing_is_left_of_a_failed_copy(self) -> None:
        with open(self.source, "wb") as source:
            source.write(b"x" * 4096)
        full = OSError(errno.ENOSPC, "No space left on device")
        with (
            mock.patch("kvmdriver.storage.copy._copy", side_effect=full),
            self.assertRaises(exception.InsufficientResources),
        ):
            copy_file(self.source, self.target)
        self.assertFalse(os.path.exists(self.target))

    def test_other_errors(self) -> None:
        error = write_error(OSError(errno.EACCES, "Permission denied"), "/x")
        self.assertIsInstance(error, exception.StorageError)
        self.assertIn("Permission denied", error.message)
