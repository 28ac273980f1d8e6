"""What the privileged process reads for an agent that may have been taken over."""

import os
import pathlib
import tempfile
import unittest
from unittest import mock

from oslo_config import cfg

from kvmdriver import conf, privsep

UUID = "0a1b2c3d-0000-4000-8000-00000000000a"


@unittest.skipUnless(os.geteuid() == 0, "without root the privileged process would be started")
class ReadTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = pathlib.Path(directory.name, "instances")
        self.instance = self.root / UUID
        self.instance.mkdir(parents=True)
        self.secret = pathlib.Path(directory.name, "secret")
        self.secret.write_text("secret")
        conf.register_opts(cfg.CONF)
        cfg.CONF.set_override("instances_path", str(self.root), "kvm_storage")
        self.addCleanup(cfg.CONF.clear_override, "instances_path", "kvm_storage")

    def test_console_logs(self) -> None:
        for name in ("console.log", "console.log.0", "console.log.12"):
            path = self.instance / name
            path.write_text("one two three")
            for read in (privsep.read_console_log, privsep.read_tail):
                self.assertEqual(b"three", read(str(path), 5))
        with self.assertRaises(FileNotFoundError):
            privsep.read_console_log(str(self.instance / "console.log.13"), 5)

    def test_directories(self) -> None:
        config = self.root / "kvmdriver.conf"
        with mock.patch.object(privsep, "HOST_CONFIG", str(config)):
            default = {"/var/lib/kvmdriver/instances", str(self.root)}
            self.assertLess(default, privsep._roots())  # and nova's
            config.write_text("[kvm_storage]\ninstances_path = /srv/instances\n")
            self.assertLess({"/srv/instances", str(self.root)}, privsep._roots())

    def test_nothing_else(self) -> None:
        (self.instance / "disk").write_text("secret")
        (self.instance / "console.log").symlink_to(self.secret)
        os.mkfifo(self.instance / "console.log.1")
        (self.instance / "console.log.2").mkdir()
        elsewhere = self.root.parent / UUID
        elsewhere.mkdir()
        (elsewhere / "console.log").write_text("secret")
        linked = UUID.replace("a", "b")
        (self.root / linked).symlink_to(elsewhere)
        (self.root / "_base").mkdir()
        (self.root / "_base" / "console.log").write_text("secret")
        for path in (
            "/etc/shadow",
            str(self.secret),
            str(self.instance / "disk"),
            str(self.instance / "console.log"),
            str(self.instance / "console.log.1"),
            str(self.instance / "console.log.2"),
            str(self.instance / "console.log\n"),
            str(elsewhere / "console.log"),
            str(self.root / linked / "console.log"),
            str(self.root / "_base" / "console.log"),
            f"{self.root}/../{UUID}/console.log",
            f"{self.root}/{UUID}/../../{UUID}/console.log",
        ):
            with self.subTest(path), self.assertRaises(OSError):
                privsep.read_console_log(path, 100)

    def test_processes_of_domains(self) -> None:
        for name in ("../../../etc/passwd", "a/b", "", ".", "web\n"):
            with self.subTest(name), self.assertRaises(PermissionError):
                privsep.qemu_pid(name)
        with self.assertRaises(FileNotFoundError):
            privsep.qemu_pid("no-such-domain-here")
