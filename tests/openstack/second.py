"""What tests with a second compute host share."""

import concurrent.futures
import contextlib
import os
from collections.abc import Iterator
from typing import Any

from tests.openstack.__main__ import restart_compute, second, stop
from tests.openstack.checks.base import (
    PATHS,
    Failed,
    Guest,
    StackTest,
    act,
    openstack,
    run,
    wait_for,
)
from tests.openstack.control import Control
from tests.openstack.paths import FIRST, SECOND


class SecondHostTest(StackTest):
    """Servers on two hosts. The second is gone after each test."""

    def start_second(self, driver: str, *, shared: bool = False) -> None:
        """Start the second host, for the time of a test."""
        self.assertEqual(0, second(PATHS, driver, shared=shared))
        self.addCleanup(stop, Control(PATHS, SECOND))
        # nothing else is to be sent there before nova notices that it is gone
        self.addCleanup(self.service, SECOND, "--disable")

    def restart_second(self, driver: str) -> None:
        self.assertEqual(0, restart_compute(PATHS, driver, SECOND))
        wait_for(self._is_up, 90, f"nova-compute with {driver}")

    @contextlib.contextmanager
    def server_there(self, name: str, *arguments: str) -> Iterator[tuple[dict[str, Any], Guest]]:
        """A server on the second host; nothing of it is left there afterwards."""
        server = self.create(name, "--host", SECOND, *arguments)
        self.assertEqual(SECOND, server["OS-EXT-SRV-ATTR:host"])
        guest = self.reach(name)
        guest.run("echo kept > /root/kept; sync")
        yield server, guest
        act("server", "delete", "--wait", server["id"])
        self.assert_nothing_left(server, SECOND)

    def lose_second(self) -> None:
        """Switch the second host off, and tell nova so as whoever has fenced it would."""
        stop(Control(PATHS, SECOND))
        self.service(SECOND, "--down")

    def return_second(self, driver: str) -> None:
        """Switch the second host on again."""
        shared = os.path.exists(PATHS.shared)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            started = pool.submit(second, PATHS, driver, shared=shared)
            # nova lets nobody say so before the host has cleaned up what was evacuated
            wait_for(self._may_be_up, 80, "nova to take the second host back")
            self.assertEqual(0, started.result())
        wait_for(self._is_up, 90, "the second host")

    def _may_be_up(self) -> bool:
        try:
            self.service(SECOND, "--up")
        except Failed:
            return False
        return True

    @staticmethod
    def service(host: str, *change: str) -> None:
        act("compute", "service", "set", *change, host, "nova-compute")

    @staticmethod
    def _is_up() -> bool:
        services = openstack("compute", "service", "list", "--service", "nova-compute")
        return any(s["Host"] == SECOND and s["State"] == "up" for s in services)

    @staticmethod
    def host_of(server: dict[str, Any]) -> str:
        return str(openstack("server", "show", server["id"])["OS-EXT-SRV-ATTR:host"])

    @staticmethod
    def migrate_live(server: dict[str, Any], destination: str) -> None:
        act(
            *("--os-compute-api-version", "2.79", "server", "migrate", "--live-migration"),
            *("--host", destination, "--wait", server["id"]),
        )

    @staticmethod
    def is_defined(server: dict[str, Any], host: str) -> bool:
        there = "" if host == FIRST else f"{host}/"
        return server["id"] in run(f"{there}virsh", "-q", "list", "--all", "--uuid")

    def assert_not_on(self, server: dict[str, Any], host: str) -> None:
        """Neither a domain nor a file of it is there."""
        self.assertFalse(self.is_defined(server, host))
        files = os.listdir(PATHS.own_instances(host))
        self.assertEqual([], [name for name in files if name.startswith(server["id"])])
