"""Another compute host, with either driver: servers run there and move between the hosts."""

import concurrent.futures
import contextlib
from collections.abc import Iterator
from typing import Any

from tests.openstack.checks.base import Guest, wait_for
from tests.openstack.paths import FIRST, SECOND
from tests.openstack.second import SecondHostTest
from tests.openstack.switch.test_switch import OURS, THEIRS


class MovesTest(SecondHostTest):
    def test_servers_there_are_reached_through_the_network_of_the_first(self) -> None:
        self.start_second(THEIRS)
        bootable = self.create_volume("bootable", "--image", "guest")
        data = self.create_volume("data")
        with (
            self.subTest(THEIRS),
            self.server_there("from-theirs") as local,
            self.server_there("volume-backed", "--volume", bootable) as remote,
            self._plugged_in("from-theirs", data, local[1]),
            concurrent.futures.ThreadPoolExecutor() as pool,
        ):
            list(pool.map(self._running_there_and_back, (local, remote)))
        self.restart_second(OURS)
        with (
            self.subTest(OURS),
            self.server_there("from-ours") as local,
            self._plugged_in("from-ours", data, local[1]),
        ):
            self._running_there_and_back(local)

    @contextlib.contextmanager
    def _plugged_in(self, server: str, volume: str, guest: Guest) -> Iterator[None]:
        """For the time being a volume is plugged in, and keeps what was written to it."""
        self.attach(server, volume, guest)
        guest.write("vdb", server)
        yield
        self.assertEqual(server, guest.first_line("vdb"))
        self.detach(server, volume, guest)

    def _running_there_and_back(self, there: tuple[dict[str, Any], Guest]) -> None:
        """Live migration between this driver and the one of the second host; disks go along."""
        server, guest = there
        self.assertIn("10.77.0.", guest.run("ip -4 -o address show dev eth0"))
        boot = guest.boot()
        for source, destination in ((SECOND, FIRST), (FIRST, SECOND)):
            self.migrate_live(server, destination)
            shown = self.show(server["id"])
            self.assertEqual(
                (destination, "ACTIVE"), (shown["OS-EXT-SRV-ATTR:host"], shown["status"])
            )
            wait_for(guest.answers, 150, "the guest that has moved")
            self.assertEqual(boot, guest.boot())
            self.assertEqual("kept", guest.run("cat /root/kept"))
            self.assert_not_on(server, source)
