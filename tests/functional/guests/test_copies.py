"""Clones and snapshots, judged by what they contain."""

import hashlib
import os
import shutil

from kvmdriver import exception
from tests.functional.base import FunctionalTest, run


class CopiesTest(FunctionalTest):
    def test_clone(self) -> None:
        view = self.create(config_drive=self._drive())
        guest = self.wait_for_ssh(view.name)
        guest.run("echo original > /root/file; sync")
        name = self.name("-clone")
        self.refused(exception.InvalidState, self.api.clone_instance, view.name, name)
        self.api.stop_instance(view.name)
        progress = []
        clone = self.api.clone_instance(view.name, name, on_progress=progress.append)
        self.made.add(clone.uuid)
        again = self.api.clone_instance(view.name, name, uuid=clone.uuid)
        self.assertEqual(clone, again)
        self.refused(exception.InstanceExists, self.api.clone_instance, view.name, name)
        self.assertEqual("stopped", clone.status)
        self.assertNotEqual(view.uuid, clone.uuid)
        self.assertNotEqual(view.nics[0].mac, clone.nics[0].mac)
        info = run("qemu-img", "info", clone.disks[0].path)
        self.assertNotIn("backing file", info)
        # independent of the original: it goes before the clone starts
        self.api.terminate_instance(view.uuid)
        self.api.start_instance(clone.uuid)
        copy = self.wait_for_ssh(name)
        self.assertEqual("original", copy.run("cat /root/file"))
        self.assertEqual(name, copy.run("hostname"))
        self.assertEqual({clone.nics[0].mac}, copy.macs())
        self.assertEqual("ran", copy.run("cat /root/proof"))
        self.assertIn(clone.uuid, copy.run("cat /run/seed/meta_data.json"))

    def test_clone_by_virt_clone(self) -> None:
        """virt-clone puts the copy beside the original, and copies the metadata of the domain."""
        view = self.create(start=False)
        disk = view.disks[0].path
        name, copied = self.name("-clone"), f"{disk}-clone"
        run("virt-clone", "--original", view.name, "--name", name, "--auto-clone")
        self.addCleanup(run, "virsh", "undefine", name)
        self.assertTrue(os.path.exists(copied))
        # the record in the copied metadata is not the clone's
        self.assertNotIn(name, [server.name for server in self.api.list_instances()])
        error = self.refused(exception.InstanceNotFound, self.api.terminate_instance, name)
        self.assertIn("was not made by kvmdriver", error.message)
        self.assertTrue(os.path.exists(disk))
        # what the clone uses stays: its disk, and the config drive of the original
        kept = self.api.terminate_instance(view.name)
        drive = os.path.join(os.path.dirname(disk), "disk.config")
        self.assertEqual({copied, drive}, set(kept))
        self.assertEqual({"disk-clone", "disk.config"}, set(os.listdir(os.path.dirname(disk))))
        self.assertNotIn(os.path.dirname(disk), self.api.get_host().orphans)
        run("virsh", "start", name)
        run("virsh", "destroy", name)
        shutil.rmtree(os.path.dirname(disk))

    def _drive(self) -> dict:
        drive = self.request().config_drive
        return {
            "ssh_keys": list(drive.ssh_keys),
            "hostname": "first",
            "user_data": "#!/bin/sh\necho ran > /root/proof\n",
        }

    def test_snapshot_of_a_running_and_of_a_stopped_instance(self) -> None:
        view = self.create()
        guest = self.wait_for_ssh(view.name)
        guest.run("echo first > /root/file; sync")
        running = os.path.join(self.state, "running.qcow2")
        progress = []
        self.assertEqual(
            running,
            self.api.snapshot_instance(view.name, running, on_progress=progress.append),
        )
        self.assertEqual(["freeze", "thaw"], guest.run("cat /run/fsfreeze.log").split())
        error = self.refused(
            exception.InvalidRequest, self.api.snapshot_instance, view.name, running
        )
        self.assertEqual("path", error.field)
        guest.run("echo second > /root/file; sync")
        self.api.stop_instance(view.name)
        stopped = os.path.join(self.state, "stopped.raw")
        self.api.snapshot_instance(view.name, stopped, image_format="raw")
        self.assertEqual([], [n for n in os.listdir(self.state) if n.endswith(".part")])
        self.api.terminate_instance(view.uuid)
        for path, content in ((running, "first"), (stopped, "second")):
            self.assertNotIn("backing file", run("qemu-img", "info", path))
            copy = self.create(disks=[{"image": {"type": "file", "path": path}}])
            guest = self.wait_for_ssh(copy.name)
            self.assertEqual(content, guest.run("cat /root/file"))
            self.api.terminate_instance(copy.uuid)
            os.unlink(path)

    def test_keep_disks(self) -> None:
        view = self.create(start=False)
        kept = self.api.terminate_instance(view.name, keep_disks=True)
        self.assertEqual((view.disks[0].path,), kept)
        directory = os.path.dirname(kept[0])
        self.assertEqual(["disk"], os.listdir(directory))
        self.assertIn(directory, self.api.get_host().orphans)
        self.assertEqual((), self.api.terminate_instance(view.name))
        self.assert_kept_disks_stay(view.uuid, kept[0])
        os.unlink(kept[0])
        os.rmdir(directory)

    def assert_kept_disks_stay(self, uuid: str, path: str) -> None:
        """No request takes the UUID, whether it would succeed or fail, nor does a start of the agent."""
        with open(path, "rb") as disk:
            before = hashlib.sha256(disk.read()).hexdigest()
        missing = {"image": {"type": "file", "path": os.path.join(self.state, "missing")}}
        build = self.api.build_and_run_instance
        for disk_fields in ([{"size_mib": 8}], [missing]):
            error = self.refused(
                exception.InstanceExists, build, self.request(uuid=uuid, disks=disk_fields)
            )
            self.assertEqual("uuid", error.field)
            self.assertIn("--keep-disks", error.message)
        other = self.create(start=False, disks=[{"size_mib": 8}], nics=[])
        self.refused(
            exception.InstanceExists,
            self.api.clone_instance,
            other.name,
            self.name("-clone"),
            uuid=uuid,
        )
        self.agent._server.driver.init_host()
        self.assertEqual(["disk"], os.listdir(os.path.dirname(path)))
        with open(path, "rb") as disk:
            self.assertEqual(before, hashlib.sha256(disk.read()).hexdigest())
