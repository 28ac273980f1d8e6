import hashlib
import os
import tempfile
import unittest
from unittest import mock

from kvmdriver import exception
from kvmdriver.model import FileImage
from kvmdriver.storage.image_cache import ImageCache
from kvmdriver.storage.qemu_img import QemuImg


class ImageCacheTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.images = os.path.join(directory.name, "images")
        os.mkdir(self.images)
        self.cache = ImageCache(
            os.path.join(directory.name, "_base"),
            QemuImg(),
            max_bytes=1 << 30,
            allowed_directories=(self.images,),
        )

    def put(self, name: str, data: bytes = b"\1" * 4096) -> FileImage:
        path = os.path.join(self.images, name)
        with open(path, "wb") as image:
            image.write(data)
        return FileImage(path=path)

    def cached(self) -> list[str]:
        directory = self.cache.directory
        return sorted(os.listdir(directory)) if os.path.isdir(directory) else []

    def test_once_for_all(self) -> None:
        image = self.put("a")
        first = self.cache.get(image, "disk")
        with mock.patch.object(self.cache, "_fill", side_effect=AssertionError):
            self.assertEqual(first, self.cache.get(image, "disk"))
        with open(first.path, "rb") as copy:
            self.assertEqual(b"\1" * 4096, copy.read())

    def test_a_changed_file_is_another_image(self) -> None:
        image = self.put("a")
        before = self.cache.get(image, "disk").path
        self.put("a", b"\2" * 8192)
        self.assertNotEqual(before, self.cache.get(image, "disk").path)

    def test_checksum(self) -> None:
        image = self.put("a")
        right = "sha256:" + hashlib.sha256(b"\1" * 4096).hexdigest()
        self.cache.get(image.changed(checksum=right), "disk")
        with self.assertRaises(exception.ImageUnacceptable) as caught:
            self.cache.get(image.changed(checksum="sha256:" + "0" * 64), "disk")
        self.assertEqual("checksum", caught.exception.field)
        self.assertEqual(1, len(self.cached()))

    def test_outside_of_the_allowed_directories(self) -> None:
        link = os.path.join(self.images, "link")
        os.symlink("/etc/hostname", link)
        for path in ("/etc/hostname", link, f"{self.images}-other/x"):
            with self.assertRaises(exception.ImageNotFound) as caught:
                self.cache.check(FileImage(path=path), "disk")
            self.assertIn("image_directories", caught.exception.remedy)

    def test_nothing_is_left_of_a_refused_image(self) -> None:
        with self.assertRaises(exception.ImageUnacceptable):
            self.cache.get(self.put("bad", b"QFI\xfb" + b"\0" * 100), "disk")
        self.assertEqual([], self.cached())

    def test_nothing_is_left_when_the_disk_is_full(self) -> None:
        full = exception.InsufficientResources("the disk is full")
        with (
            mock.patch("kvmdriver.storage.image_cache.copy_into", side_effect=full),
            self.assertRaises(exception.InsufficientResources),
        ):
            self.cache.get(self.put("a"), "disk")
        self.assertEqual([], self.cached())

    def test_sweep_removes_what_the_dead_left_only(self) -> None:
        with self.cache._part() as living:
            dead = os.path.join(self.cache.directory, ".dead.part")
            with open(dead, "w"):
                pass
            self.assertEqual([dead], self.cache.sweep())
            self.assertTrue(os.path.exists(living.path))
        self.assertEqual([], self.cached())
