"""libvirtd and QEMU that are killed, hang, or run out of space: nothing lost, nothing left."""

import os
import signal
import subprocess
import threading
import time

from kvmdriver import exception
from tests import namespace
from tests.functional.base import FunctionalTest, guest_file, run


class KilledHypervisorTest(FunctionalTest):
    """libvirtd or QEMU die; the agent says so and goes on when they are back."""

    config = {"kvm": {"keepalive_interval": 1, "keepalive_count": 2, "call_timeout": 15}}

    def libvirtd(self) -> int:
        with open(namespace.PIDFILE) as pidfile:
            return int(pidfile.read())

    def test_libvirtd_gone_and_back(self) -> None:
        view = self.create()
        guest = self.wait_for_ssh(view.name)
        os.kill(self.libvirtd(), signal.SIGKILL)
        time.sleep(0.5)
        error = self.refused(exception.HypervisorUnavailable, self.api.list_instances)
        self.assertIn("libvirtd", error.remedy)
        self.refused(exception.HypervisorUnavailable, self.api.stop_instance, view.name)
        self.refused(
            exception.HypervisorUnavailable, self.api.build_and_run_instance, self.request()
        )
        self.assertTrue(guest.answers(), "the guest runs on")
        namespace.start_libvirtd()
        self.assertEqual("running", self.api.list_instances()[0].status)
        # events come again without anybody asking for something
        events: list[str] = []
        driver = self.agent._server.driver
        driver.events.subscribe(lambda event: events.append(event.kind))
        run("virsh", "-q", "suspend", view.name)
        namespace.wait_for(lambda: "suspended" in events, 10)
        self.api.unpause_instance(view.name)
        self.api.stop_instance(view.name, timeout=40)
        self.wait_for_console(view.name, "GUEST: down")

    def test_libvirtd_that_hangs(self) -> None:
        view = self.create(nics=[], config_drive=None)
        pid = self.libvirtd()
        os.kill(pid, signal.SIGSTOP)
        try:
            start = time.monotonic()
            self.refused(exception.HypervisorUnavailable, self.api.pause_instance, view.name)
            # keepalive_interval times keepalive_count, and once more to try a new connection
            self.assertLess(time.monotonic() - start, 50)
            self.assertFalse(self.agent._server.driver.is_alive())
        finally:
            os.kill(pid, signal.SIGCONT)
        namespace.wait_for(lambda: self.agent._server.driver.is_alive(), 30)
        self.assertEqual("running", self.api.get_instance(view.name).status)

    def test_libvirtd_restarted_while_a_guest_shuts_down(self) -> None:
        view = self.create(nics=[])
        self.wait_for_console(view.name, "GUEST: up")
        outcome: list[object] = []

        def stop() -> None:
            try:
                self.api.stop_instance(view.name, timeout=60)
                outcome.append("stopped")
            except exception.KVMDriverError as error:
                outcome.append(error)

        os.kill(self.libvirtd(), signal.SIGSTOP)
        stopping = threading.Thread(target=stop)
        stopping.start()
        time.sleep(1)
        os.kill(self.libvirtd(), signal.SIGKILL)
        time.sleep(1)
        namespace.start_libvirtd()
        stopping.join(90)
        # the call may have failed, but it has not hung, and another one does the work
        self.assertEqual(1, len(outcome))
        self.api.stop_instance(view.name)
        self.assertEqual("stopped", self.api.get_instance(view.name).status)

    def test_qemu_killed(self) -> None:
        view = self.create()
        self.wait_for_ssh(view.name)
        with open(f"/run/libvirt/qemu/{view.name}.pid") as pidfile:
            os.kill(int(pidfile.read()), signal.SIGKILL)
        self.wait_for_status(view.name, "crashed")
        self.assertEqual("crashed", self.api.list_instances()[0].status)
        self.refused(exception.InvalidState, self.api.pause_instance, view.name)
        self.assertNotIn("vnet", run("ip", "-br", "link"))
        self.api.start_instance(view.name)
        self.wait_for_ssh(view.name)

    def test_a_guest_whose_disk_is_full_stands_and_goes_on(self) -> None:
        mount = os.path.join(self.instances)
        os.makedirs(mount, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", mount], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", mount], check=True)
        view = self.create(
            disks=[
                {"image": {"type": "file", "path": guest_file("guest.qcow2")}},
                {"size_mib": 400},
            ]
        )
        guest = self.wait_for_ssh(view.name)
        guest.run(
            "(dd if=/dev/zero of=/dev/vdb bs=1M count=200; sync; touch /run/done) >/dev/null 2>&1 &"
        )
        self.wait_for_status(view.name, "blocked")
        self.refused(exception.InvalidState, self.api.suspend_instance, view.name)
        subprocess.run(["mount", "-o", "remount,size=600m", mount], check=True)
        self.api.unpause_instance(view.name)
        namespace.wait_for(lambda: guest.run("ls /run/done 2>/dev/null || true"), 60)
