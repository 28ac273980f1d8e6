"""qemu-img is real here: it needs neither root nor a guest."""

import os
import subprocess
import tempfile
import unittest

from kvmdriver import exception
from kvmdriver.storage import backend
from kvmdriver.storage.image_cache import CachedImage
from kvmdriver.storage.qemu_img import QemuImg, _failure


class QemuImgTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.qemu_img = QemuImg()

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def test_backends(self) -> None:
        base = self.path("base")
        with open(base, "wb") as image:
            image.write(b"\1" * (2 << 20))
        cached = CachedImage(path=base, size_mib=2)
        for name in ("qcow2", "raw"):
            disk = self.path(f"disk.{name}")
            maker = backend.load(name, self.qemu_img)
            maker.create(disk, image=cached, size_mib=8)
            self.assertEqual(name, maker.format)
            flat = self.path(f"flat.{name}")
            self.qemu_img.convert(disk, name, flat, "raw")
            self.assertEqual(8 << 20, os.path.getsize(flat))
            with open(flat, "rb") as content:
                self.assertEqual(b"\1" * (2 << 20), content.read(2 << 20))

    def test_blank(self) -> None:
        for name in ("qcow2", "raw"):
            path = self.path(name)
            backend.load(name, self.qemu_img).create(path, image=None, size_mib=4)
            self.assertTrue(os.path.exists(path))

    def test_unknown_backend(self) -> None:
        with self.assertRaises(exception.ConfigurationError) as caught:
            backend.load("floppy", self.qemu_img)
        self.assertEqual("kvm_storage.disk_format", caught.exception.field)

    def test_progress(self) -> None:
        source = self.path("source")
        with open(source, "wb") as image:
            image.write(os.urandom(4 << 20))
        seen = []
        self.qemu_img.convert(
            source, "raw", self.path("target"), "qcow2", progress=lambda *r: seen.append(r)
        )
        self.assertEqual(("convert image", 100, 100, "percent"), seen[-1])

    def test_an_open_image(self) -> None:
        source, target = self.path("source"), self.path("target")
        self.qemu_img.create(source, "qcow2", size_mib=4)
        descriptor = os.open(source, os.O_RDONLY)
        self.addCleanup(os.close, descriptor)
        os.unlink(source)
        self.assertEqual(0, self.qemu_img.check(descriptor, "qcow2"))
        self.qemu_img.convert(descriptor, "qcow2", target, "raw")
        self.assertEqual(4 << 20, os.path.getsize(target))

    def test_how_much_of_an_image_has_content(self) -> None:
        raw, source = self.path("raw"), self.path("source")
        with open(raw, "wb") as image:
            image.write(b"\1" * (2 << 20))
            image.truncate(8 << 20)
        for option in ([], ["-c"]):
            subprocess.run(
                ["qemu-img", "convert", "-O", "qcow2", *option, raw, source], check=True
            )
            self.assertEqual(0.25, self.qemu_img.check(source, "qcow2"))

    def test_a_watch_ends_a_conversion(self) -> None:
        source = self.path("source")
        with open(source, "wb") as image:
            image.write(os.urandom(16 << 20))

        def watch() -> float:
            raise exception.InsufficientResources("touched")

        with self.assertRaises(exception.InsufficientResources):
            self.qemu_img.convert(source, "raw", self.path("target"), "qcow2", watch=watch)

    def test_damage(self) -> None:
        path = self.path("cut.qcow2")
        self.qemu_img.create(path, "qcow2", size_mib=64)
        os.truncate(path, 70000)
        with self.assertRaises(exception.ImageUnacceptable):
            self.qemu_img.check(path, "qcow2")

    def test_limits(self) -> None:
        tight = QemuImg(memory_mib=16)
        with self.assertRaises(exception.StorageError):
            tight.create(self.path("x"), "qcow2", size_mib=1)

    def test_failures(self) -> None:
        full = _failure("convert", 1, "error: No space left on device", "/x")
        self.assertIsInstance(full, exception.InsufficientResources)
        self.assertIn("cpu_seconds", _failure("convert", -24, "", "/x").message)
        self.assertLess(len(_failure("check", 1, "bad\n" * 10000, "/x").message), 400)
