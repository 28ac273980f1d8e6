"""Another user of the host: what he can read, and where he can put links."""

import contextlib
import json
import os
import stat
import subprocess
import threading

from kvmdriver import exception, model
from tests import namespace
from tests.functional.base import FunctionalTest, guest_file, run
from tests.functional.guests.service import AgentTest

NOBODY = 65534
# tries to open each of the files whose paths it is given
READER = """
import json, sys
readable = []
for path in json.load(sys.stdin):
    try:
        with open(path, "rb") as file:
            file.read(1)
        readable.append(path)
    except PermissionError:
        pass
json.dump(readable, sys.stdout)
"""


def files_below(*directories: str) -> list[str]:
    found = []
    for top in directories:
        for directory, _names, files in os.walk(top):
            found += [os.path.join(directory, name) for name in files]
    return found


def readable_by_others(paths: list[str]) -> list[str]:
    """Files that a user without any rights of his own can read."""
    done = subprocess.run(
        ["/usr/bin/python3", "-c", READER],
        input=json.dumps(paths),
        capture_output=True,
        text=True,
        check=True,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
    )
    found: list[str] = json.loads(done.stdout)
    return found


class OtherUserTest(FunctionalTest):
    def setUp(self) -> None:
        super().setUp()
        self.images = os.path.join(self.state, "images")
        self.fast = os.path.join(self.state, "fast")
        for path in (self.images, self.fast):
            os.mkdir(path)
            os.chmod(path, 0o711)
        self.agent._server.driver._context.conf.set_override(
            "disk_directories", [self.fast], "kvm_storage"
        )
        self.control = os.path.join(self.state, "control")
        with open(self.control, "w") as file:
            file.write("for everybody")
        os.chmod(self.control, 0o644)

    def assert_private(self, *, least: int) -> None:
        """Nobody else reads any file of this test but the one that everybody may read."""
        paths = files_below(self.state)
        self.assertGreaterEqual(len(paths), least, paths)
        self.assertEqual([self.control], readable_by_others(paths))
        for path in paths:
            if path != self.control:
                self.assertEqual(0, os.stat(path).st_mode & 0o027, path)

    def test_nothing_can_be_read(self) -> None:
        drive = {
            "ssh_keys": list(self.request().config_drive.ssh_keys),
            "admin_password": "secret-password",
            "user_data": "#!/bin/sh\necho secret\n",
        }
        view = self.create(
            disks=[
                {"image": {"type": "file", "path": guest_file("guest.qcow2")}},
                {"size_mib": 8, "format": "raw"},
            ],
            config_drive=drive,
        )
        guest = self.wait_for_ssh(view.name)
        self.assert_private(least=7)
        # what comes while the guest runs works with such files, too
        self.api.attach_volume(view.name, model.Disk.parse({"size_mib": 8}))
        live = os.path.join(self.images, "live.qcow2")
        self.api.snapshot_instance(view.name, live)
        self.api.move_disk(view.name, "vda", directory=self.fast)
        guest.run("echo written > /root/file; sync; test $(ls -d /sys/block/vd? | wc -l) = 3")
        self.assert_private(least=9)
        self.api.stop_instance(view.name, timeout=60)
        self.api.snapshot_instance(
            view.name, os.path.join(self.images, "off.raw"), image_format="raw"
        )
        self.api.move_disk(view.name, "vdb", disk_format="qcow2")
        clone = self.api.clone_instance(view.name, self.name("-clone"))
        self.made.add(clone.uuid)
        self.assert_private(least=15)
        self.api.start_instance(view.name)
        self.assertEqual("written", self.wait_for_ssh(view.name).run("cat /root/file"))
        self.assert_private(least=15)
        self.api.terminate_instance(clone.uuid)
        # the image of a snapshot is one to make instances from
        copy = self.create(disks=[{"image": {"type": "file", "path": live}}])
        self.wait_for_ssh(copy.name)

    def test_a_kernel_and_a_cd(self) -> None:
        view = self.create(
            boot={
                "kernel": {"type": "file", "path": guest_file("vmlinuz")},
                "initrd": {"type": "file", "path": guest_file("initrd.img")},
                "cmdline": "console=ttyS0 quiet tsc=unstable guest.from=kernel",
            },
            disks=[
                {
                    "device": "cdrom",
                    "image": {"type": "file", "path": guest_file("installer.iso")},
                }
            ],
            config_drive=None,
            nics=[],
        )
        self.wait_for_console(view.name, "GUEST: cmdline")
        self.assert_private(least=7)

    def test_hosts_of_older_versions_are_mended(self) -> None:
        view = self.create(
            disks=[{"image": {"type": "file", "path": guest_file("guest.qcow2")}}], nics=[]
        )
        self.wait_for_console(view.name, "GUEST: up")
        self.api.move_disk(view.name, "vda", directory=self.fast)
        widened = files_below(self.instances, self.fast)
        for path in widened:
            os.chmod(path, 0o666)
        self.assertEqual(
            sorted([*widened, self.control]), sorted(readable_by_others(files_below(self.state)))
        )
        driver = self.agent._server.driver
        with self.assertLogs("kvmdriver.operations.reconcile", "WARNING") as log:
            driver.init_host()
        self.assertIn(f"{len(widened)} files could be read", "".join(log.output))
        self.assert_private(least=4)
        with self.assertNoLogs("kvmdriver.operations.reconcile", "WARNING"):
            driver.init_host()
        self.api.stop_instance(view.name, timeout=0)
        self.api.start_instance(view.name)
        self.wait_for_console(view.name, "GUEST: up")


