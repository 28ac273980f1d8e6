"""Images as an attacker would make them. Their headers are written here, byte by byte."""

import os
import struct
import subprocess
import tempfile
import unittest

from kvmdriver import exception
from kvmdriver.storage import inspect

MIB = 1024 * 1024


def qcow2(size: int = 64 * MIB, *, backing: bytes = b"", incompatible: int = 0) -> bytes:
    """The first clusters of a qcow2 image (QEMU's docs/interop/qcow2.txt)."""
    offset = 512 if backing else 0
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        b"QFI\xfb", 3, offset, len(backing), 16, size, 0, 1, 3 * 65536, 65536, 1, 0, 0,
        incompatible, 0, 0, 4, 104,
    )  # fmt: skip
    return (header.ljust(512, b"\0") + backing).ljust(4 * 65536, b"\0")


class InspectTest(unittest.TestCase):
    def setUp(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)

    def put(self, data: bytes, name: str = "image") -> str:
        path = os.path.join(self.directory.name, name)
        with open(path, "wb") as image:
            image.write(data)
        return path

    def refused(self, path: str, **arguments: object) -> exception.KVMDriverError:
        with self.assertRaises(exception.KVMDriverError) as caught:
            inspect.inspect(path, **{"max_bytes": 1024 * MIB, **arguments})
        return caught.exception

    def test_qcow2(self) -> None:
        info = inspect.inspect(self.put(qcow2()), max_bytes=1024 * MIB)
        self.assertEqual(inspect.ImageInfo("qcow2", 64 * MIB), info)
        self.assertEqual(64, info.size_mib)

    def test_raw(self) -> None:
        info = inspect.inspect(self.put(b"\0" * (MIB + 1)), max_bytes=1024 * MIB)
        self.assertEqual(("raw", 2), (info.format, info.size_mib))

    def test_backing_file(self) -> None:
        error = self.refused(self.put(qcow2(backing=b"/etc/shadow")))
        self.assertIn("backing_file", error.message)
        self.assertIsInstance(error, exception.ImageUnacceptable)

    def test_data_file(self) -> None:
        # bit 2 of the incompatible features: the data is in another file
        self.assertIn("data_file", self.refused(self.put(qcow2(incompatible=4))).message)

    def test_unknown_features(self) -> None:
        self.assertIn("harm", self.refused(self.put(qcow2(incompatible=1 << 60))).message)

    def test_extended_l2_is_a_normal_image(self) -> None:
        # bit 4 of the incompatible features
        info = inspect.inspect(self.put(qcow2(incompatible=1 << 4)), max_bytes=1024 * MIB)
        self.assertEqual(inspect.ImageInfo("qcow2", 64 * MIB), info)
        made = os.path.join(self.directory.name, "made")
        options = ["-o", "extended_l2=on,cluster_size=128k"]
        subprocess.run(["qemu-img", "create", "-qf", "qcow2", *options, made, "8M"], check=True)
        self.assertEqual(8, inspect.inspect(made, max_bytes=1024 * MIB).size_mib)

    def test_extended_l2_excuses_nothing_else(self) -> None:
        for image, word in (
            (qcow2(incompatible=1 << 4, backing=b"/etc/shadow"), "backing_file"),
            (qcow2(incompatible=1 << 4 | 1 << 2), "data_file"),
            (qcow2(incompatible=1 << 4 | 1 << 5), "unknown_features"),
            (qcow2(incompatible=1 << 4 | 1 << 63), "unknown_features"),
        ):
            with self.subTest(word):
                self.assertIn(word, self.refused(self.put(image)).message)

    def test_an_open_image(self) -> None:
        descriptor = inspect.open_regular(self.put(qcow2()))
        self.addCleanup(os.close, descriptor)
        os.rename(self.put(b"other", "other"), self.put(qcow2()))
        os.lseek(descriptor, 100, os.SEEK_SET)
        info = inspect.inspect("its name", descriptor, max_bytes=1024 * MIB)
        self.assertEqual("qcow2", info.format)

    def test_a_backing_file_with_an_endless_name(self) -> None:
        header = bytearray(qcow2(backing=b"x"))
        header[16:20] = b"\xff" * 4
        path = self.put(bytes(header))
        os.truncate(path, 1 << 40)
        self.assertEqual(1023, len(inspect.header_backing(path) or ""))

    def test_bomb(self) -> None:
        error = self.refused(self.put(qcow2(size=1 << 60)))
        self.assertIn("unfolds", error.message)
        self.assertIn("max_image_gib", error.remedy)

    def test_wrong_declared_format(self) -> None:
        for declared, data in (("raw", qcow2()), ("qcow2", b"\0" * MIB), ("vmdk", qcow2())):
            error = self.refused(self.put(data), declared=declared)
            self.assertEqual(("format", declared), (error.field, error.value))

    def test_vmdk_descriptor(self) -> None:
        text = b'# Disk DescriptorFile\nversion=1\nRW 2048 FLAT "/etc/shadow" 0\n'
        self.assertIn("descriptor", self.refused(self.put(text)).message)

    def test_magic_without_the_rest(self) -> None:
        self.assertIn("qcow2", self.refused(self.put(b"QFI\xfb" + b"\0" * 24)).message)

    def test_empty_and_missing(self) -> None:
        self.assertIn("empty", self.refused(self.put(b"")).message)
        missing = self.refused(os.path.join(self.directory.name, "none"))
        self.assertIsInstance(missing, exception.ImageNotFound)

    def test_only_files(self) -> None:
        pipe = os.path.join(self.directory.name, "pipe")
        os.mkfifo(pipe)
        for path in (pipe, "/dev/zero", self.directory.name):
            self.assertIn("regular", self.refused(path).message)

    def test_two_formats_at_once(self) -> None:
        # a qcow2 header, and an ISO 9660 descriptor where one belongs
        data = bytearray(qcow2())
        data[0x8000:0x8006] = b"\x01CD001"
        self.assertIn("harm", self.refused(self.put(bytes(data))).message)
