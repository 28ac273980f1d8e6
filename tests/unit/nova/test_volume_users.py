"""One server of a host for each multiattach volume."""

import threading
import unittest
from unittest import mock

from kvmdriver import exception
from kvmdriver.nova.refusals import VolumeDemand
from kvmdriver.nova.volume_users import VolumeUsers

VOLUME = VolumeDemand(id="shared", name="vdb", multiattach=True)
PLAIN = VolumeDemand(id="plain", name="vdc")


class VolumeUsersTest(unittest.TestCase):
    def setUp(self) -> None:
        self.users = VolumeUsers()
        self.hypervisor = mock.Mock()
        self.hypervisor.disk_serials.return_value = {}

    def refused(self, uuid: str) -> None:
        with self.assertRaises(exception.Unsupported) as caught:
            self.users.check(self.hypervisor, uuid, [VOLUME])
        self.assertIn("shared", str(caught.exception))
        self.assertIn("first", str(caught.exception))

    def test_another_domain_has_it(self) -> None:
        self.hypervisor.disk_serials.return_value = {"first": {"shared"}, "third": {"plain"}}
        self.refused("second")
        # the same server may start again, and a volume with one user is nobody's business
        self.users.check(self.hypervisor, "first", [VOLUME])
        self.users.check(self.hypervisor, "second", [PLAIN])
        self.hypervisor.disk_serials.return_value = {"first": set()}
        self.users.check(self.hypervisor, "second", [VOLUME])

    def test_two_that_run_here_already_may_start_again(self) -> None:
        self.hypervisor.disk_serials.return_value = {"first": {"shared"}, "second": {"shared"}}
        for uuid in ("first", "second"):
            self.users.check(self.hypervisor, uuid, [VOLUME])

    def test_plain_volumes_ask_nothing(self) -> None:
        with self.users.reserved(self.hypervisor, "first", [PLAIN]):
            self.hypervisor.disk_serials.assert_not_called()

    def test_while_the_first_is_under_way(self) -> None:
        with self.users.reserved(self.hypervisor, "first", [VOLUME]):
            self.refused("second")
            self.users.check(self.hypervisor, "first", [VOLUME])
        self.users.check(self.hypervisor, "second", [VOLUME])

    def test_two_at_the_same_time(self) -> None:
        ready, go_on = threading.Barrier(2), threading.Event()
        won: list[str] = []
        lost: list[str] = []

        def take(uuid: str) -> None:
            ready.wait(10)
            try:
                with self.users.reserved(self.hypervisor, uuid, [VOLUME]):
                    won.append(uuid)
                    go_on.wait(10)
            except exception.Unsupported:
                lost.append(uuid)
                go_on.set()

        threads = [threading.Thread(target=take, args=(uuid,)) for uuid in ("a", "b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        self.assertEqual((1, 1), (len(won), len(lost)))

    def test_one_that_comes_by_live_migration(self) -> None:
        self.users.expect(self.hypervisor, "first", [VOLUME])
        self.refused("second")
        self.users.settle("first")
        self.users.settle("first")
        self.users.check(self.hypervisor, "second", [VOLUME])

    def test_the_last_one_disconnects(self) -> None:
        self.hypervisor.disk_serials.return_value = {"first": {"shared"}, "second": {"shared"}}
        with self.users.leaving(self.hypervisor, "first", "shared") as alone:
            self.assertFalse(alone)
        self.hypervisor.disk_serials.return_value = {"first": {"shared"}}
        with self.users.leaving(self.hypervisor, "first", "shared") as alone:
            self.assertTrue(alone)
            # a server that came now would lose the device that is about to be disconnected
            self.hypervisor.disk_serials.return_value = {}
            self.refused("second")
        self.users.check(self.hypervisor, "second", [VOLUME])
