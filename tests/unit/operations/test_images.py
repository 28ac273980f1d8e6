"""What the image cache keeps and removes: files, disks and descriptions are real."""

import os
import tempfile
import time
import types
import unittest

from kvmdriver import exception
from kvmdriver.hypervisor.record import Owner, Record, Task
from kvmdriver.model import Instance, Migration
from kvmdriver.model.evacuation import Description
from kvmdriver.operations import images
from kvmdriver.storage import description
from kvmdriver.storage.image_cache import ImageCache
from kvmdriver.storage.qemu_img import QemuImg
from kvmdriver.storage.store import InstanceStore

HERE = "0a1b2c3d-0000-4000-8000-000000000001"
THERE = "0a1b2c3d-0000-4000-8000-000000000002"
NOBODY = "0a1b2c3d-0000-4000-8000-000000000003"
MIB = 1024 * 1024


class ImagesTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = os.path.join(directory.name, "instances")
        self.store = InstanceStore(self.root)
        os.makedirs(self.store.cache_directory)
        self.records: list[Record] = []
        self.limits = types.SimpleNamespace(cache_max_gib=0, cache_unused_days=0)
        cache = ImageCache(
            self.store.cache_directory, QemuImg(), max_bytes=1 << 30, allowed_directories=()
        )
        # libvirt is replaced: what it says of its domains is a list of records
        self.context = types.SimpleNamespace(
            conf=types.SimpleNamespace(kvm_storage=self.limits),
            store=self.store,
            images=cache,
            hypervisor=types.SimpleNamespace(
                summaries=lambda: [
                    types.SimpleNamespace(uuid=record.instance.uuid) for record in self.records
                ]
            ),
            record=lambda uuid: next(r for r in self.records if r.instance.uuid == uuid),
        )

    def cached(self, name: str, *, days: float = 40, mib: int = 1) -> str:
        """A file of the cache that was used last so many days ago."""
        path = os.path.join(self.store.cache_directory, name)
        with open(path, "wb") as image:
            image.write(b"\1" * mib * MIB)
        used = time.time() - days * 86400
        os.utime(path, (used, used))
        return path

    def names(self) -> list[str]:
        return sorted(os.listdir(self.store.cache_directory))

    def overlay(self, path: str, backing: str) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        QemuImg().create(path, "qcow2", backing=backing)

    def known(self, uuid: str = HERE, task: Task | None = None, **fields: object) -> Record:
        instance = Instance.parse({"name": f"vm-{uuid[-1]}", "uuid": uuid, **fields})
        record = Record(instance=instance, root=self.root, task=task)
        self.records.append(record)
        return record

    def use_everywhere(self) -> None:
        """Use a file in each way in which one can be used."""
        disk = self.store.layout(HERE).disk("vda", first=True)
        moved = os.path.join(os.path.dirname(self.root), f"{HERE}.vdb.qcow2")
        self.overlay(disk, self.cached("mine"))
        self.overlay(moved, self.cached("moved"))
        self.overlay(self.store.layout(THERE).disk("vda", first=True), self.cached("theirs"))
        self.overlay(self.store.layout(NOBODY).disk("vdc"), self.cached("kept"))
        self.overlay(f"{self.store.layout(NOBODY).directory}_del/disk", self.cached("set-aside"))
        cds = {name: self.cached(name) for name in ("my-cd", "their-cd")}
        self.known(
            disks=[
                {"name": "vda", "file": {"path": disk, "format": "qcow2"}},
                {"name": "vdb", "file": {"path": moved, "format": "qcow2"}},
                _cd(cds["my-cd"]),
            ]
        )
        other = Instance.parse({"name": "vm-2", "uuid": THERE, "disks": [_cd(cds["their-cd"])]})
        described = Description(
            host="other",
            host_uuid=HERE,
            instance=other,
            digest="d",
            autostart=False,
            definition="<domain/>",
        )
        description.write(self.store.layout(THERE).directory, described)

    def test_nothing_in_use_is_removed(self) -> None:
        self.use_everywhere()
        used = self.names()
        self.cached("unused")
        self.limits.cache_unused_days = 1
        self.assertEqual(["unused"], images.evict(self.context))
        self.assertEqual(used, self.names())
        self.assertEqual((), images.prune(self.context, unused=True))
        for name in used:
            with self.assertRaises(exception.ImageInUse) as caught:
                images.prune(self.context, (name,))
            self.assertEqual(name, caught.exception.value)

    def test_shown_with_its_users(self) -> None:
        self.use_everywhere()
        self.cached("unused", mib=3)
        shown = {view.name: view for view in images.list_images(self.context)}
        self.assertEqual(("vm-1",), shown["mine"].used_by)
        self.assertEqual(("vm-1",), shown["moved"].used_by)
        self.assertEqual(("vm-2",), shown["theirs"].used_by)
        self.assertEqual(("vm-2",), shown["their-cd"].used_by)
        self.assertEqual((NOBODY,), shown["kept"].used_by)
        self.assertEqual(((), 3, 3), _sizes(shown["unused"]))

    def test_age(self) -> None:
        self.cached("old", days=31)
        self.cached("young", days=29)
        self.assertEqual([], images.evict(self.context))
        self.limits.cache_unused_days = 30
        self.assertEqual(["old"], images.evict(self.context))
        self.assertEqual(["young"], self.names())

    def test_age_counts_from_the_last_time_it_was_seen_in_use(self) -> None:
        self.use_everywhere()
        self.limits.cache_unused_days = 30
        images.evict(self.context)
        self.records.clear()
        os.unlink(self.store.layout(HERE).disk("vda", first=True))
        self.assertEqual([], images.evict(self.context))
        self.assertIn("mine", self.names())

    def test_what_came_with_an_instance_goes_with_it(self) -> None:
        name = "received-" + "0" * 32 + "-image"
        disk = self.store.layout(HERE).disk("vda", first=True)
        self.overlay(disk, self.cached(name, days=1))
        self.assertEqual([], images.evict(self.context))
        os.unlink(disk)
        os.utime(os.path.join(self.store.cache_directory, name), (0, 0))
        self.assertEqual([name], images.evict(self.context))

    def test_size(self) -> None:
        for position, name in enumerate(("newest", "newer", "older", "oldest")):
            path = self.cached(name, days=position + 1)
            os.truncate(path, 0)
            # 400 MiB each, as the file system counts, without being written
            descriptor = os.open(path, os.O_RDWR)
            os.posix_fallocate(descriptor, 0, 400 * MIB)
            os.close(descriptor)
            used = time.time() - (position + 1) * 86400
            os.utime(path, (used, used))
        self.limits.cache_max_gib = 1
        self.assertEqual(["oldest", "older"], images.evict(self.context))

    def test_what_has_just_been_taken_stays(self) -> None:
        self.cached("fresh", days=0)
        self.limits.cache_max_gib = 1
        self.limits.cache_unused_days = 1
        os.truncate(os.path.join(self.store.cache_directory, "fresh"), 0)
        self.assertEqual([], images.evict(self.context))
        self.known(task=Task(name="create", owner=Owner.current()))
        self.assertEqual((), images.prune(self.context, unused=True))
        with self.assertRaises(exception.ImageInUse):
            images.prune(self.context, ("fresh",))
        self.records.clear()
        self.assertEqual(("fresh",), images.prune(self.context, ("fresh",)))

    def test_nothing_goes_while_an_instance_comes(self) -> None:
        self.cached("old")
        self.limits.cache_unused_days = 1
        migration = Migration(id=HERE, kind="cold", peer="other", state="prepare")
        task = Task(name="immigrate", owner=Owner.current(), migration=migration)
        self.known(task=task)
        self.assertEqual([], images.evict(self.context))
        with self.assertRaises(exception.InstanceBusy):
            images.prune(self.context, unused=True)
        self.assertEqual(["old"], self.names())

    def test_nothing_goes_when_the_users_cannot_be_seen(self) -> None:
        self.cached("old")
        self.limits.cache_unused_days = 1
        directory = self.store.layout(THERE).directory
        os.makedirs(directory)
        with open(os.path.join(directory, description.NAME), "w") as file:
            file.write("not a description")
        with self.assertLogs("kvmdriver.operations.images", "WARNING"):
            self.assertEqual([], images.evict(self.context))
        with self.assertRaises(exception.StorageError):
            images.prune(self.context, unused=True)

    def test_all_are_checked_before_one_goes(self) -> None:
        self.cached("a")
        with self.assertRaises(exception.ImageNotFound):
            images.prune(self.context, ("a", "b"))
        self.assertEqual(["a"], self.names())
        for names, unused in (((), False), (("a",), True)):
            with self.assertRaises(exception.InvalidRequest):
                images.prune(self.context, names, unused=unused)


def _cd(path: str) -> dict[str, object]:
    return {
        "device": "cdrom",
        "name": "sda",
        "bus": "sata",
        "file": {"path": path, "format": "raw"},
    }


def _sizes(view: images.CachedImageView) -> tuple[tuple[str, ...], int, int]:
    return view.used_by, view.size_mib, view.disk_mib
