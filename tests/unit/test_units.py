"""The units of systemd and the other files of packages, looked at by the programs that read them."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

TOP = pathlib.Path(__file__).parents[2]
PACKAGING = TOP / "packaging"
SCRIPTS = TOP / "debian"
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


class MaintainerScriptsTest(unittest.TestCase):
    """What dpkg runs, in a directory in place of the system."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = pathlib.Path(directory.name)
        for name in (
            "etc/kvmdriver", "var/lib/kvmdriver/instances", "var/lib/kvmdriver/images",
            "var/lib/kvmdriver/.cache/python-entrypoints", "var/log/kvmdriver",
        ):  # fmt: skip
            (self.root / name).mkdir(parents=True)

    def run_script(self, name: str, word: str) -> str:
        """Run a script as dpkg does."""
        script = self.root / name
        text = (SCRIPTS / name).read_text().replace("chgrp kvmdriver", "chgrp 0")
        script.write_text(re.sub(r"/(etc|var)/", rf"{self.root}/\1/", text))
        done = run("sh", str(script), word)
        self.assertEqual(0, done.returncode, done.stdout)
        return done.stdout

    @unittest.skipUnless(os.geteuid() == 0, "only root gives a file to another group")
    def test_the_password_is_protected(self) -> None:
        path = self.root / "etc/kvmdriver/kvmdriver.conf"
        path.touch(0o644)
        self.run_script("kvmdriver.postinst", "configure")
        self.assertEqual(0o640, path.stat().st_mode & 0o777)

    def test_a_configuration_that_the_operator_has_removed(self) -> None:
        self.run_script("kvmdriver.postinst", "configure")

    def test_remove_takes_nothing(self) -> None:
        before = sorted(self.root.rglob("*"))
        self.assertEqual("", self.run_script("kvmdriver.postrm", "remove"))
        (self.root / "kvmdriver.postrm").unlink()
        self.assertEqual(before, sorted(self.root.rglob("*")))

    def test_purge_leaves_disks(self) -> None:
        disk = self.root / "var/lib/kvmdriver/instances/0/disk"
        disk.parent.mkdir()
        disk.touch()
        self.assertIn("stays", self.run_script("kvmdriver.postrm", "purge"))
        self.assertTrue(disk.exists())
        self.assertEqual([], os.listdir(self.root / "var/log"))
        self.assertEqual(["instances"], os.listdir(self.root / "var/lib/kvmdriver"))

    def test_purge_leaves_nothing_where_nothing_is(self) -> None:
        self.assertEqual("", self.run_script("kvmdriver.postrm", "purge"))
        self.assertFalse((self.root / "var/lib/kvmdriver").exists())
