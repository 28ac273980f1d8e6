"""Live migration of guests that work, between hosts that share storage and hosts that do not."""

import time

from kvmdriver import exception, model
from tests.multihost.base import MultihostTest
from tests.multihost.workload import Workload

ROUNDS = 10


class LiveMigrationTest(MultihostTest):
    def _there_and_back(self, rounds: int) -> Workload:
        """Move a guest with an open session, a counter on the console and writes to its disk."""
        view = self.create()
        guest = self.guest_of(view)
        boot = guest.run("cat /proc/sys/kernel/random/boot_id")
        work = Workload(guest)
        work.start()
        hosts = ["kvm1", "kvm2"]
        for _ in range(rounds):
            source, destination = hosts
            moved = self.api.live_migration(view.name, destination, host=source)
            self.assertEqual("completed", moved.state)
            self.assertEqual({destination: "running"}, self.where(view.uuid))
            hosts.reverse()
        time.sleep(0.5)
        work.stop()
        self.assertEqual(boot, guest.run("cat /proc/sys/kernel/random/boot_id"))
        work.check(self.api.get_console_output(view.name, kib=1024, host=hosts[0]))
        print(f"{self.id()}: longest pause {work.longest_pause} ms, {work.counted} counted")
        return work

    def test_ten_times_with_shared_storage_and_tls(self) -> None:
        with self.agents(shared=True, transport="tls", native_tls=True):
            self.assertLess(self._there_and_back(ROUNDS).longest_pause, 5000)

    def test_ten_times_with_local_disks_and_tls(self) -> None:
        with self.agents(transport="tls", native_tls=True):
            self.assertLess(self._there_and_back(ROUNDS).longest_pause, 5000)

    def test_in_the_clear_over_ports_of_our_choice(self) -> None:
        with self.agents(ports="50100-50105", transport="tcp", native_tls=False):
            view = self.create(disks=[self.guest_disk(), {"size_mib": 64, "format": "raw"}])
            guest = self.guest_of(view)
            guest.run("echo kept > /root/kept; echo second > /dev/vdb; sync")
            listening: set[int] = set()
            options = model.MigrationOptions(bandwidth=20)
            with self.meanwhile(
                lambda: self.api.live_migration(view.name, "kvm2", options=options)
            ) as moved:
                while not moved.done():
                    lines = self.second.run("ss", "-Hltn").splitlines()
                    listening |= {int(line.split()[3].rpartition(":")[2]) for line in lines}
                    time.sleep(0.1)
            self.assertEqual("completed", moved.result().state)
            self.assertEqual({50100, 50101, 50102}, {p for p in listening if 50100 <= p < 50106})
            self.assertEqual("kept", guest.run("cat /root/kept"))
            self.assertEqual("second", guest.run("head -c 6 /dev/vdb"))
            full = model.MigrationOptions(full_copy=True)
            self.api.live_migration(view.name, "kvm1", host="kvm2", options=full)
            self.assertEqual("kept", guest.run("cat /root/kept"))
            disk = self.api.get_instance(view.name).disks[0]
            self.assertNotIn("backing", self.first.run("qemu-img", "info", "-U", disk.path or ""))

    def test_parallel_connections(self) -> None:
        with self.agents(parallel_connections=3):
            view = self.create()
            guest = self.guest_of(view)
            checked = self.command_line("server", "migrate", view.name, "kvm2", "--check")
            self.assertTrue(checked["possible"], checked)
            moved = self.command_line("server", "migrate", view.name, "kvm2", "--bandwidth", "200")
            self.assertEqual("completed", moved["state"])
            self.assertTrue(guest.answers())
            rows = self.command_line("server", "migration", "list")
            ended = [(row["Instance"], row["To"], row["State"], row["ID"]) for row in rows]
            self.assertEqual([(view.name, "kvm2", "completed", moved["id"])], ended)
            shown = self.command_line("server", "migration", "show", view.name)
            self.assertEqual(moved["id"], shown["id"])
            self.assertEqual(
                "completed\n", self.kvmdriver("server", "migration", "watch", view.name)
            )

    def test_tunnelled_and_paused(self) -> None:
        # encrypted as the tunnel is, whatever native_tls is by default
        with self.agents(shared=True, tunnelled=True, native_tls=None):
            view = self.create()
            guest = self.guest_of(view)
            self.api.pause_instance(view.name)
            self.assertEqual("completed", self.api.live_migration(view.name, "kvm2").state)
            self.assertEqual({"kvm2": "paused"}, self.where(view.uuid))
            # it has not run there, so QEMU has not taken its images over
            self.api.live_migration(view.name, "kvm1", host="kvm2")
            self.api.live_migration(view.name, "kvm2")
            self.assertEqual({"kvm2": "paused"}, self.where(view.uuid))
            self.api.unpause_instance(view.name, host="kvm2")
            self.assertTrue(guest.answers())

    def test_the_instance_stays_as_it_was_made(self) -> None:
        """Definition, autostart, config drive, password, addresses of devices: all goes along."""
        with self.agents():
            view = self.create(
                autostart=True,
                consoles={"vnc_password": "secret"},
                machine="q35",
                cpu={"mode": "none"},
            )
            self.guest_of(view)
            before = self._definition(self.first, view.uuid)
            self.api.live_migration(view.name, "kvm2")
            self.assertEqual(before, self._definition(self.second, view.uuid))
            self.assertTrue(self.api.get_instance(view.name, host="kvm2").autostart)
            self.api.stop_instance(view.name, timeout=60, host="kvm2")
            self.assertEqual("stopped", self.api.get_instance(view.name, host="kvm2").status)
            self.api.start_instance(view.name, host="kvm2")
            guest = self.guest_of(view)
            self.assertIn("sr0", guest.run("ls /sys/block"))

    def _definition(self, host, uuid: str) -> str:  # type: ignore[no-untyped-def]
        """What the guest gets at its next start, without what belongs to the host."""
        text = host.run("virsh", "dumpxml", "--inactive", "--security-info", uuid)
        kept = [
            line
            for line in text.splitlines()
            if "<kvmdriver:" not in line and "</kvmdriver:" not in line
        ]
        return "\n".join(kept).replace(host.local_storage, "/instances")


