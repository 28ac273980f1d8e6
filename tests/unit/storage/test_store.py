"""Directories of instances that hosts share: who gets one, and who may remove it."""

import concurrent.futures
import fcntl
import os
import stat
import tempfile
import threading
import unittest

from kvmdriver import exception
from kvmdriver.model.evacuation import Description
from kvmdriver.storage import description as descriptions
from kvmdriver.storage.store import InstanceStore

UUID = "0a1b2c3d-0000-4000-8000-00000000000a"
OURS = ("kvm1", "0a1b2c3d-0000-4000-8000-000000000001")
BUILDING = "0a1b2c3d-0000-4000-8000-00000000000b"
OTHERS = ("kvm2", "0a1b2c3d-0000-4000-8000-000000000002")


def mark(owner: tuple[str, str] = OURS, **fields: object) -> Description:
    data: dict[str, object] = {
        "host": owner[0],
        "host_uuid": owner[1],
        "instance": {"name": "web", "uuid": UUID, "memory": {"current_mib": 64}},
        "definition": "<domain/>",
    }
    return Description.parse({**data, **fields})


class StoreTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.store = InstanceStore(directory.name)
        self.directory = self.store.layout(UUID).directory

    def put(self, *names: str) -> None:
        os.makedirs(self.directory, exist_ok=True)
        for name in names:
            with open(os.path.join(self.directory, name), "w") as file:
                file.write(name)

    def left(self) -> list[str]:
        return sorted(os.listdir(self.directory)) if os.path.lexists(self.directory) else []

    def refused(self) -> exception.InstanceExists:
        """The error of both the early look and the claim itself."""
        before = self.left()
        with self.assertRaises(exception.InstanceExists) as early:
            self.store.require_free(UUID)
        with self.assertRaises(exception.InstanceExists) as caught:
            self.store.claim(UUID, mark())
        self.assertEqual(early.exception.describe(), caught.exception.describe())
        self.assertEqual(("uuid", UUID), (caught.exception.field, caught.exception.value))
        self.assertEqual(before, self.left())
        self.assertEqual([UUID], os.listdir(self.store.root))
        return caught.exception


class ClaimTest(StoreTest):
    def test_a_directory_has_its_mark_and_its_mode(self) -> None:
        self.addCleanup(os.umask, os.umask(0o077))
        self.store.require_free(UUID)
        self.store.claim(UUID, mark(building=BUILDING))
        self.assertEqual(0o711, stat.S_IMODE(os.stat(self.directory).st_mode))
        self.assertEqual([descriptions.NAME], self.left())
        self.assertEqual(mark(building=BUILDING), descriptions.read(self.directory))
        self.assertEqual([UUID], os.listdir(self.store.root))

    def test_the_owner_is_named(self) -> None:
        self.store.claim(UUID, mark(OTHERS))
        error = self.refused()
        self.assertIn("web of kvm2", error.message)
        self.assertIn("kvm2", error.remedy or "")
        descriptions.write(self.directory, mark(OTHERS, building=BUILDING))
        self.assertIn("still making it", self.refused().message)

    def test_kept_disks_and_damaged_marks(self) -> None:
        self.put("disk")
        self.assertIn("--keep-disks", self.refused().message)
        self.put(descriptions.NAME)
        self.assertIn("not the description", self.refused().message)

    def test_whatever_else_is_in_the_place(self) -> None:
        elsewhere = tempfile.TemporaryDirectory()
        self.addCleanup(elsewhere.cleanup)
        os.symlink(elsewhere.name, self.directory)
        self.refused()
        os.unlink(self.directory)
        with open(self.directory, "w"):
            pass
        with self.assertRaises(exception.InstanceExists):
            self.store.require_free(UUID)
        with self.assertRaises(exception.InstanceExists):
            self.store.claim(UUID, mark())

    def test_an_empty_directory_is_nobodys(self) -> None:
        os.mkdir(self.directory)
        self.store.require_free(UUID)
        self.store.claim(UUID, mark())
        self.assertEqual([descriptions.NAME], self.left())

    def test_of_many_at_the_same_time_one_gets_it(self) -> None:
        ready = threading.Barrier(8)

        def claim(number: int) -> str:
            ready.wait()
            try:
                self.store.claim(UUID, mark((f"kvm{number}", OURS[1])))
            except exception.InstanceExists:
                return ""
            return f"kvm{number}"

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            winners = [host for host in pool.map(claim, range(8)) if host]
        found = descriptions.read(self.directory)
        assert found is not None
        self.assertEqual([found.host], winners)
        self.assertEqual([UUID], os.listdir(self.store.root))


