"""The units of systemd and the other files of ``packaging``, looked at by the programs that read them."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

TOP = pathlib.Path(__file__).parents[2]
PACKAGING = TOP / "packaging"
SERVICES = ("kvmdriver-agent.service", "kvmdriver-privsep@.service")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
    )


class UnitsTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        # the programs are where this environment has them
        scripts = str(pathlib.Path(sys.executable).parent)
        for unit in (PACKAGING / "systemd").iterdir():
            text = unit.read_text().replace("/usr/bin/kvmdriver", f"{scripts}/kvmdriver")
            (self.directory / unit.name).write_text(text)

    def test_systemd_understands_them(self) -> None:
        names = [str(path) for path in self.directory.iterdir()]
        done = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *names)
        self.assertEqual((0, ""), (done.returncode, done.stdout))

    def test_a_mistake_would_be_seen(self) -> None:
        unit = self.directory / "kvmdriver-agent.service"
        unit.write_text(unit.read_text().replace("ProtectHome=yes", "ProtectHouse=yes"))
        done = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit))
        self.assertIn("ProtectHouse", done.stdout)

    def test_exposure(self) -> None:
        for name in SERVICES:
            done = run(
                "systemd-analyze", "security", "--offline=yes", "--threshold=40",
                str(self.directory / name),
            )  # fmt: skip
            exposure = re.search(r"Overall exposure level for \S+ ([0-9.]+)", done.stdout)
            assert exposure is not None, done.stdout
            self.assertLess(float(exposure[1]), 4)
            self.assertEqual(0, done.returncode, done.stdout)

    @unittest.skipUnless(os.geteuid() == 0, "only root gives a directory to another user")
    def test_users_and_directories(self) -> None:
        root = self.directory / "root"
        (root / "etc").mkdir(parents=True)
        done = run("systemd-sysusers", f"--root={root}", str(PACKAGING / "sysusers.conf"))
        self.assertEqual(0, done.returncode, done.stdout)
        self.assertRegex((root / "etc/passwd").read_text(), "(?m)^kvmdriver:")
        groups = (root / "etc/group").read_text()
        for group in ("libvirt", "libvirt-qemu", "kvm"):
            self.assertRegex(groups, f"(?m)^{group}:.*:kvmdriver$")
        done = run(
            "systemd-tmpfiles", "--create", f"--root={root}", str(PACKAGING / "tmpfiles.conf")
        )
        self.assertEqual(0, done.returncode, done.stdout)
        modes = {
            name: (root / name).stat().st_mode & 0o7777
            for name in (
                "var/lib/kvmdriver/instances",
                "var/lib/kvmdriver/images",
                "var/log/kvmdriver",
            )
        }
        self.assertEqual([0o711, 0o755, 0o750], list(modes.values()))

    def test_sudoers(self) -> None:
        done = run("/usr/sbin/visudo", "-c", "-f", str(PACKAGING / "sudoers"))
        self.assertEqual(0, done.returncode, done.stdout)
