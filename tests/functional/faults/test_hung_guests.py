"""A QEMU that does not answer: the others go on, and it can be removed."""

from kvmdriver import exception, model
from tests import namespace
from tests.functional.base import FunctionalTest
from tests.functional.hanging import InBackground, hang, in_time

# libvirt kills a QEMU that does not end by itself after 10 s; then comes what else a deletion does.
REMOVAL_SECONDS = 40


class HungGuestTest(FunctionalTest):
    """Guests are stopped with SIGSTOP, as they would stand on dead storage."""

    def tiny(self, *, start: bool = True) -> model.InstanceView:
        """An instance that has nothing to boot: its QEMU is what counts."""
        return self.create(
            start=start,
            memory={"current_mib": 32},
            disks=[{"size_mib": 1}],
            nics=[],
            config_drive=None,
        )

    def hung(self) -> model.InstanceView:
        view = self.tiny()
        hang(self, view.name)
        return view

    def test_the_others_are_not_concerned(self) -> None:
        hung = [self.hung() for _ in range(6)]
        other = self.tiny(start=False)
        # more of them at once than libvirt takes requests of one connection
        asking = [InBackground(self.api.get_instance, view.name) for view in hung]
        asking += [InBackground(self.api.get_diagnostics, view.name) for view in hung]
        views = {view.name: view for view in in_time(self, self.api.list_instances)}
        self.assertEqual({"running"}, {views[view.name].status for view in hung})
        self.assertEqual([32] * 6, [views[view.name].memory_mib for view in hung])
        self.assertEqual("stopped", in_time(self, self.api.get_instance, other.name).status)
        self.assertEqual(6, in_time(self, self.api.get_host).vcpus_used)
        in_time(self, self.api.start_instance, other.name)
        shown = in_time(self, self.api.get_instance, other.name)
        self.assertEqual((1, False), (shown.disks[0].size_mib, shown.unresponsive))
        in_time(self, self.api.get_diagnostics, other.name)
        in_time(self, self.api.stop_instance, other.name, timeout=0)
        in_time(self, self.create, start=False, nics=[], config_drive=None)
        for question in asking:
            self.assertTrue(question.wait(10))
        for question in asking[:6]:
            view = question.result
            self.assertEqual(
                ("running", True, ("disks.vda.size_mib",)),
                (view.status, view.unresponsive, view.unknown),
            )
        for question in asking[6:]:
            self.assertEqual("instance_unresponsive", question.code)
        silent = {view.name for view in self.api.list_instances() if view.unresponsive}
        self.assertEqual({view.name for view in hung}, silent)

    def test_it_is_deleted_after_it_was_looked_at(self) -> None:
        view = self.hung()
        in_time(self, self.api.list_instances)
        in_time(self, self.api.get_instance, view.name)
        deletions = [InBackground(self.api.terminate_instance, view.name) for _ in range(2)]
        in_time(self, self.api.list_instances)
        for deletion in deletions:
            self.assertTrue(deletion.wait(REMOVAL_SECONDS))
            self.assertIsNone(deletion.error)
        self.assertEqual([], self.api.list_instances())
        self.assertEqual((), self.api.terminate_instance(view.name))
        self.assert_nothing_left()

    def test_it_is_deleted_while_an_operation_on_it_hangs(self) -> None:
        view = self.hung()
        pausing = InBackground(self.api.pause_instance, view.name)
        calls = self.agent._server.driver._context.hypervisor.connection.guests
        namespace.wait_for(lambda: view.uuid in calls._calls, 10)
        deletion = InBackground(self.api.terminate_instance, view.name)
        self.assertTrue(deletion.wait(REMOVAL_SECONDS))
        self.assertIsNone(deletion.error)
        self.assertTrue(pausing.wait(5))
        self.assertIsInstance(pausing.error, exception.KVMDriverError)
        self.assert_nothing_left()

    def test_it_is_rebooted_hard(self) -> None:
        view = self.create(nics=[], config_drive=None)
        self.wait_for_console(view.name, "GUEST: up")
        hang(self, view.name)
        in_time(self, self.api.get_instance, view.name)
        self.api.reboot_instance(view.name, hard=True)
        self.wait_for_console(view.name, "GUEST: up", 2)
        shown = self.api.get_instance(view.name)
        self.assertEqual((None, False, ()), (shown.task, shown.unresponsive, shown.unknown))

    def test_it_is_switched_off(self) -> None:
        view = self.hung()
        self.api.stop_instance(view.name, timeout=0)
        self.assertEqual("stopped", self.api.get_instance(view.name).status)

    def test_a_guest_that_wakes_is_as_it_was(self) -> None:
        view = self.create()
        self.wait_for_ssh(view.name)
        wake = hang(self, view.name)
        shown = in_time(self, self.api.get_instance, view.name)
        self.assertTrue(shown.unresponsive)
        self.assertNotEqual((), shown.addresses, "the lease is known without the guest")
        wake()
        namespace.wait_for(lambda: not self.api.get_instance(view.name).unresponsive, 10)
        shown = self.api.get_instance(view.name)
        self.assertEqual((), shown.unknown)
        self.assertIsNotNone(shown.disks[0].size_mib)