class RemoveTest(StoreTest):
    def test_ours_goes_and_the_mark_goes_last(self) -> None:
        self.assertTrue(self.store.remove(UUID, *OURS))
        self.store.claim(UUID, mark())
        self.put("disk", "disk.vdb", "console.log")
        os.mkdir(os.path.join(self.directory, "checkpoints"))
        self.assertTrue(self.store.remove(UUID, *OURS))
        self.assertFalse(os.path.exists(self.directory))

    def test_kept_disks_have_no_owner(self) -> None:
        self.store.claim(UUID, mark())
        self.put("disk", "console.log")
        kept = os.path.join(self.directory, "disk")
        self.assertTrue(self.store.remove(UUID, *OURS, keep=(kept,)))
        self.assertEqual(["disk"], self.left())
        # an instance that could not be made in their place takes nothing with it
        self.assertFalse(self.store.remove(UUID, *OURS, building=BUILDING))
        self.assertEqual(["disk"], self.left())
        # a deletion that was cut off goes on
        self.assertTrue(self.store.remove(UUID, *OURS))
        self.assertEqual([], self.left())

    def test_what_is_not_surely_ours_stays(self) -> None:
        self.put("disk")
        for owner in (OTHERS, (OURS[0], OTHERS[1]), (OTHERS[0], OURS[1])):
            descriptions.write(self.directory, mark(owner, building=BUILDING))
            with self.subTest(owner), self.assertLogs(level="WARNING"):
                self.assertFalse(self.store.remove(UUID, *OURS, building=BUILDING))
            self.assertEqual(["disk", descriptions.NAME], self.left())
        self.put(descriptions.NAME)
        with self.assertLogs(level="WARNING"):
            self.assertFalse(self.store.remove(UUID, *OURS))

    def test_an_operation_removes_only_what_it_has_made(self) -> None:
        self.put("disk")
        for building in (None, "another"):
            descriptions.write(self.directory, mark(building=building))
            with self.assertLogs(level="WARNING"):
                self.assertFalse(self.store.remove(UUID, *OURS, building=BUILDING))
        descriptions.write(self.directory, mark(building=BUILDING))
        self.assertTrue(self.store.remove(UUID, *OURS, building=BUILDING))
        self.assertFalse(os.path.exists(self.directory))

    def test_an_instance_of_ours_under_a_former_name(self) -> None:
        self.put("disk")
        descriptions.write(self.directory, mark((OTHERS[0], OURS[1])))
        self.assertTrue(self.store.remove(UUID, *OURS))
        self.assertFalse(os.path.exists(self.directory))

    def test_a_link_in_the_place_of_the_directory(self) -> None:
        with tempfile.TemporaryDirectory() as elsewhere:
            descriptions.write(elsewhere, mark())
            os.symlink(elsewhere, self.directory)
            with self.assertLogs(level="WARNING"):
                self.assertFalse(self.store.remove(UUID, *OURS))
            self.assertEqual([descriptions.NAME], os.listdir(elsewhere))


class SweepTest(StoreTest):
    def test_a_claim_that_was_cut_off_goes_with_its_operation(self) -> None:
        left, other = (
            os.path.join(self.store.root, f".{UUID}.{operation}.new")
            for operation in (BUILDING, BUILDING.replace("b", "c"))
        )
        for path in (left, other):
            os.mkdir(path)
        self.assertTrue(self.store.remove(UUID, *OURS, building=BUILDING))
        self.assertEqual([os.path.basename(other)], os.listdir(self.store.root))

    def new(self, owner: tuple[str, str] | None, token: str, age: float = 0) -> str:
        path = os.path.join(self.store.root, f".{UUID}.{token:0>36}.new")
        os.mkdir(path)
        if owner is not None:
            descriptions.write(path, mark(owner, building=BUILDING))
        now = os.stat(path).st_mtime
        os.utime(path, (now - age, now - age))
        return path

    def test_what_dead_processes_of_this_host_have_left(self) -> None:
        dead = self.new(OURS, "1")
        ancient = self.new(None, "2", 7200)
        living, others, young = (
            self.new(OURS, "3"),
            self.new(OTHERS, "4", 7200),
            self.new(None, "5"),
        )
        with open(os.path.join(living, descriptions.NAME)) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.assertEqual({dead, ancient}, set(self.store.sweep(*OURS)))
        kept = {os.path.basename(path) for path in (living, others, young)}
        self.assertEqual(kept, set(os.listdir(self.store.root)))
        self.assertEqual([], self.store.directories())


class TightenTest(StoreTest):
    def test_each_host_mends_its_own(self) -> None:
        disks = tempfile.TemporaryDirectory()
        self.addCleanup(disks.cleanup)
        moved = os.path.join(disks.name, f"{UUID}.vda.qcow2")
        foreign = os.path.join(disks.name, "somebody.qcow2")
        self.store.claim(UUID, mark())
        self.put("disk")
        disk = os.path.join(self.directory, "disk")
        for path in (moved, foreign):
            with open(path, "w"):
                pass
        for path in (moved, foreign, disk):
            os.chmod(path, 0o644)
        self.assertEqual(0, self.store.tighten(*OTHERS, [disks.name]))
        self.assertEqual(2, self.store.tighten(*OURS, [disks.name]))
        modes = [stat.S_IMODE(os.stat(path).st_mode) for path in (moved, foreign, disk)]
        self.assertEqual([0o640, 0o644, 0o640], modes)
        self.assertEqual(0, self.store.tighten(*OURS, [disks.name]))
