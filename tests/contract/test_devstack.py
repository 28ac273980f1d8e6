"""What the plugin for DevStack does with instances of its agent."""

import pathlib
import subprocess
import sys

from tests.devstack.base import PluginTest

COMMAND = pathlib.Path(sys.executable).parent / "kvmdriver"


class AgentInstancesTest(PluginTest):
    def test_clean_deletes_them(self) -> None:
        instances = self.root / "opt/stack/data/kvmdriver/instances"
        instances.mkdir(parents=True)
        # QEMU's user passes through
        for directory in (self.root, *instances.relative_to(self.root).parents):
            (self.root / directory).chmod(0o755)
        (self.root / "venv/bin").mkdir(parents=True)
        (self.root / "venv/bin/kvmdriver").symlink_to(COMMAND)
        self.make(
            "etc/kvmdriver/kvmdriver.conf",
            "[DEFAULT]\ntransport_url = rabbit://stackrabbit:secret@127.0.0.1:5672/\n\n"
            f"[kvm]\nvirt_type = qemu\n\n[kvm_storage]\ninstances_path = {instances}\n\n"
            "[kvm_cpu]\nmode = none\n",
        )
        local = self.root / "local.conf"
        local.write_text(
            "".join(
                line
                for line in self.read("etc/kvmdriver/kvmdriver.conf").splitlines(keepends=True)
                if not line.startswith("transport_url")
            )
        )
        for name in ("first", "second"):
            self.kvmdriver(
                local, "server", "create", name, "--memory", "64", "--disk", "1M", "--wait"
            )
        self.assertEqual(2, len(list(instances.glob("*-*"))))
        domains = self.domains()
        self.run_phases("clean", KVMDRIVER_AGENT="True")
        self.assertEqual(2, len(domains - self.domains()))
        self.assertFalse((self.root / "opt/stack/data/kvmdriver").exists())
        self.assertFalse((self.root / "etc/kvmdriver").exists())

    def kvmdriver(self, conf: pathlib.Path, *arguments: str) -> None:
        done = subprocess.run(
            [str(COMMAND), "--config-file", str(conf), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(0, done.returncode, done.stderr)

    def domains(self) -> set[str]:
        command = ("virsh", "-c", "qemu:///system", "list", "--all", "--uuid")
        listed = subprocess.run(command, check=True, capture_output=True, text=True)
        return set(listed.stdout.split())
