"""Moving what is switched off, and moving disks while their guests run."""

import os
import shutil
from typing import Any

from kvmdriver import exception, model
from tests.functional.base import guest_file
from tests.multihost.base import MultihostTest
from tests.multihost.laboratory import Host
from tests.multihost.workload import Workload


class ColdMigrationTest(MultihostTest):
    def test_there_and_back_with_everything(self) -> None:
        with self.agents():
            view = self.create(disks=[self.guest_disk(), {"size_mib": 48, "format": "raw"}])
            guest = self.guest_of(view)
            guest.run("echo kept > /root/kept; echo second > /dev/vdb; sync")
            with self.assertRaises(exception.MigrationRefused) as caught:
                self.api.cold_migration(view.name, "kvm2")
            self.assertEqual(["invalid_state"], [r["code"] for r in caught.exception.reasons])
            self.api.stop_instance(view.name, timeout=60)
            self.assertEqual("completed", self.api.cold_migration(view.name, "kvm2").state)
            self.assertEqual({"kvm2": "off"}, self.where(view.uuid))
            self.assertIn("GUEST: up", self.api.get_console_output(view.name, host="kvm2"))
            self.api.start_instance(view.name, host="kvm2")
            guest = self.guest_of(view)
            self.assertEqual("kept", guest.run("cat /root/kept"))
            self.assertEqual("second", guest.run("head -c 6 /dev/vdb"))
            self.api.stop_instance(view.name, timeout=60, host="kvm2")
            self.api.cold_migration(view.name, "kvm1", host="kvm2")
            self.assertEqual({"kvm1": "off"}, self.where(view.uuid))

    def test_with_certificates_everything_is_encrypted_by_default(self) -> None:
        with self.agents(transport=None, native_tls=None):
            image = self._image_of_its_own()
            view = self.create(disks=[image, {"size_mib": 48, "format": "raw"}])
            self.guest_of(view).run("echo kept > /root/kept; echo second > /dev/vdb; sync")
            self.api.stop_instance(view.name, timeout=60)
            # another content, as far as a host can tell that has not the image in its cache
            os.utime(image["image"]["path"], (1, 1))
            before = self._cached(self.second)
            self.assertEqual("completed", self.api.cold_migration(view.name, "kvm2").state)
            received = self._cached(self.second) - before
            # the image has no checksum: what the other host has sent is for nobody else
            self.assertEqual(["received"], [name.partition("-")[0] for name in received])
            self.api.start_instance(view.name, host="kvm2")
            guest = self.guest_of(view)
            self.assertEqual("kept", guest.run("cat /root/kept"))
            self.assertEqual("second", guest.run("head -c 6 /dev/vdb"))
            os.utime(image["image"]["path"], (2, 2))
            moved = self.api.live_migration(view.name, "kvm1", host="kvm2")
            self.assertEqual("completed", moved.state)
            self.assertEqual("kept", guest.run("cat /root/kept"))
            # back where the image lies, the instance has it from there again
            disk = self.api.get_instance(view.name).disks[0]
            described = self.first.run("qemu-img", "info", "-U", disk.path or "")
            self.assertNotIn("received-", described)
            self.assertIn("_base", described)

    def _image_of_its_own(self) -> dict[str, Any]:
        path = os.path.join(self.first.state, "image.qcow2")
        shutil.copyfile(guest_file("guest.qcow2"), path)
        os.utime(path, (2, 2))
        self.addCleanup(os.unlink, path)
        return {"image": {"type": "file", "path": path}}

    @staticmethod
    def _cached(host: Host) -> set[str]:
        directory = os.path.join(host.local_storage, "_base")
        return set(os.listdir(directory)) if os.path.isdir(directory) else set()

    def test_without_certificates_nothing_moves(self) -> None:
        with self.agents(transport=None, native_tls=None):
            view = self.create(nics=[])
            self.api.stop_instance(view.name, timeout=0)
            for host, role in ((self.second, "server"), (self.first, "client")):
                hidden = os.path.join(host.state, "pki", "qemu")
                os.rename(hidden, f"{hidden}.away")
                try:
                    with self.assertRaises(exception.MigrationRefused) as caught:
                        self.api.cold_migration(view.name, "kvm2")
                finally:
                    os.rename(f"{hidden}.away", hidden)
                reasons = caught.exception.reasons
                self.assertEqual({"tls"}, {reason["code"] for reason in reasons}, role)
                for reason in reasons:
                    self.assertEqual("kvm_migration.tls_directory", reason["field"])
                    self.assertIn("/etc/pki/qemu", reason["message"])
                    self.assertIn("native_tls", reason["remedy"])
                self.assertEqual({"kvm1": "off"}, self.where(view.uuid))
            self.assertFalse(os.path.exists(f"{self.second.local_storage}/{view.uuid}"))
            # only one of two hosts that has encryption switched off is not enough
            self.second.kill_agent()
            self.second.configure(native_tls=False)
            self.second.start_agent()
            with self.assertRaises(exception.MigrationRefused) as caught:
                self.api.cold_migration(view.name, "kvm2")
            fields = [reason["field"] for reason in caught.exception.reasons]
            self.assertEqual(["kvm_migration.native_tls"], fields)

    def test_with_shared_storage_nothing_is_copied(self) -> None:
        with self.agents(shared=True):
            view = self.create(nics=[])
            self.api.stop_instance(view.name, timeout=0)
            disk = os.stat(view.disks[0].path or "")
            self.api.cold_migration(view.name, "kvm2")
            self.assertEqual(disk.st_ino, os.stat(view.disks[0].path or "").st_ino)
            self.api.start_instance(view.name, host="kvm2")
            self.assertEqual({"kvm2": "running"}, self.where(view.uuid))

    def test_a_cable_that_is_cut_on_the_way(self) -> None:
        with self.agents():
            view = self.create(
                nics=[], disks=[self.guest_disk(), {"size_mib": 400, "format": "raw"}]
            )
            self.api.stop_instance(view.name, timeout=0)
            self.first.run(
                "dd", "if=/dev/urandom", f"of={view.disks[1].path}", "bs=1M", "count=400",
                "conv=notrunc", "status=none",
            )  # fmt: skip
            self.first.slow(200)
            try:
                with self.meanwhile(lambda: self.api.cold_migration(view.name, "kvm2")) as moved:
                    self.wait_for(lambda: view.uuid in self.second.domains())
                    self.api.live_migration_abort(view.name)
                    with self.assertRaises(exception.MigrationAborted):
                        moved.result(60)
            finally:
                self.first.slow(0)
            self.assertEqual({"kvm1": "off"}, self.where(view.uuid))
            self.api.start_instance(view.name)


