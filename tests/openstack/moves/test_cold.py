"""Servers that are switched off go to the other host and back, with either driver there."""

from typing import Any

from tests.openstack.checks.base import Guest, act, wait_for
from tests.openstack.paths import FIRST, SECOND
from tests.openstack.second import SecondHostTest
from tests.openstack.switch.test_switch import OURS, THEIRS


class ColdMigrationTest(SecondHostTest):
    def test_there_and_back(self) -> None:
        self.start_second(THEIRS)
        for driver in (THEIRS, OURS):
            self.restart_second(driver)
            with self.subTest(driver), self.server_there(f"cold-{driver}") as (server, guest):
                self._switched_off_there_and_back(server, guest)
                self._to_another_size_and_back(server, guest)
            volume = self.create_volume(f"cold-{driver}", "--image", "guest")
            with (
                self.subTest(f"{driver}, on a volume"),
                self.server_there(f"volume-{driver}", "--volume", volume) as (server, guest),
            ):
                self._switched_off_there_and_back(server, guest)

    def _switched_off_there_and_back(self, server: dict[str, Any], guest: Guest) -> None:
        """Cold migration: the disks go over by ssh; confirmed, nothing is left of it."""
        for source, destination in ((SECOND, FIRST), (FIRST, SECOND)):
            boot = guest.boot()
            act("server", "migrate", "--host", destination, "--wait", server["id"])
            self.wait_for_status(server["id"], "VERIFY_RESIZE")
            self.assertEqual(destination, self.host_of(server))
            wait_for(guest.answers, 90, "the guest that has moved")
            self.assertNotEqual(boot, guest.boot())
            self.assertEqual("kept", guest.run("cat /root/kept"))
            act("server", "migration", "confirm", server["id"])
            self.wait_for_status(server["id"], "ACTIVE")
            self.assert_not_on(server, source)

    def _to_another_size_and_back(self, server: dict[str, Any], guest: Guest) -> None:
        """A resize to the other host that is taken back: the server is there as it was before."""
        self.service(SECOND, "--disable")
        try:
            act("server", "resize", "--flavor", "medium", "--wait", server["id"])
            self.wait_for_status(server["id"], "VERIFY_RESIZE")
        finally:
            self.service(SECOND, "--enable")
        self.assertEqual(FIRST, self.host_of(server))
        wait_for(guest.answers, 90, "the guest with its new size")
        self.assertEqual(2048, guest.disks_mib()["vda"])
        guest.run("echo changed > /root/kept; sync")
        act("server", "resize", "revert", server["id"])
        self.wait_for_status(server["id"], "ACTIVE")
        self.assertEqual(SECOND, self.host_of(server))
        wait_for(guest.answers, 90, "the guest with its old size")
        self.assertEqual(1024, guest.disks_mib()["vda"])
        self.assertEqual("kept", guest.run("cat /root/kept"))
        self.assert_not_on(server, FIRST)
