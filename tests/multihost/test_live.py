"""Live migration of guests that run, between hosts that share storage and hosts that do not."""

from tests.multihost.base import MultihostTest


class LiveMigrationTest(MultihostTest):
    def _there_and_back(self, **migration: object) -> None:
        view = self.create()
        guest = self.guest_of(view)
        guest.run("echo kept > /root/kept; sync")
        boot = guest.run("cat /proc/sys/kernel/random/boot_id")
        for source, destination in (("kvm1", "kvm2"), ("kvm2", "kvm1")):
            moved = self.api.live_migration(view.name, destination, host=source)
            self.assertEqual("completed", moved.state)
            self.assertEqual({destination: "running"}, self.where(view.uuid))
            self.assertEqual(boot, guest.run("cat /proc/sys/kernel/random/boot_id"))
            self.assertEqual("kept", guest.run("cat /root/kept"))
            print(moved)

    def test_shared_storage(self) -> None:
        with self.agents(shared=True):
            self._there_and_back()

    def test_local_disks(self) -> None:
        with self.agents():
            self._there_and_back()
