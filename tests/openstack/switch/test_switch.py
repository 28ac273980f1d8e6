"""A host is switched from this driver to Nova's own and back, with its guests running."""

from tests.openstack.__main__ import restart_compute
from tests.openstack.checks.base import PATHS, StackTest, act, openstack, wait_for

OURS, THEIRS = "kvmdriver.KVMDriver", "libvirt.LibvirtDriver"


class SwitchTest(StackTest):
    def switch(self, driver: str) -> None:
        before = self._heard_of()
        self.assertEqual(0, restart_compute(PATHS, driver))
        wait_for(lambda: self._heard_of() > before, 90, f"nova-compute with {driver}")

    @staticmethod
    def _heard_of() -> str:
        services = openstack("compute", "service", "list", "--service", "nova-compute")
        return max(service["Updated At"] or "" for service in services)

    def test_there_and_back(self) -> None:
        self.addCleanup(restart_compute, PATHS, OURS)
        first = self.create("first", flavor="extra")
        guest = self.reach("first")
        boot = guest.boot()
        guest.run("echo kept > /root/file; sync")

        self.switch(THEIRS)
        self.assertEqual(boot, guest.boot(), "the guest does not notice")
        self.assertEqual("ACTIVE", self.show("first")["status"])
        act("server", "pause", "first")
        self.wait_for_status("first", "PAUSED")
        act("server", "unpause", "first")
        self.wait_for_status("first", "ACTIVE")
        act("server", "reboot", "--hard", "--wait", "first")
        self.assertEqual("kept", guest.wait().run("cat /root/file"))
        self.assertEqual(1024, guest.disks_mib()["vdb"])
        boot = guest.boot()
        second = self.create("second")
        other = self.reach("second")
        other_boot = other.boot()

        self.switch(OURS)
        self.assertEqual((boot, other_boot), (guest.boot(), other.boot()))
        for name, inside in (("first", guest), ("second", other)):
            act("server", "suspend", name)
            self.wait_for_status(name, "SUSPENDED")
            act("server", "resume", name)
            self.wait_for_status(name, "ACTIVE")
            inside.wait()
            act("server", "reboot", "--hard", "--wait", name)
            inside.wait()
        self.assertEqual("kept", guest.run("cat /root/file"))
        self.assertEqual((1024, 64), (guest.disks_mib()["vdb"], guest.disks_mib()["vdc"]))
        for server in (first, second):
            act("server", "delete", "--wait", server["id"])
            self.assert_nothing_left(server)
