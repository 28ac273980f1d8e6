"""Files that nobody else may read, and links that somebody has put in their way."""

import os
import stat
import tempfile
import threading
import time
import unittest
import uuid

from kvmdriver import exception
from kvmdriver.model import Instance
from kvmdriver.storage import backend, config_drive, private
from kvmdriver.storage.copy import copy_file, create_empty
from kvmdriver.storage.image_cache import CachedImage
from kvmdriver.storage.qemu_img import QemuImg
from kvmdriver.storage.store import InstanceStore


class PrivateTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = os.path.realpath(directory.name)
        self.victim = self.path("victim")
        with open(self.victim, "w") as file:
            file.write("precious")
        # nothing may depend on the umask of the process
        self.addCleanup(os.umask, os.umask(0))

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def mode(self, name: str) -> int:
        return stat.S_IMODE(os.lstat(self.path(name)).st_mode)

    def assert_unharmed(self) -> None:
        with open(self.victim) as file:
            self.assertEqual("precious", file.read())

    def makers(self):  # type: ignore[no-untyped-def]
        """Everything that makes a file, by the mode that it must have."""
        image = CachedImage(path=self.victim, size_mib=1)
        qemu_img = QemuImg()
        yield "empty", 0o640, lambda path: os.close(create_empty(path))
        for kind in ("qcow2", "raw"):
            maker = backend.load(kind, qemu_img)
            yield kind, 0o640, lambda path, m=maker: m.create(path, image=None, size_mib=1)
            yield kind, 0o640, lambda path, m=maker: m.create(path, image=image, size_mib=1)
        yield "target", 0o640, lambda path: qemu_img.create_target(path, "qcow2", 1 << 20)
        instance = Instance.parse({"name": "web", "disks": [{"size_mib": 1}], "config_drive": {}})
        yield "config drive", 0o640, lambda path: config_drive.write(instance, path)

    def test_modes_are_right_from_the_first_moment(self) -> None:
        for number, (name, mode, make) in enumerate(self.makers()):
            with self.subTest(name):
                make(self.path(f"file{number}"))
                self.assertEqual(mode, self.mode(f"file{number}"))
        QemuImg().convert(self.victim, "raw", self.path("converted"), "qcow2")
        self.assertEqual(0o640, self.mode("converted"))
        copy_file(self.victim, self.path("copied"))
        self.assertEqual(0o640, self.mode("copied"))

    @unittest.skipUnless(os.geteuid() == 0, "only root gives a file to another user")
    def test_root_makes_files_for_the_owner_of_the_directory(self) -> None:
        """root's command line and an agent that is not root work on the same instances."""
        os.chown(self.directory, 65534, 65533)
        for number, (name, _mode, make) in enumerate(self.makers()):
            with self.subTest(name):
                make(self.path(f"file{number}"))
                status = os.stat(self.path(f"file{number}"))
                self.assertEqual((65534, 65533), (status.st_uid, status.st_gid))
        copy_file(self.victim, self.path("copied"))
        store = InstanceStore(self.path("instances"))
        store.prepare()
        store.create(str(uuid.uuid4()))
        for path in (self.path("copied"), store.root, *store.directories()):
            self.assertEqual(65534, os.stat(path).st_uid, path)
        self.assertEqual(0, os.stat(self.victim).st_uid)

    def test_a_directory_is_required(self) -> None:
        for path in (self.path("a/b"), self.path("a/b")):
            private.require_directory(path)
            self.assertEqual(0o711, self.mode("a/b"))
        with self.assertRaises(OSError):
            private.require_directory(self.victim)

    def test_nothing_is_made_where_something_is(self) -> None:
        for number, (name, _mode, make) in enumerate(self.makers()):
            dangling = self.path(f"dangling{number}")
            link = self.path(f"link{number}")
            file = self.path(f"file{number}")
            os.symlink(self.path("nowhere"), dangling)
            os.symlink(self.victim, link)
            os.link(self.victim, file)
            for path in (dangling, link, file):
                with self.subTest(f"{name}: {path}"):
                    with self.assertRaises(exception.StorageError) as caught:
                        make(path)
                    self.assertIn("exists already", caught.exception.message)
                    self.assertEqual(path, caught.exception.value)
                    self.assertTrue(os.path.lexists(path), "somebody else's entry was removed")
            self.assert_unharmed()
            self.assertFalse(os.path.exists(self.path("nowhere")))

    def test_a_copy_follows_no_link(self) -> None:
        os.symlink(self.victim, self.path("link"))
        with open(self.path("source"), "w") as file:
            file.write("evil")
        with self.assertRaises(exception.StorageError):
            copy_file(self.path("source"), self.path("link"))
        self.assert_unharmed()
        self.assertTrue(os.path.islink(self.path("link")))

    def test_a_file_appears_under_its_name_once(self) -> None:
        with private.opened_directory(self.directory) as directory:
            part = private.create("part", directory=directory)
            self.addCleanup(os.close, part)
            with self.assertRaises(FileExistsError):
                private.publish(part, directory, "part", "victim")
            os.symlink(self.path("nowhere"), self.path("dangling"))
            with self.assertRaises(FileExistsError):
                private.publish(part, directory, "part", "dangling")
            private.publish(part, directory, "part", "whole")
        self.assert_unharmed()
        self.assertTrue(os.path.samestat(os.fstat(part), os.stat(self.path("whole"))))
        self.assertFalse(os.path.exists(self.path("part")))

    def test_the_file_is_named_and_not_what_has_its_name_by_now(self) -> None:
        with private.opened_directory(self.directory) as directory:
            part = private.create("part", directory=directory)
            self.addCleanup(os.close, part)
            os.unlink(self.path("part"))
            os.symlink(self.victim, self.path("part"))
            with self.assertRaises(OSError):  # what has no name cannot be given one
                private.publish(part, directory, "part", "whole")
        self.assertFalse(os.path.lexists(self.path("whole")))
        self.assert_unharmed()

    def test_a_directory_that_is_swapped_for_a_link(self) -> None:
        inner, other = self.path("a/b"), self.path("other/b")
        os.makedirs(inner)
        os.makedirs(other)
        stop = threading.Event()

        def swap() -> None:
            while not stop.is_set():
                os.rename(self.path("a"), self.path("aside"))
                os.symlink(self.path("other"), self.path("a"))
                os.unlink(self.path("a"))
                os.rename(self.path("aside"), self.path("a"))

        attacker = threading.Thread(target=swap)
        attacker.start()
        opened = tried = 0
        deadline = time.monotonic() + 60
        try:
            # how often the swap leaves the directory in its place depends on how busy the machine is
            while tried < 3000 or not opened and time.monotonic() < deadline:
                tried += 1
                try:
                    with private.opened_directory(inner) as descriptor:
                        found = os.fstat(descriptor)
                except exception.StorageError:
                    continue
                opened += 1
                self.assertFalse(os.path.samestat(found, os.stat(other)))
        finally:
            stop.set()
            attacker.join()
        self.assertTrue(opened, "the directory could never be opened")

    def test_directories_that_only_we_can_change(self) -> None:
        place = self.path("a/b")
        os.makedirs(place)
        os.chmod(self.path("a"), 0o755)
        os.chmod(place, 0o711)
        self.assertTrue(private.only_ours(place))
        os.chmod(place, 0o777)
        self.assertFalse(private.only_ours(place))
        os.chmod(place, 0o1777)
        self.assertTrue(private.only_ours(place))
        os.chmod(self.path("a"), 0o775)
        self.assertFalse(private.only_ours(place))

    def test_files_of_older_versions(self) -> None:
        for name, mode in (("open", 0o666), ("disk", 0o644), ("log", 0o600), ("ours", 0o640)):
            os.close(private.create(self.path(name), mode))
        os.chmod(self.victim, 0o644)
        os.mkdir(self.path("instance"))
        os.symlink(self.victim, self.path("instance/link"))
        os.link(self.path("open"), self.path("instance/second-name"))
        os.close(private.create(self.path("instance/disk"), 0o644))
        os.mkfifo(self.path("instance/fifo"), 0o666)
        self.assertEqual(1, private.tighten(self.path("instance")))
        self.assertEqual((0o640, 0o644), (self.mode("instance/disk"), self.mode("victim")))
        self.assertEqual(0o666, self.mode("open"))
        self.assertEqual(1, private.tighten(self.directory, ("disk",)))
        modes = [self.mode(name) for name in ("disk", "log", "ours", "victim")]
        self.assertEqual([0o640, 0o600, 0o640, 0o644], modes)
        os.symlink(self.path("instance"), self.path("linked"))
        os.chmod(self.path("instance/disk"), 0o644)
        self.assertEqual(0, private.tighten(self.path("linked")))
        self.assertEqual(0, private.tighten(self.path("gone")))
