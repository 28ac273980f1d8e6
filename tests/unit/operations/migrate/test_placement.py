"""Which images of its cache a host gives to an instance that comes, and where the rest goes."""

import os
import struct
import subprocess
import tempfile
import types
import unittest
from typing import Any

from kvmdriver import exception
from kvmdriver.model import FileImage, MigrationOffer, MovingDisk
from kvmdriver.operations.migrate import placement
from kvmdriver.storage.image_cache import ImageCache
from kvmdriver.storage.qemu_img import QemuImg
from kvmdriver.storage.store import InstanceStore

UUID = "0a1b2c3d-0000-4000-8000-000000000001"
MIB = 1024 * 1024


class Placed(unittest.TestCase):
    """A host with one image in its cache."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = os.path.join(directory.name, "instances")
        self.image = os.path.join(directory.name, "image.raw")
        self.write(self.image, b"\1" * 4096)
        self.qemu_img = QemuImg()
        store = InstanceStore(self.root)
        store.prepare()
        images = ImageCache(
            store.cache_directory,
            self.qemu_img,
            max_bytes=1024 * MIB,
            allowed_directories=(directory.name,),
        )
        self.context: Any = types.SimpleNamespace(
            store=store, images=images, qemu_img=self.qemu_img
        )
        self.known = images.get(FileImage(path=self.image), "disk").path

    @staticmethod
    def write(path: str, content: bytes) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)


class PlacementTest(Placed):
    def offer(
        self,
        backing: str,
        size: int = 4096,
        image: str | None = None,
        **fields: Any,
    ) -> MigrationOffer:
        disk: dict[str, Any] = {
            "name": "vda",
            "size_mib": 1,
            "file": {"path": "/there/disk", "format": "qcow2"},
        }
        if image is not None:
            disk["image"] = {"type": "file", "path": image}
        data: dict[str, Any] = {
            "id": "one",
            "kind": "live",
            "source": "kvm1",
            "instance": {"uuid": UUID, "name": "web", "disks": [disk]},
            "marker": "migration-one",
            "definition": "<domain/>",
            "disks": [
                {
                    "name": "vda",
                    "file": "disk",
                    "format": "qcow2",
                    "size": MIB,
                    "allocated": 0,
                    "backing": backing,
                    "backing_size": size,
                }
            ],
            "files": [{"place": "cache", "name": backing, "size": size}],
        }
        return MigrationOffer.parse({**data, **fields})

    def of_cd(self, name: str, image: str | None) -> MigrationOffer:
        disk: dict[str, Any] = {
            "name": "sda",
            "device": "cdrom",
            "file": {"path": f"/there/_base/{name}", "format": "raw"},
        }
        if image is not None:
            disk["image"] = {"type": "file", "path": image}
        instance = {"uuid": UUID, "name": "web", "disks": [disk]}
        return self.offer(name, instance=instance, disks=[])

    def assert_received(self, path: str, offer: MigrationOffer) -> None:
        """The source has to send an image, under a name that nobody can know or ask for."""
        self.assertEqual(self.context.store.cache_directory, os.path.dirname(path))
        self.assertRegex(os.path.basename(path), r"^received-[0-9a-f]{32}-")
        self.assertFalse(os.path.exists(path))
        name = offer.files[0].name
        self.assertEqual(offer.files, placement.wanted_files(offer, {name: path}))

    def test_an_image_that_the_instance_names_comes_from_its_origin(self) -> None:
        name = os.path.basename(self.known)
        offer = self.offer(name, image=self.image)
        self.assertEqual({name: self.known}, placement.images_here(self.context, offer))
        self.assertEqual({name: self.known}, placement.obtain_images(self.context, offer))
        self.assertEqual((), placement.wanted_files(offer, {name: self.known}))
        # also when it has been at another host, that had it sent
        sent = f"received-{'0' * 32}-{name}"
        offer = self.offer(sent, image=self.image)
        self.assertEqual({sent: self.known}, placement.obtain_images(self.context, offer))

    def test_no_image_is_taken_from_the_cache_by_its_name_alone(self) -> None:
        name = os.path.basename(self.known)
        other = os.path.join(os.path.dirname(self.image), "other.raw")
        self.write(other, b"\2" * 4096)
        for image in (None, other, "/not/allowed"):
            offer = self.offer(name, image=image)
            self.assertEqual({}, placement.images_here(self.context, offer))
            self.assert_received(placement.obtain_images(self.context, offer)[name], offer)

    def test_nothing_enters_the_cache_under_a_name_that_others_look_for(self) -> None:
        """A name that a future image will have is not the one that what is sent gets."""
        awaited = self.context.images.locate(
            FileImage(path=self.image, checksum="sha256:" + "0" * 64), "disk"
        )
        offer = self.offer(os.path.basename(awaited))
        first = placement.obtain_images(self.context, offer)
        second = placement.obtain_images(self.context, offer)
        self.assert_received(first[os.path.basename(awaited)], offer)
        self.assertNotEqual(first, second)

    def test_an_image_that_has_changed_is_sent(self) -> None:
        name = os.path.basename(self.known)
        offer = self.offer(name, size=4097, image=self.image)
        self.assert_received(placement.obtain_images(self.context, offer)[name], offer)
        self.write(self.image, b"\3" * 8192)
        offer = self.offer(name, image=self.image)
        self.assert_received(placement.obtain_images(self.context, offer)[name], offer)

    def test_a_cd_is_what_the_instance_names(self) -> None:
        name = os.path.basename(self.known)
        with self.assertRaises(exception.InvalidRequest) as caught:
            placement.placed(self.context, self.of_cd(name, None))
        self.assertEqual("disks.0.image", caught.exception.field)
        with self.assertRaises(exception.ImageNotFound):
            placement.placed(self.context, self.of_cd(name, "/etc/passwd"))
        found = placement.placed(self.context, self.of_cd(name, self.image))
        assert found.disks[0].file is not None
        self.assertNotEqual(self.known, found.disks[0].file.path)
        self.assertEqual(
            self.context.images.locate(FileImage(path=self.image), "cdrom"),
            found.disks[0].file.path,
        )

    def test_disks_get_the_names_of_this_host(self) -> None:
        offer = self.offer("base")
        moved = offer.disks[0].changed(file="instance.json")
        found = placement.placed(self.context, offer.changed(disks=(moved,)), {})
        assert found.disks[0].file is not None
        self.assertEqual(f"{self.root}/{UUID}/disk", found.disks[0].file.path)

    def test_shared_disks_keep_theirs_if_a_disk_can_have_it(self) -> None:
        offer = self.offer("base")
        self.write(f"{self.root}/{UUID}/migration-one", b"")
        for name in ("disk", "disk.vda", "disk.vda.raw", f"{UUID}.vda.qcow2"):
            moved = offer.changed(disks=(offer.disks[0].changed(file=name),))
            found = placement.placed(self.context, moved)
            assert found.disks[0].file is not None
            self.assertEqual(f"{self.root}/{UUID}/{name}", found.disks[0].file.path)
        for name in ("disk.config", "instance.json", "disk.vdb", "console.log"):
            moved = offer.changed(disks=(offer.disks[0].changed(file=name),))
            with self.assertRaises(exception.InvalidRequest):
                placement.placed(self.context, moved)

    def test_a_disk_without_a_file_is_refused(self) -> None:
        with self.assertRaises(exception.InvalidRequest):
            placement.placed(self.context, self.offer("base").changed(disks=()), {})


class AcceptedDiskTest(Placed):
    """Overlays that a source has sent, looked at before they get their names."""

    def setUp(self) -> None:
        super().setUp()
        self.part = os.path.join(self.root, ".part")
        self.disk = MovingDisk(
            name="vda", file="disk", format="qcow2", size=MIB, allocated=0, backing="base"
        )

    def create(self, *arguments: str) -> None:
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", *arguments], check=True, timeout=30
        )

    def accept(self, **fields: Any) -> None:
        accept = placement.accept_disk(
            self.context, self.disk.changed(**fields), {"base": self.known}
        )
        assert accept is not None
        accept(self.part)

    def test_its_image_is_the_one_of_this_host(self) -> None:
        self.create("-u", "-b", "/there/_base/base", "-F", "raw", self.part, "1M")
        self.accept()
        shown = subprocess.run(
            ["qemu-img", "info", self.part], check=True, timeout=30, capture_output=True, text=True
        ).stdout
        self.assertIn(f"backing file: {self.known}\n", shown)

    def test_another_image_another_size_and_other_files_are_refused(self) -> None:
        self.create("-u", "-b", "/etc/shadow", "-F", "raw", self.part, "1M")
        self.assertRaises(exception.ImageUnacceptable, self.accept)
        self.assertRaises(exception.ImageUnacceptable, self.accept, backing=None)
        self.create(self.part, "1M")
        self.assertRaises(exception.ImageUnacceptable, self.accept)
        self.accept(backing=None)
        self.assertRaises(exception.ImageUnacceptable, self.accept, backing=None, size=2 * MIB)
        self.create("-o", f"data_file={self.root}/data", self.part, "1M")
        self.assertRaises(exception.ImageUnacceptable, self.accept, backing=None)
        for content in (
            b"",
            b"QFI\xfb",
            b"x" * 100,
            b"QFI\xfb" + struct.pack(">I", 3) + b"\xff" * 90,
        ):
            self.write(self.part, content)
            self.assertRaises(exception.ImageUnacceptable, self.accept, backing=None)

    def test_raw_disks_have_nothing_to_look_at(self) -> None:
        disk = self.disk.changed(format="raw", backing=None)
        self.assertIsNone(placement.accept_disk(self.context, disk, {}))
