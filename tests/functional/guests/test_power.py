"""Power operations, judged by the guest's uptime and by a file in it."""

from kvmdriver import exception
from tests.functional.base import FunctionalTest


class PowerTest(FunctionalTest):
    def test_suspend_pause_and_reboot(self) -> None:
        view = self.create()
        guest = self.wait_for_ssh(view.name)
        guest.run("echo kept > /root/file; echo memory > /run/file; sync")

        self.api.suspend_instance(view.name)
        self.api.suspend_instance(view.name)
        self.assertEqual("suspended", self.api.get_instance(view.name).status)
        self.assertEqual("suspended", self.api.list_instances()[0].status)
        self.refused(exception.InvalidState, self.api.start_instance, view.name)
        self.refused(exception.InvalidState, self.api.stop_instance, view.name)
        self.api.set_autostart(view.name, True)
        self.api.resume_instance(view.name)
        self.api.resume_instance(view.name)
        # a migration takes the record of the running guest along
        domain, record = self.agent._server.driver._context.find(view.name)
        self.assertEqual((record, True), (domain.running_record(), record.instance.autostart))
        uptime = guest.uptime()
        self.assertEqual("memory", guest.run("cat /run/file"))

        self.api.pause_instance(view.name)
        self.api.pause_instance(view.name)
        self.assertEqual("paused", self.api.get_instance(view.name).status)
        self.assertFalse(guest.answers())
        self.refused(exception.InvalidState, self.api.start_instance, view.name)
        self.api.unpause_instance(view.name)
        self.api.unpause_instance(view.name)
        self.assertGreaterEqual(guest.uptime(), uptime)

        self.api.reboot_instance(view.name)
        self.wait_for_console(view.name, "GUEST: down")
        self.wait_for_console(view.name, "GUEST: up", 2)
        guest = self.wait_for_ssh(view.name)
        self.assertEqual("kept", guest.run("cat /root/file; ls /run/file 2>/dev/null || true"))

        self.api.reboot_instance(view.name, hard=True)
        self.wait_for_console(view.name, "GUEST: up", 3)
        output = self.api.get_console_output(view.name)
        self.assertEqual(1, output.count("GUEST: down"), "a hard reboot asks nobody")

    def test_stop_and_start(self) -> None:
        view = self.create(nics=[])
        self.wait_for_console(view.name, "GUEST: up")
        self.api.start_instance(view.name)
        self.api.stop_instance(view.name, timeout=40)
        self.wait_for_console(view.name, "GUEST: down")
        self.assertEqual("stopped", self.api.get_instance(view.name).status)
        self.api.stop_instance(view.name)
        for operation in (
            self.api.pause_instance,
            self.api.unpause_instance,
            self.api.suspend_instance,
            self.api.resume_instance,
            self.api.reboot_instance,
            self.api.get_vnc_console,
            self.api.get_screenshot,
            self.api.get_serial_console,
            self.api.get_diagnostics,
        ):
            error = self.refused(exception.InvalidState, operation, view.name)
            self.assertEqual(("status", "stopped"), (error.field, error.value))
            self.assertIn("start", error.remedy)
        self.api.start_instance(view.name)
        self.wait_for_console(view.name, "GUEST: up", 2)

    def test_a_guest_that_does_not_listen_is_switched_off(self) -> None:
        # without a system nobody hears the power button
        view = self.create(disks=[{"size_mib": 10}], nics=[], config_drive=None)
        self.api.stop_instance(view.name, timeout=1)
        self.assertEqual("stopped", self.api.get_instance(view.name).status)
        self.api.start_instance(view.name)
        self.api.reboot_instance(view.name, timeout=1)
        self.assertEqual("running", self.api.get_instance(view.name).status)
        self.api.stop_instance(view.name, timeout=0)
        self.assertEqual("stopped", self.api.get_instance(view.name).status)

    def test_autostart_and_rename(self) -> None:
        view = self.create(start=False, nics=[])
        self.assertEqual("stopped", view.status)
        self.api.set_autostart(view.name, True)
        self.assertTrue(self.api.list_instances()[0].autostart)
        self.api.set_autostart(view.name, False)
        self.assertFalse(self.api.get_instance(view.name).autostart)
        other = self.create(start=False, nics=[])
        error = self.refused(
            exception.InstanceExists, self.api.rename_instance, view.name, other.name
        )
        self.assertEqual("name", error.field)
        new = self.name("-new")
        self.assertEqual(new, self.api.rename_instance(view.name, new).name)
        self.api.rename_instance(new, new)
        self.refused(exception.InstanceNotFound, self.api.get_instance, view.name)
        self.assertEqual(view.uuid, self.api.get_instance(new).uuid)
        self.api.start_instance(new)
        self.refused(exception.InvalidState, self.api.rename_instance, new, view.name)
