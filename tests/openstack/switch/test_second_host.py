"""A second compute host, with the driver in-tree and with this one; servers go there and back."""

import os
from typing import Any

from tests.openstack.__main__ import restart_compute, second, stop
from tests.openstack.checks.base import PATHS, Guest, StackTest, act, openstack, run, wait_for
from tests.openstack.control import Control
from tests.openstack.paths import FIRST, SECOND
from tests.openstack.switch.test_switch import OURS, THEIRS


class SecondHostTest(StackTest):
    def test_servers_there_are_reached_through_the_network_of_the_first(self) -> None:
        self.assertEqual(0, second(PATHS, THEIRS))
        self.addCleanup(stop, Control(PATHS, SECOND))
        # nothing else is to be sent there before nova notices that it is gone
        self.addCleanup(act, "compute", "service", "set", "--disable", SECOND, "nova-compute")
        act("compute", "service", "set", "--enable", SECOND, "nova-compute")
        for driver in (THEIRS, OURS):
            with self.subTest(driver):
                self.assertEqual(0, restart_compute(PATHS, driver, SECOND))
                wait_for(self._is_up, 90, f"nova-compute with {driver}")
                name = driver.partition(".")[0]
                server = self.create(name, "--host", SECOND)
                self.assertEqual(SECOND, server["OS-EXT-SRV-ATTR:host"])
                guest = self.reach(name)
                self.assertIn("10.77.0.", guest.run("ip -4 -o address show dev eth0"))
                self._there_and_back(server, guest)
                act("server", "delete", "--wait", server["id"])
                self.assert_nothing_left(server, SECOND)

    def _there_and_back(self, server: dict[str, Any], guest: Guest) -> None:
        """Live migration with local disks, between this driver and the one of the second host."""
        guest.run("echo kept > /root/kept; sync")
        boot = guest.boot()
        for source, destination in ((SECOND, FIRST), (FIRST, SECOND)):
            act(
                *("--os-compute-api-version", "2.79", "server", "migrate", "--live-migration"),
                *("--host", destination, "--wait", server["id"]),
            )
            shown = openstack("server", "show", server["id"])
            self.assertEqual(
                (destination, "ACTIVE"), (shown["OS-EXT-SRV-ATTR:host"], shown["status"])
            )
            wait_for(guest.answers, 60, "the guest that has moved")
            self.assertEqual(boot, guest.boot())
            self.assertEqual("kept", guest.run("cat /root/kept"))
            there = "" if source == FIRST else f"{source}/"
            self.assertNotIn(server["id"], run(f"{there}virsh", "-q", "list", "--all", "--uuid"))
            self.assertNotIn(server["id"], os.listdir(PATHS.own_instances(source)))

    @staticmethod
    def _is_up() -> bool:
        services = openstack("compute", "service", "list", "--service", "nova-compute")
        return any(s["Host"] == SECOND and s["State"] == "up" for s in services)
