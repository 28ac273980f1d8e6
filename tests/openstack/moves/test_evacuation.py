"""The second host dies; its servers are brought back on the first, and it returns."""

from typing import Any

from tests.openstack.checks.base import Guest, act, wait_for
from tests.openstack.paths import FIRST, SECOND
from tests.openstack.second import SecondHostTest
from tests.openstack.switch.test_switch import OURS


class EvacuationTest(SecondHostTest):
    def test_a_local_disk_is_made_afresh_and_a_volume_is_kept(self) -> None:
        self.start_second(OURS)
        volume = self.create_volume("kept", "--image", "guest")
        found = {}
        for name, on in (("afresh", ()), ("on-volume", ("--volume", volume))):
            server = self.create(name, "--host", SECOND, *on)
            found[name] = (server, self.reach(name))
            found[name][1].run("echo kept > /root/kept; sync")
        self.lose_second()
        for server, guest in found.values():
            self._evacuate(server, guest)
        boots = {}
        for (name, (_, guest)), text in zip(found.items(), ("", "kept"), strict=True):
            self.assertEqual(text, guest.run("cat /root/kept 2>/dev/null || true"))
            boots[name] = guest.boot()
        self.return_second(OURS)
        for name, (server, guest) in found.items():
            self._wait_for_cleanup(server)
            self.assert_not_on(server, SECOND)
            self.assertEqual(boots[name], guest.boot())

    def test_with_a_shared_directory_its_disk_is_kept(self) -> None:
        self.start_second(OURS, shared=True)
        server = self.create("kept", "--host", SECOND)
        guest = self.reach("kept")
        guest.run("echo kept > /root/kept; sync")
        boot = guest.boot()
        for destination in (FIRST, SECOND):
            self.migrate_live(server, destination)
            wait_for(guest.answers, 150, "the guest that has moved")
            self.assertEqual(boot, guest.boot())
        self.assertFalse(self.is_defined(server, FIRST))
        self.lose_second()
        self._evacuate(server, guest)
        self.assertEqual("kept", guest.run("cat /root/kept"))
        self.return_second(OURS)
        self._wait_for_cleanup(server)
        act("server", "reboot", "--hard", "--wait", server["id"])
        wait_for(guest.answers, 90, "the guest after a reboot")
        self.assertEqual("kept", guest.run("cat /root/kept"))

    def _wait_for_cleanup(self, server: dict[str, Any]) -> None:
        """The host that has returned drops what is another's by now."""
        wait_for(lambda: not self.is_defined(server, SECOND), 60, "the returning host's cleanup")

    def _evacuate(self, server: dict[str, Any], guest: Guest) -> None:
        # from 2.95 on nova would leave it stopped
        act("--os-compute-api-version", "2.94", "server", "evacuate", server["id"])
        wait_for(lambda: self.host_of(server) == FIRST, 90, "nova to choose the first host")
        self.wait_for_status(server["id"], "ACTIVE")
        wait_for(guest.answers, 120, "the guest that was brought back")