class AgentLogTest(AgentTest):
    def test_the_log_and_what_the_agent_makes(self) -> None:
        view = self.remote_create(nics=[])
        self.wait_for_console(view.name, "GUEST: up")
        paths = [self.service.log, *files_below(self.instances)]
        self.assertEqual([], readable_by_others(paths))
        # a place that the agent made can be passed through by QEMU
        self.assertEqual(0o711, stat.S_IMODE(os.stat(f"{self.instances}/{view.uuid}").st_mode))


class LinksTest(FunctionalTest):
    """Somebody who can write to the directory of images, and knows the names that are used there."""

    def setUp(self) -> None:
        super().setUp()
        self.images = os.path.join(self.state, "images")
        self.disks = os.path.join(self.state, "disks")
        for path in (self.images, self.disks):
            os.mkdir(path)
        self.victim = os.path.join(self.state, "victim")
        with open(self.victim, "w") as file:
            file.write("precious")
        os.chmod(self.victim, 0o600)
        self.agent._server.driver._context.conf.set_override(
            "disk_directories", [self.disks], "kvm_storage"
        )
        self.view = self.create(disks=[{"size_mib": 8}], nics=[], config_drive=None, start=False)

    def assert_unharmed(self) -> None:
        with open(self.victim) as file:
            self.assertEqual("precious", file.read())
        status = os.stat(self.victim)
        self.assertEqual((0o600, os.geteuid()), (stat.S_IMODE(status.st_mode), status.st_uid))

    def test_a_snapshot_does_not_follow_links(self) -> None:
        os.symlink(self.victim, os.path.join(self.images, f".{self.view.uuid}.snapshot.part"))
        dangling = os.path.join(self.images, "dangling.qcow2")
        os.symlink(os.path.join(self.state, "nowhere"), dangling)
        for start in (False, True):
            if start:
                self.api.start_instance(self.view.name)
            for path in (dangling, self.victim):
                error = self.refused(
                    exception.InvalidRequest, self.api.snapshot_instance, self.view.name, path
                )
                self.assertIn("exists", error.message)
            path = os.path.join(self.images, f"good-{start}.qcow2")
            self.assertEqual(path, self.api.snapshot_instance(self.view.name, path))
            self.assertIn("qcow2", run("qemu-img", "info", path))
        self.assertFalse(os.path.exists(os.path.join(self.state, "nowhere")))
        self.assert_unharmed()

    def test_a_directory_in_which_others_swap_files(self) -> None:
        """Whatever appears there is replaced by a link to the victim as soon as it is seen."""
        os.chmod(self.images, 0o777)
        stop = threading.Event()

        def swap() -> None:
            while not stop.is_set():
                for name in os.listdir(self.images):
                    path = os.path.join(self.images, name)
                    if not name.startswith("good") and not os.path.islink(path):
                        with contextlib.suppress(FileNotFoundError):  # it has just got its name
                            os.unlink(path)
                            os.symlink(self.victim, path)

        attacker = threading.Thread(target=swap)
        attacker.start()
        try:
            for number in range(6):
                if number == 3:
                    self.api.start_instance(self.view.name)
                path = os.path.join(self.images, f"good-{number}.qcow2")
                try:
                    self.api.snapshot_instance(self.view.name, path)
                except exception.StorageError:
                    continue  # the attacker was faster, and has gained nothing
                self.assertTrue(stat.S_ISREG(os.lstat(path).st_mode))
                self.assertIn("qcow2", run("qemu-img", "info", path))
        finally:
            stop.set()
            attacker.join()
        self.assert_unharmed()
        left = os.listdir(os.path.join(self.instances, self.view.uuid))
        self.assertEqual([], [name for name in left if "snapshot" in name])

    def test_a_moved_disk_does_not_follow_links(self) -> None:
        target = os.path.join(self.disks, f"{self.view.uuid}.vda.qcow2")
        for start in (False, True):
            if start:
                self.api.start_instance(self.view.name)
            for end in ("nowhere", "victim"):
                os.symlink(os.path.join(self.state, end), target)
                error = self.refused(
                    exception.InvalidRequest,
                    self.api.move_disk,
                    self.view.name,
                    "vda",
                    directory=self.disks,
                )
                self.assertIn("already", error.message)
                self.assertTrue(os.path.islink(target))
                os.unlink(target)
        self.assertFalse(os.path.exists(os.path.join(self.state, "nowhere")))
        os.chmod(self.disks, 0o777)
        error = self.refused(
            exception.InvalidRequest,
            self.api.move_disk,
            self.view.name,
            "vda",
            directory=self.disks,
        )
        self.assertIn("chmod go-w", error.remedy)
        self.assertEqual([], os.listdir(self.disks))
        self.assert_unharmed()
        os.chmod(self.disks, 0o711)
        self.assertEqual(
            target, self.api.move_disk(self.view.name, "vda", directory=self.disks).path
        )

    def test_a_keymap_is_a_name(self) -> None:
        fifo = os.path.join(self.state, "fifo")
        os.mkfifo(fifo)
        for keymap in ("/dev/zero", fifo, "../../../../../etc/passwd", "common", "en-us\n", ""):
            with self.assertRaises(exception.InvalidRequest) as caught:
                self.request(consoles={"keymap": keymap})
            self.assertEqual("consoles.keymap", caught.exception.field)
        view = self.create(consoles={"keymap": "de"}, config_drive=None, nics=[])
        namespace.wait_for(lambda: self.api.get_instance(view.name).status == "running", 30)
