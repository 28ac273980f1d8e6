"""libvirtd goes away in the middle of an operation and comes back: done or not done, nothing left.

libvirtd is killed, or stopped for longer than calls wait, right before or after one step of an
operation. The agent lives on, and mends what the operation has left without being asked.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal
from unittest import mock

from kvmdriver import exception, model
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.record import Owner, Task, TaskName
from kvmdriver.storage.qemu_img import QemuImg
from tests import namespace
from tests.functional.base import FunctionalTest, run

How = Literal["kill", "stop"]
_CLONE = "6a1b4f0e-93c5-4f0c-9d0a-0b7f3c1b2a77"
_SETTLED_SECONDS = 90
# Longer than the keepalive takes to notice, and longer than a call may take.
_SHORT, _LONG = 2, 14


class LibvirtdAwayTest(FunctionalTest):
    """Each operation of which a part is lost with the connection."""

    config = {"kvm": {"keepalive_interval": 1, "keepalive_count": 2, "call_timeout": 4}}

    def setUp(self) -> None:
        super().setUp()
        self.driver = self.agent._server.driver
        self.back: threading.Thread | None = None

    @contextlib.contextmanager
    def losing_libvirtd(
        self, where: Any, step: str, how: How, seconds: float, *, after: bool = False
    ) -> Iterator[None]:
        """In the body, libvirtd goes at the first ``step``, and is back so many seconds later."""
        original, struck = getattr(where, step), threading.Event()

        def work(*arguments: Any, **named: Any) -> Any:
            first = not struck.is_set()
            struck.set()
            if first and not after:
                self.lose(how, seconds)
            answer = original(*arguments, **named)
            if first and after:
                self.lose(how, seconds)
            return answer

        with mock.patch.object(where, step, work):
            yield
        self.assertTrue(struck.is_set(), "the step never came")
        assert self.back is not None
        self.back.join()

    def lose(self, how: How, seconds: float) -> None:
        with open(namespace.PIDFILE) as pidfile:
            pid = int(pidfile.read())
        if how == "stop":
            os.kill(pid, signal.SIGSTOP)
            come_back: Callable[[], None] = lambda: os.kill(pid, signal.SIGCONT)  # noqa: E731
        else:
            os.kill(pid, signal.SIGKILL)
            namespace.wait_for(lambda: not os.path.exists(f"/proc/{pid}"))
            come_back = namespace.start_libvirtd
        self.back = threading.Timer(seconds, come_back)
        self.back.start()

    def outcome(self, call: Callable[[], Any]) -> exception.KVMDriverError | None:
        """The error of a call that may end either way."""
        try:
            call()
        except exception.KVMDriverError as error:
            return error
        return None

    def settle(self) -> None:
        """Wait until the agent has mended everything, by itself."""

        def settled() -> bool:
            with contextlib.suppress(exception.KVMDriverError):
                tasks = [view.task for view in self.api.list_instances() if view.task]
                return not self.driver.has_unmended() and not tasks
            return False

        namespace.wait_for(settled, _SETTLED_SECONDS, 0.3)

    def assert_clean(self, uuid: str) -> None:
        """Nothing of an instance is left, though nobody has deleted it."""
        self.refused(exception.InstanceNotFound, self.api.get_instance, uuid)
        self.assertFalse(os.path.exists(f"{self.instances}/{uuid}"))
        self.assertNotIn(uuid, run("virsh", "-q", "list", "--all", "--uuid"))
        self.assertNotIn(uuid, run("pgrep", "-af", "qemu-system", check=False))
        self.assertNotIn("vnet", run("ip", "-br", "link"))

    def disks(self, uuid: str) -> list[str]:
        """Targets of the disks in the running and in the persistent definition, which are equal."""
        found = [
            {
                line.split()[0]
                for line in run("virsh", "-q", "domblklist", *flags, uuid).splitlines()
            }
            for flags in ((), ("--inactive",))
        ]
        self.assertEqual(found[0], found[1])
        return sorted(found[0])

    # Create

    def check_create(self, how: How, seconds: float, *, after: bool) -> None:
        beside = self.create(nics=[], config_drive=None)
        pid = run("cat", f"/run/libvirt/qemu/{beside.name}.pid")
        request = self.request(config_drive=None)
        self.made.add(request.uuid)
        with self.losing_libvirtd(Domain, "start", how, seconds, after=after):
            error = self.outcome(lambda: self.driver.spawn(request, request_id="r1"))
        self.settle()
        self.assertIsInstance(error, exception.HypervisorUnavailable)
        self.assert_clean(request.uuid)
        # the same request is as good as ever
        self.assertEqual("running", self.driver.spawn(request, request_id="r1").status)
        self.assertEqual(pid, run("cat", f"/run/libvirt/qemu/{beside.name}.pid"))

    def test_create_killed_after_the_start(self) -> None:
        self.check_create("kill", _SHORT, after=True)

    def test_create_stopped_before_the_start(self) -> None:
        self.check_create("stop", _LONG, after=False)

    # Clone

    def check_clone(self, how: How, seconds: float) -> None:
        source = self.create(start=False, nics=[], config_drive=None)
        self.made.add(_CLONE)

        def clone() -> model.InstanceView:
            return self.driver.clone(
                source.name, name=self.name("-clone"), uuid=_CLONE, request_id="r1"
            )

        name = self.name("-clone")
        with (
            mock.patch.object(self, "name", return_value=name),
            self.losing_libvirtd(QemuImg, "convert", how, seconds),
        ):
            error = self.outcome(clone)
            self.settle()
            if error is not None:
                self.assert_clean(_CLONE)
            # never "ok" for an instance without a disk
            self.assertEqual(_CLONE, clone().uuid)
        self.assertTrue(os.path.exists(f"{self.instances}/{_CLONE}/disk"))
        self.api.start_instance(_CLONE)
        self.wait_for_console(_CLONE, "GUEST: up")

    def test_clone_killed(self) -> None:
        self.check_clone("kill", _SHORT)

    def test_clone_stopped(self) -> None:
        self.check_clone("stop", _LONG)

    # Attach and detach

    def check_attach(self, how: How, seconds: float, *, after: bool) -> None:
        view = self.create(nics=[], config_drive=None)
        before = self.disks(view.uuid)
        disk = model.Disk(size_mib=8)
        with self.losing_libvirtd(Domain, "attach", how, seconds, after=after):
            error = self.outcome(lambda: self.driver.attach_disk(view.name, disk, request_id="r1"))
        self.settle()
        shown = self.api.get_instance(view.name)
        if error is not None and len(shown.disks) == 1:
            self.assertEqual(before, self.disks(view.uuid))
            self.assertFalse(os.path.exists(f"{self.instances}/{view.uuid}/disk.vdb"))
        for _ in range(2):
            self.assertEqual("vdb", self.driver.attach_disk(view.name, disk, request_id="r1").name)
        self.assertEqual([*before, "vdb"], self.disks(view.uuid))
        self.assertEqual(2, len(self.api.get_instance(view.name).disks))

    def test_attach_killed_after_the_device_came(self) -> None:
        self.check_attach("kill", _SHORT, after=True)

    def test_attach_killed_before_the_device_came(self) -> None:
        self.check_attach("kill", _SHORT, after=False)

    def test_attach_stopped(self) -> None:
        self.check_attach("stop", _LONG, after=False)

    def test_detach_and_delete_killed(self) -> None:
        view = self.create(start=False, nics=[], config_drive=None)
        self.driver.attach_disk(view.name, model.Disk(size_mib=8))
        path = f"{self.instances}/{view.uuid}/disk.vdb"
        with self.losing_libvirtd(Domain, "detach", "kill", _SHORT, after=True):
            self.outcome(
                lambda: self.driver.detach_disk(view.name, "vdb", delete=True, request_id="r1")
            )
        self.settle()
        self.assertEqual(1, len(self.api.get_instance(view.name).disks))
        self.assertFalse(os.path.exists(path))
        self.assertIsNone(self.driver.detach_disk(view.name, "vdb", delete=True, request_id="r1"))

    # Delete

    def test_delete_killed(self) -> None:
        view = self.create(config_drive=None)
        with self.losing_libvirtd(Domain, "destroy", "kill", _SHORT, after=True):
            self.outcome(lambda: self.api.terminate_instance(view.name))
        self.settle()
        self.api.terminate_instance(view.uuid)
        self.assert_clean(view.uuid)

    def test_delete_stopped(self) -> None:
        view = self.create(config_drive=None)
        with self.losing_libvirtd(Domain, "undefine", "stop", _LONG):
            self.outcome(lambda: self.api.terminate_instance(view.name))
        self.settle()
        self.assert_clean(view.uuid)

    # Reboot

    def check_reboot(self, how: How, seconds: float, step: str, *, after: bool) -> None:
        view = self.create(nics=[], config_drive=None)
        self.wait_for_console(view.name, "GUEST: up")

        def reboot() -> None:
            self.driver.reboot(view.name, hard=True, timeout=0, request_id="r1")

        with self.losing_libvirtd(Domain, step, how, seconds, after=after):
            self.outcome(reboot)
        self.settle()
        shown = self.api.get_instance(view.name)
        self.assertEqual(("running", None), (shown.status, shown.task))
        self.wait_for_console(view.name, "GUEST: up")
        reboot()
        self.assertEqual("running", self.api.get_instance(view.name).status)

    def test_hard_reboot_killed_while_the_guest_is_off(self) -> None:
        self.check_reboot("kill", _SHORT, "destroy", after=True)

    def test_hard_reboot_stopped_before_the_start(self) -> None:
        self.check_reboot("stop", _LONG, "start", after=False)

    def test_a_reboot_that_was_cut_off_starts_no_guest_that_was_stopped_since(self) -> None:
        view = self.create(nics=[], config_drive=None)
        context = self.driver._context
        domain, record = context.find(view.uuid)
        rebooting = Task.begin(
            TaskName.REBOOT, "r1", run=domain.started_as(), boot_id=Owner.current().boot_id
        )
        domain.destroy()
        context.save(context.find(view.uuid)[0], record.changed(task=rebooting))
        self.api.stop_instance(view.name, timeout=0)
        self.driver.init_host()
        shown = self.api.get_instance(view.name)
        self.assertEqual(("stopped", None), (shown.status, shown.task))
