"""One case: kill one thing at one moment, start it again, and wait until both agents are done.

Afterwards one guest is left, and nothing else.
"""

import os
import threading
import time
import unittest
from collections.abc import Callable, Iterable

import libvirt

from kvmdriver import exception, model
from tests import namespace
from tests.functional.base import Guest
from tests.multihost.base import MultihostTest
from tests.multihost.laboratory import Host
from tests.recovery import faults
from tests.recovery.faults import Fault, Trigger

# MiB/s: slow enough to be hit in the middle, and fast enough to come to an end soon
SLOW, FAST = 6, 25
SETTLED_SECONDS = 90
ANSWER_SECONDS = 40


class FaultCase(MultihostTest):
    """One guest for all cases, wherever the one before has left it."""

    view: model.InstanceView | None = None
    guest: Guest
    seen: dict[Fault, tuple[str, str]]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.seen = {}
        for host in cls.laboratory.hosts:
            host.configure(dirty_rate_seconds=2)
            host.start_agent()

    def tearDown(self) -> None:
        unittest.TestCase.tearDown(self)  # the guest stays for the next case

    # Where the guest is

    def guest_host(self) -> Host:
        """Where the guest runs, after it has been started again or made where there is none."""
        cls = type(self)
        view = self.view
        for host in self.laboratory.hosts if view is not None else ():
            assert view is not None
            state = host.domains().get(view.uuid)
            if state is None:
                continue
            try:
                if state != "running":
                    self.api.start_instance(view.uuid, host=host.name)
                self.guest_of(view)
                return host
            except (AssertionError, exception.KVMDriverError):
                self._start_over()  # a case that has failed must not fail the others
                break
        cls.view = self.create(self.first)
        cls.guest = self.guest_of(cls.view)
        return self.first

    def _start_over(self) -> None:
        """Hosts as they were at first."""
        for host in self.laboratory.hosts:
            host.kill_agent()
        MultihostTest.tearDown(self)
        for host in self.laboratory.hosts:
            host.start_agent()

    def unresolved(self) -> list[str]:
        """Migrations that an agent has not done with, or an agent that cannot say."""
        found = []
        for host in self.laboratory.hosts:
            try:
                views = self.api.list_migrations(host=host.name)
                found += [v.state for v in views if v.state not in model.migration.ENDED]
            except exception.KVMDriverError as error:
                found.append(error.code)
        return found

    def files_on(self, host: Host) -> set[str]:
        assert self.view is not None
        directory = os.path.join(host.local_storage, self.view.uuid)
        return set(os.listdir(directory)) if os.path.isdir(directory) else set()

    # One case

    def strike(self, fault: Fault) -> None:
        source = self.guest_host()
        destination = next(host for host in self.laboratory.hosts if host is not source)
        assert self.view is not None
        view = self.view
        victim = source if fault.side == "source" else destination
        outcome: list[object] = []

        def move() -> None:
            try:
                slow = fault.state in ("prepare", "run")
                options = model.MigrationOptions(bandwidth=SLOW if slow else FAST)
                outcome.append(
                    self.api.live_migration(
                        view.uuid, destination.name, options=options, host=source.name
                    )
                )
            except exception.KVMDriverError as error:
                outcome.append(error)

        mover = threading.Thread(target=move)
        mover.start()
        try:
            self._strike_at(fault, source, destination, victim)
            # longer than the keepalive of libvirtd
            time.sleep(12 if fault.victim == "link" else 1)
        finally:
            faults.repair(victim, fault.victim)
            mover.join(120)
        self.assertFalse(mover.is_alive(), "the call does not end")
        try:
            namespace.wait_for(lambda: not self.unresolved(), SETTLED_SECONDS, 0.5)
        except AssertionError:
            self.fail(
                f"{self.unresolved()}, {self.where(view.uuid)}\n{self._jobs()}\n{self.logs()}"
            )
        self._judge(fault, source, destination)

    def _jobs(self) -> str:
        """What libvirt and QEMU say of the migration, where there still is a guest."""
        assert self.view is not None
        said = []
        for host in self.laboratory.hosts:
            for command in (
                ("domstate", "--reason", self.view.uuid),
                ("domjobinfo", self.view.uuid),
                *(
                    ("qemu-monitor-command", self.view.uuid, f'{{"execute": "{query}"}}')
                    for query in ("query-migrate", "query-block-jobs", "query-status")
                ),
            ):
                output = host.run("timeout", "10", "virsh", *command, check=False)
                said.append(f"{host.name} {command[0]} {command[-1]}: {output.strip()}")
        return "\n".join(said)

    def _strike_at(self, fault: Fault, source: Host, destination: Host, victim: Host) -> None:
        assert self.view is not None
        uuid = self.view.uuid
        if fault.state == "prepare":
            namespace.wait_for(lambda: uuid in destination.domains(), 30, 0.02)
            time.sleep(0.5)
            faults.killer(victim, fault.victim, uuid)()
            return
        faults.wait_for_qemu(destination, uuid)
        time.sleep(0.5)
        kill = faults.killer(victim, fault.victim, uuid)
        if fault.state == "run":
            kill()
            return
        where, kind, detail = {
            "switch-over": (
                source,
                libvirt.VIR_DOMAIN_EVENT_SUSPENDED,
                libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED,
            ),
            "finish": (
                destination,
                libvirt.VIR_DOMAIN_EVENT_RESUMED,
                libvirt.VIR_DOMAIN_EVENT_RESUMED_MIGRATED,
            ),
        }[fault.state]
        trigger = Trigger(where, uuid, kind, detail, kill)
        try:
            self.assertTrue(trigger.happened.wait(90), f"{fault.state} never came")
        finally:
            trigger.close()

    def _judge(self, fault: Fault, source: Host, destination: Host) -> None:
        assert self.view is not None
        uuid = self.view.uuid
        found = self.where(uuid)
        self.assertEqual(1, len(found), f"{found}\n{self.logs()}")
        name, state = next(iter(found.items()))
        owner = source if name == source.name else destination
        other = destination if owner is source else source
        own_qemu_was_killed = fault.victim == "QEMU" and (
            owner is (source if fault.side == "source" else destination)
        )
        if not own_qemu_was_killed:
            self.assertEqual("running", state, self.logs())
            self._assert_alive()
        self.assertEqual(set(), self.files_on(other), "files are left")
        self.assertEqual([], faults.pids(other, f"-uuid {uuid}"), "a QEMU is left")
        left = {n for n in self.files_on(owner) if n.startswith("migration-") or ".part" in n}
        self.assertEqual(set(), left, "files are left")
        self.assertEqual(
            "", owner.run("ss", "-Hltn", "sport = :49152 or sport = :49153", check=False)
        )
        side = "source" if owner is source else "destination"
        self.seen[fault] = (side, state)

    def _assert_alive(self) -> None:
        # switches that have learnt its place on the other host take a while to learn better
        try:
            namespace.wait_for(self.guest.answers, ANSWER_SECONDS, 0.5)
        except AssertionError:
            assert self.view is not None
            type(self).view, view = None, self.view
            host = next(iter(self.where(view.uuid)))
            console = self.api.get_console_output(view.uuid, host=host)
            self.api.terminate_instance(view.uuid, host=host)
            self.fail(f"the guest is dead:\n{console[-1500:]}\n{self.logs()}")


def add_cases(cls: type[FaultCase], chosen: Iterable[Fault]) -> None:
    """Give a class one test for each fault, to be run in that order."""
    for number, fault in enumerate(chosen):
        name = fault.name.replace(" ", "_").replace("-", "_").lower()
        setattr(cls, f"test_{number:02}_{name}", _case(fault))


def _case(fault: Fault) -> Callable[[FaultCase], None]:
    def test(self: FaultCase) -> None:
        self.strike(fault)

    test.__doc__ = fault.name
    return test