class RefusedMigrationTest(MultihostTest):
    def test_every_reason_is_named_at_once(self) -> None:
        with self.agents():
            self.first.run("ip", "link", "add", "onlyhere", "type", "bridge")
            taken = self.create(self.second, nics=[])
            view = self.create(nics=[{"type": "bridge", "source": "onlyhere"}])
            self.second.kill_agent()
            self.second.configure(native_tls=True, tls_directory="/nowhere")
            with open(self.second.config, "a") as config:
                config.write("[kvm]\nreserved_host_memory_mib = 10000000\n")
            self.second.start_agent()
            found = self.api.check_migration(view.name, "kvm2")
            self.assertFalse(found.possible)
            fields = {problem.field for problem in found.problems}
            self.assertEqual(
                {
                    "memory.maximum_mib",
                    "memory.current_mib",
                    "nics.0.source",
                    "kvm_migration.native_tls",
                },
                fields,
                found.problems,
            )
            with self.assertRaises(exception.MigrationRefused) as caught:
                self.api.live_migration(view.name, "kvm2")
            self.assertEqual(4, len(caught.exception.reasons))
            self.assertEqual({"kvm1": "running"}, self.where(view.uuid))
            self.assertNotIn(view.uuid, self.second.domains())
            self.assertIn(taken.uuid, self.second.domains())

    def test_certificates_that_have_expired(self) -> None:
        self.laboratory.authority.equip(
            f"{self.second.state}/pki", "kvm2", self.second.address, days=-1
        )
        try:
            with self.agents(shared=True, native_tls=True):
                view = self.create(nics=[])
                found = self.api.check_migration(view.name, "kvm2")
                self.assertEqual(["tls"], [problem.code for problem in found.problems])
                self.assertIn("expires", found.problems[0].message)
        finally:
            self.laboratory.authority.equip(
                f"{self.second.state}/pki", "kvm2", self.second.address
            )

    def test_a_host_that_cannot_be_reached(self) -> None:
        with self.agents():
            view = self.create(nics=[])
            self.second.cut()
            try:
                with self.assertRaises(exception.AgentUnreachable):
                    self.api.live_migration(view.name, "kvm2")
            finally:
                self.second.heal()
            self.assertEqual({"kvm1": "running"}, self.where(view.uuid))
            with self.assertRaises(exception.InvalidRequest):
                self.api.live_migration(view.name, "kvm1")
