import hashlib
import os
import stat
import subprocess
import tempfile
import threading
import unittest
from unittest import mock

from kvmdriver import exception
from kvmdriver.model import FileImage
from kvmdriver.storage import inspect
from kvmdriver.storage.image_cache import ImageCache
from kvmdriver.storage.qemu_img import QemuImg


class CacheTest(unittest.TestCase):
    """A cache in a directory of its own, and a directory of images beside it."""

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


class ImageCacheTest(CacheTest):
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

    def test_what_has_a_checksum_outlives_its_file(self) -> None:
        right = "sha256:" + hashlib.sha256(b"\1" * 4096).hexdigest()
        image = self.put("a").changed(checksum=right)
        found = self.cache.get(image, "disk")
        os.unlink(image.path)
        self.assertEqual(found, self.cache.get(image, "disk"))
        self.assertEqual(found.path, self.cache.locate(image, "disk"))

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

    def test_sweep_of_a_directory_that_belongs_to_another_user(self) -> None:
        with (
            mock.patch("os.scandir", side_effect=PermissionError(13, "Permission denied")),
            self.assertLogs("kvmdriver.storage.image_cache", "ERROR") as logs,
        ):
            self.assertEqual([], self.cache.sweep())
        self.assertIn(f"{self.cache.directory}; as root: chown -Rh --from=root", logs.output[0])


class ExchangedTest(CacheTest):
    """Somebody exchanges files and directories while an image is taken."""

    def test_a_directory_exchanged_again_and_again(self) -> None:
        """Nothing from outside gets into the cache, and every error is one of ours."""
        secret = b"SECRET" * 1000
        outside = os.path.join(os.path.dirname(self.images), "outside")
        os.mkdir(outside)
        with open(os.path.join(outside, "image"), "wb") as image:
            image.write(secret)
        inside, link = os.path.join(self.images, "inside"), os.path.join(self.images, "link")
        os.mkdir(inside)
        with open(os.path.join(inside, "image"), "wb") as image:
            image.write(b"\1" * 6000)
        os.symlink(outside, link)
        wanted, stop = os.path.join(self.images, "wanted"), threading.Event()

        def exchange() -> None:
            while not stop.is_set():
                for place in (inside, link):
                    os.rename(place, wanted)
                    os.rename(wanted, place)

        thread = threading.Thread(target=exchange)
        thread.start()
        try:
            taken = refused = 0
            image = FileImage(path=os.path.join(wanted, "image"), format="raw")
            for _ in range(2000):
                try:
                    found = self.cache.get(image, "disk")
                    taken += 1
                except exception.KVMDriverError:
                    refused += 1
                    continue
                with open(found.path, "rb") as content:
                    self.assertNotIn(b"SECRET", content.read())
                os.unlink(found.path)
        finally:
            stop.set()
            thread.join()
        self.assertGreater(min(taken, refused), 0, (taken, refused))
        self.assertEqual([], self.cached())

    def test_what_is_converted_is_what_was_looked_at(self) -> None:
        """The file's name leads to a hostile image as soon as the file has been inspected."""
        run = subprocess.run
        good, evil = os.path.join(self.images, "image"), os.path.join(self.images, "evil")
        secret = os.path.join(os.path.dirname(self.images), "secret")
        with open(secret, "wb") as file:
            file.write(b"SECRET" * 100_000)
        run(["qemu-img", "create", "-q", "-f", "qcow2", good, "1M"], check=True)
        run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", evil],
            check=True,
        )
        os.chmod(good, 0o644)
        inspect_image = inspect.inspect

        def exchange(*arguments: object, **named: object) -> inspect.ImageInfo:
            info = inspect_image(*arguments, **named)
            os.rename(evil, good)
            return info

        with (
            mock.patch.object(inspect, "inspect", exchange),
            # the file that is open has lost its last name: that is a change, and is refused
            self.assertRaises(exception.ImageUnacceptable) as caught,
        ):
            self.cache.get(FileImage(path=good, format="qcow2"), "disk")
        self.assertIn("changed", caught.exception.message)
        self.assertEqual([], self.cached())

    def test_a_file_that_is_written_meanwhile(self) -> None:
        image = self.put("a")

        def write(*_report: object) -> None:
            with open(image.path, "ab") as file:
                file.write(b"more")

        with self.assertRaises(exception.ImageUnacceptable) as caught:
            self.cache.get(image, "disk", write)
        self.assertIn("changed", caught.exception.message)
        self.assertEqual([], self.cached())

    def test_links_within_the_allowed_directories(self) -> None:
        image = self.put("a")
        os.symlink(image.path, os.path.join(self.images, "latest"))
        through = self.cache.get(FileImage(path=os.path.join(self.images, "latest")), "disk")
        self.assertEqual(self.cache.get(image, "disk"), through)


class KeptTest(CacheTest):
    def test_nobody_else_can_read_it_at_any_time(self) -> None:
        modes = set()

        def look(*_report: object) -> None:
            for name in self.cached():
                path = os.path.join(self.cache.directory, name)
                modes.add(stat.S_IMODE(os.stat(path).st_mode))

        image = self.put("a")
        os.chmod(image.path, 0o666)
        found = self.cache.get(image, "disk", look)
        modes.add(stat.S_IMODE(os.stat(found.path).st_mode))
        converted = os.path.join(self.images, "b")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", converted, "8M"], check=True)
        found = self.cache.get(FileImage(path=converted), "disk", look)
        modes.add(stat.S_IMODE(os.stat(found.path).st_mode))
        self.assertEqual({0o640}, modes)

    def test_an_empty_kernel(self) -> None:
        image = self.put("kernel", b"")
        for call in (self.cache.check, self.cache.get):
            with self.assertRaises(exception.ImageUnacceptable) as caught:
                call(image, "file")
            self.assertIn("0 bytes", caught.exception.message)

    def test_a_taken_file_is_not_removed(self) -> None:
        image = self.put("a")
        path = self.cache.get(image, "disk").path
        os.utime(path, (0, 0))
        (entry,) = self.cache.entries()
        self.cache.get(image, "disk")
        self.assertFalse(self.cache.remove(entry))
        (entry,) = self.cache.entries()
        self.assertTrue(entry.is_fresh())
        self.assertTrue(self.cache.remove(entry))
        self.assertFalse(self.cache.remove(entry))
        self.assertEqual([], self.cached())

    def test_told_of_what_is_new_only(self) -> None:
        self.cache.on_new = mock.Mock()
        image = self.put("a")
        for _ in range(2):
            self.cache.get(image, "disk")
        self.cache.on_new.assert_called_once_with()
