"""Moving what is switched off, and moving disks while their guests run."""

import os

from kvmdriver import exception, model
from tests.multihost.base import MultihostTest
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
