"""Hosts that die: their instances come back on others, and they return without them."""

import concurrent.futures
import os
import pathlib

from kvmdriver import exception, model
from kvmdriver.model.evacuation import Description
from tests.multihost.base import MultihostTest


class EvacuationTest(MultihostTest):
    hosts = 3

    def test_with_shared_storage_nothing_but_memory_is_lost(self) -> None:
        with self.agents(shared=True):
            view = self.create(autostart=True)
            guest = self.guest_of(view)
            guest.run("echo kept > /root/kept; sync")
            self.assertEqual([], self.api.left_instances("kvm2", host="kvm1"))
            with self.assertRaises(exception.InvalidRequest) as unvouched:
                self.api.evacuate(view.name, "kvm1", host="kvm2")
            self.assertEqual("fenced", unvouched.exception.field)
            with self.assertRaisesRegex(exception.InvalidState, "its agent answers"):
                self.api.evacuate(view.name, "kvm1", fenced=True, host="kvm2")
            self.first.crash()
            evacuate = ("server", "evacuate", "kvm1")
            left = self.command_line(*evacuate, "--list", host=self.second)
            self.assertEqual([(view.name, True)], [(i["Name"], i["Autostart"]) for i in left])
            rows = self.command_line(*evacuate, "--fenced", host=self.second)
            self.assertEqual([(view.uuid, "running")], [(r["UUID"], r["Status"]) for r in rows])
            back = self.api.get_instance(view.name, host="kvm2")
            self.assertTrue(back.autostart)
            self.assertEqual(view.nics[0].mac, back.nics[0].mac)
            self.assertEqual("kept", self.guest_of(view).run("cat /root/kept"))
            again = self.api.evacuate(view.name, "kvm1", fenced=True, host="kvm2")
            self.assertEqual(view.uuid, again.uuid)
            # it starts with its host, which knows nothing yet: QEMU's locks keep it out
            self.restore()
            self.wait_for(lambda: view.uuid not in self.first.domains())
            self.assertEqual({"kvm2": "running"}, self.where(view.uuid))
            self.assertEqual("kept", guest.run("cat /root/kept"))
            # whether or not the first host has been told to forget it by now
            moved = self.api.live_migration(view.name, "kvm1", host="kvm2")
            self.assertEqual("completed", moved.state)
            self.api.stop_instance(view.name, timeout=60)
            self.api.start_instance(view.name)
            self.assertEqual("kept", self.guest_of(view).run("cat /root/kept"))

    def test_a_guest_that_still_runs_is_not_brought_back(self) -> None:
        with self.agents(shared=True):
            view = self.create()
            guest = self.guest_of(view)
            self.first.kill_agent()
            with self.assertRaises(exception.MigrationRefused) as caught:
                self.api.evacuate(view.name, "kvm1", fenced=True, host="kvm2")
            reasons = caught.exception.reasons
            self.assertEqual(["fenced"], [reason["field"] for reason in reasons], reasons)
            self.assertEqual({"kvm1": "running"}, self.where(view.uuid))
            self.assertTrue(guest.answers())
            self.first.start_agent()
            self.assertEqual("running", self.api.get_instance(view.name).status)

    def test_two_hosts_and_a_killed_agent_bring_back_one_guest(self) -> None:
        with self.agents(shared=True):
            view = self.create(nics=[])
            self.first.crash()
            with concurrent.futures.ThreadPoolExecutor() as pool:
                calls = [pool.submit(self._try, view, name) for name in ("kvm2", "kvm3")]
                outcomes = [call.result(120) for call in calls]
            self.assertEqual(1, outcomes.count("running"), outcomes)
            places = self.where(view.uuid)
            self.assertEqual(["running"], list(places.values()))
            # the one that has it dies as well, and the third is killed while it takes over
            owner, other = sorted(self.laboratory.hosts[1:], key=lambda h: h.name not in places)
            owner.crash()
            try:
                with self.meanwhile(lambda: self._try(view, other.name, owner.name)):
                    self.wait_for(lambda: view.uuid in other.domains())
                    other.kill_agent()
                    other.start_agent()
                self.assertEqual("running", self._try(view, other.name, owner.name))
                self.assertEqual({other.name: "running"}, self.where(view.uuid))
            finally:
                owner.boot()
                owner.start_agent()
                self.restore()
            self.wait_for(lambda: list(self.where(view.uuid)) == [other.name])

    def _try(self, view: model.InstanceView, host: str, source: str = "kvm1") -> str:
        try:
            return self.api.evacuate(view.name, source, fenced=True, host=host).status
        except exception.KVMDriverError as error:
            return error.code

    def test_without_shared_storage_it_is_made_afresh(self) -> None:
        with self.agents():
            view = self.create(disks=[self.guest_disk(), {"size_mib": 16, "format": "raw"}])
            self.guest_of(view).run("echo lost > /root/lost; sync")
            backup = pathlib.Path(self.first.local_storage, view.uuid, "instance.json").read_text()
            description = Description.from_json(backup)
            self.first.crash()
            with self.assertRaises(exception.InstanceNotFound) as nowhere:
                self.api.evacuate(view.name, "kvm1", fenced=True, host="kvm2")
            self.assertEqual("description", nowhere.exception.field)
            with self.assertRaises(exception.InvalidRequest) as unwanted:
                self.api.evacuate(
                    view.name, "kvm1", fenced=True, description=description, host="kvm2"
                )
            self.assertEqual("rebuild", unwanted.exception.field)
            self.api.evacuate(
                view.name, "kvm1", fenced=True, description=description, rebuild=True, host="kvm2"
            )
            guest = self.guest_of(view)
            self.assertEqual("", guest.run("ls /root/lost 2>/dev/null || true"))
            self.restore()
            self.wait_for(lambda: view.uuid not in self.first.domains())
            self.assertFalse(os.path.exists(f"{self.first.local_storage}/{view.uuid}"))
            self.assertEqual({"kvm2": "running"}, self.where(view.uuid))
            self.assertTrue(guest.answers())

    def test_nothing_is_left_of_an_evacuation_that_fails(self) -> None:
        with self.agents():
            view = self.create(nics=[])
            backup = pathlib.Path(self.first.local_storage, view.uuid, "instance.json").read_text()
            description = Description.from_json(backup)
            disk = description.instance.disks[0]
            gone = disk.changed(image={"type": "file", "path": "/nonexistent.qcow2"})
            spoilt = description.changed(instance=description.instance.changed(disks=(gone,)))
            self.first.crash()
            with self.assertRaises(exception.ImageNotFound):
                self.api.evacuate(
                    view.name, "kvm1", fenced=True, description=spoilt, rebuild=True, host="kvm2"
                )
            self.assertEqual({}, self.where(view.uuid))
            self.assertFalse(os.path.exists(f"{self.second.local_storage}/{view.uuid}"))
            self.restore()
            self.api.start_instance(view.name)
