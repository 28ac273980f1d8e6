"""The command line on a host whose libvirtd is away: it says so, and does nothing else."""

import json
import os
import shutil
import signal
import tempfile

from oslo_config import cfg

from tests import namespace
from tests.functional.base import FunctionalTest, guest_file, kvmdriver


class WithoutLibvirtdTest(FunctionalTest):
    def make_conf(self) -> cfg.ConfigOpts:
        # below it lies the directory of an embedded hypervisor, whose path has to be short
        self.state = tempfile.mkdtemp(prefix="kd", dir="/tmp")
        os.chmod(self.state, 0o755)
        self.addCleanup(shutil.rmtree, self.state, ignore_errors=True)
        self.instances = os.path.join(self.state, "instances")
        return super().make_conf()

    def test_an_error_and_no_empty_hypervisor(self) -> None:
        view = self.create(nics=[], config_drive=None)
        directory = os.path.join(self.instances, view.uuid)
        with open(namespace.PIDFILE) as pidfile:
            libvirtd = int(pidfile.read())
        os.kill(libvirtd, signal.SIGKILL)
        try:
            namespace.wait_for(lambda: not os.path.exists(f"/proc/{libvirtd}"))
            for arguments in (
                ("server", "list"),
                ("server", "delete", view.name),
                ("server", "delete", "--if-exists", view.name),
                ("server", "create", "x", "--image", guest_file("guest.qcow2")),
            ):
                with self.subTest(arguments):
                    done = kvmdriver(*arguments, state=self.state, check=False)
                    self.assertEqual((1, ""), (done.returncode, done.stdout))
                    self.assertIn("hypervisor_unavailable", done.stderr)
                    self.assertIn("libvirtd", done.stderr)
                    self.assertIn("--embedded", done.stderr)
                    self.assertNotIn(view.uuid, done.stderr)
            # asked for by name: another hypervisor, which does not take the guest's disk for waste
            done = kvmdriver("--embedded", "host", "show", "-f", "json", state=self.state)
            shown = json.loads(done.stdout)
            self.assertIn("/embed", shown["uri"])
            self.assertEqual((0, []), (shown["instances"], shown["orphans"]))
            self.assertNotIn(view.uuid, done.stderr)
            done = kvmdriver(
                "--embedded", "server", "delete", view.name, state=self.state, check=False
            )
            self.assertEqual(1, done.returncode)
            self.assertIn("instance_not_found", done.stderr)
        finally:
            namespace.start_libvirtd()
        self.assertTrue(os.path.exists(os.path.join(directory, "disk")))
        self.wait_for_console(view.name, "GUEST: up")
        self.assertEqual("running", self.api.get_instance(view.name).status)
        kvmdriver("server", "delete", view.name, state=self.state)
        done = kvmdriver("server", "delete", view.name, state=self.state, check=False)
        self.assertEqual(1, done.returncode)
        self.assertIn(f"there is no instance '{view.name}'", done.stderr)
        kvmdriver("server", "delete", "--if-exists", view.name, state=self.state)