class MoveDiskTest(MultihostTest):
    def test_a_disk_goes_elsewhere_while_its_guest_writes(self) -> None:
        elsewhere = os.path.join(self.first.state, "elsewhere")
        os.makedirs(elsewhere, exist_ok=True)
        with self.agents():
            self.first.kill_agent()
            with open(self.first.config, "a") as config:
                config.write(f"[kvm_storage]\ndisk_directories = {elsewhere}\n")
            self.first.start_agent()
            view = self.create()
            guest = self.guest_of(view)
            work = Workload(guest)
            work.start()
            with self.assertRaises(exception.InvalidRequest):
                self.api.move_disk(view.name, "vda", directory="/tmp")
            moved = self.api.move_disk(view.name, "vda", directory=elsewhere, disk_format="raw")
            self.assertEqual(elsewhere, os.path.dirname(moved.path or ""))
            self.assertFalse(os.path.exists(view.disks[0].path or ""))
            back = self.api.move_disk(
                view.name, "vda", directory=os.path.dirname(view.disks[0].path or ""),
                disk_format="qcow2",
            )  # fmt: skip
            self.assertEqual([], os.listdir(elsewhere))
            work.stop()
            work.check(self.api.get_console_output(view.name, kib=1024))
            self.api.stop_instance(view.name, timeout=60)
            moved = self.command_line(
                "server", "move", "disk", view.name, "vda", "--directory", elsewhere
            )
            self.assertEqual("qcow2", moved["format"])
            self.assertFalse(os.path.exists(back.path or ""))
            self.api.start_instance(view.name)
            self.guest_of(view).run("test -e /root/counter")
            self.api.terminate_instance(view.name)
            self.assertEqual([], os.listdir(elsewhere))

    def test_an_agent_killed_on_the_way(self) -> None:
        with self.agents():
            view = self.create(disks=[{"size_mib": 600, "format": "raw"}], nics=[])
            self.first.run(
                "dd", "if=/dev/urandom", f"of={view.disks[0].path}", "bs=1M", "count=500",
                "conv=notrunc", "status=none",
            )  # fmt: skip
            directory = os.path.dirname(view.disks[0].path or "")
            with self.meanwhile(lambda: self._ignoring_errors(view)) as moved:
                self.wait_for(lambda: len(self._disks(directory)) > 1)
                self.first.kill_agent()
                self.first.start_agent()
                moved.result(120)
            disks = self._disks(directory)
            self.assertEqual(1, len(disks), disks)
            self.assertEqual(
                os.path.join(directory, disks[0]), self.api.get_instance(view.name).disks[0].path
            )
            self.api.stop_instance(view.name, timeout=0)
            self.api.start_instance(view.name)

    @staticmethod
    def _disks(directory: str) -> list[str]:
        files = os.listdir(directory)
        return [n for n in files if n.startswith("disk") and n != "disk.config"]

    def _ignoring_errors(self, view: model.InstanceView) -> None:
        try:
            self.api.move_disk(view.name, "vda", disk_format="qcow2")
        except exception.KVMDriverError as error:
            self.seen = error
