"""Directories without an instance: what is said about them."""

import fcntl
import os
import shutil
import struct
import tempfile
import types
import unittest
from unittest import mock

from kvmdriver.operations import orphans
from kvmdriver.storage import description
from kvmdriver.storage.store import InstanceStore
from kvmdriver.storage.usage import in_use
from tests.unit.storage.test_description import described

UUID = "0a1b2c3d-0000-4000-8000-000000000001"


class OrphansTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.hypervisor = mock.Mock()
        self.hypervisor.find.return_value = None
        self.hypervisor.used_by_others.return_value = {}
        self.context = types.SimpleNamespace(
            store=InstanceStore(directory.name), host="kvm1", hypervisor=self.hypervisor
        )
        self.directory = os.path.join(directory.name, UUID)
        os.mkdir(self.directory)
        self.disk = os.path.join(self.directory, "disk")
        with open(self.disk, "wb") as disk:
            disk.write(b"\0" * 512)

    def find(self) -> list[orphans.Orphan]:
        return orphans.find(self.context, set())  # type: ignore[arg-type]

    def test_nobodys(self) -> None:
        self.assertEqual([self.directory], [orphan.path for orphan in self.find()])
        self.assertEqual([], orphans.find(self.context, {UUID}))  # type: ignore[arg-type]

    def test_an_instance_that_came_after_the_list_was_made(self) -> None:
        self.hypervisor.find.return_value = mock.Mock()
        self.assertEqual([], self.find())
        self.hypervisor.find.assert_called_once_with(UUID)

    def test_an_instance_that_has_gone_since_the_list_was_made(self) -> None:
        def gone(_uuid: str) -> None:
            shutil.rmtree(self.directory)

        self.hypervisor.find.side_effect = gone
        self.assertEqual([], self.find())

    def test_what_a_guest_uses_is_no_orphan(self) -> None:
        # as QEMU does: an open file description's lock on one byte (block/file-posix.c)
        lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 201, 1, 0)
        with open(self.disk, "rb") as disk:
            fcntl.fcntl(disk, fcntl.F_OFD_SETLK, lock)
            self.assertEqual([], self.find())
        self.assertEqual(1, len(self.find()))

    def test_what_a_stopped_clone_names_is_no_orphan(self) -> None:
        self.hypervisor.used_by_others.return_value = {self.disk: "clone"}
        self.assertEqual([], self.find())
        self.hypervisor.used_by_others.return_value = {f"{self.directory}-of-others/disk": "clone"}
        self.assertEqual(1, len(self.find()))

    def test_a_named_host_is_told_and_nothing_is_to_be_removed(self) -> None:
        description.write(self.directory, described())
        advice = self.find()[0].advice
        for word in ("web", "kvm1", "keep"):
            self.assertIn(word, advice)
        self.assertNotIn("remove", advice)
        with open(os.path.join(self.directory, description.NAME), "w") as file:
            file.write("{")
        self.assertNotIn("remove", self.find()[0].advice)

    def test_another_hosts(self) -> None:
        description.write(self.directory, described(host="kvm2"))
        self.assertEqual([], self.find())


class InUseTest(unittest.TestCase):
    def test_what_cannot_be_opened(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            os.mkfifo(os.path.join(directory, "fifo"))
            os.symlink("/etc/passwd", os.path.join(directory, "link"))
            self.assertFalse(in_use(directory))
        self.assertFalse(in_use("/nonexistent"))
