"""Without any daemon: the QEMU driver in the process of the command line."""

import json
import os
import shutil
import subprocess
import sys
import tempfile

from kvmdriver.hypervisor import embed
from tests import namespace
from tests.functional.base import FunctionalTest, guest_file


class EmbeddedTest(FunctionalTest):
    def setUp(self) -> None:
        super().setUp()
        self.root = tempfile.mkdtemp(prefix="kd", dir="/tmp")
        os.chmod(self.root, 0o755)
        self.addCleanup(shutil.rmtree, self.root, ignore_errors=True)
        self.instances_embedded = os.path.join(self.root, "instances")
        root = os.path.join(self.root, "embed")
        embed.prepare(root)
        with open(f"{root}/etc/qemu.conf", "a") as config:
            # as for the laboratory's libvirtd: a hidden /dev/kvm cannot be taken along
            config.write("namespaces = []\n")

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [
                os.path.join(os.path.dirname(sys.executable), "kvmdriver"),
                "--embedded",
                *arguments,
            ],
            capture_output=True,
            text=True,
            timeout=120,
            env={
                **os.environ,
                "OS_KVM__VIRT_TYPE": "qemu",
                "OS_KVM_STORAGE__INSTANCES_PATH": self.instances_embedded,
            },
        )
        if check and done.returncode:
            self.fail(done.stdout + done.stderr)
        return done

    def test_life_without_a_daemon(self) -> None:
        self.command(
            "server", "create", "alone", "--image", guest_file("guest.qcow2"), "--memory", "192",
            "--network", "user", "--graphics", "none",
        )  # fmt: skip
        try:
            namespace.wait_for(
                lambda: "GUEST: up" in self.command("server", "console", "log", "alone").stdout, 60
            )
            self.command("server", "suspend", "alone")
            self.command("server", "resume", "alone")
            self.command("server", "stop", "alone", "--timeout", "30")
            rows = json.loads(self.command("server", "list", "-f", "json").stdout)
            self.assertEqual([("alone", "stopped")], [(r["Name"], r["Status"]) for r in rows])
            done = self.command(
                "server", "create", "x", "--image", guest_file("guest.qcow2"),
                "--network", "default", check=False,
            )  # fmt: skip
            self.assertEqual(1, done.returncode)
            self.assertIn("network_not_found", done.stderr)
        finally:
            self.command("server", "delete", "alone")
        self.assertEqual(["_base"], os.listdir(self.instances_embedded))
