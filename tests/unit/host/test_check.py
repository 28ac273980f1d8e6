import pathlib
import shutil
import sys
import tempfile
import unittest
from importlib import machinery
from typing import Any
from unittest import mock

from oslo_config import cfg

from kvmdriver import conf as options
from kvmdriver import exception
from kvmdriver.host import check


class CheckTest(unittest.TestCase):
    """On a made-up tree of files."""

    def setUp(self) -> None:
        self.root = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        self.conf = options.register_opts(cfg.ConfigOpts())
        self.conf([])
        self.conf.set_override("instances_path", str(self.root / "instances"), "kvm_storage")
        self.hypervisor = mock.Mock()
        self.hypervisor.version_numbers.return_value = (7002000, 9000000)
        self.hypervisor.networks.return_value = {"default": True}
        self.hypervisor.connection.embedded = False
        self.host = check.Host(self.conf, self.hypervisor, str(self.root))

    def make(self, path: str, text: str = "") -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def assert_result(self, result: str, word: str, found: Any) -> None:
        self.assertEqual(result, found[0], found)
        self.assertIn(word, " ".join(found[1:]))

    def test_cpu(self) -> None:
        self.make("proc/cpuinfo", "flags : fpu\n")
        self.assert_result("fail", "firmware", check.cpu_flags(self.host))
        self.conf.set_override("virt_type", "qemu", "kvm")
        self.assert_result("warn", "firmware", check.cpu_flags(self.host))
        self.make("proc/cpuinfo", "vendor_id : AuthenticAMD\nflags : fpu svm\n")
        self.assert_result("pass", "AMD", check.cpu_flags(self.host))

    def test_device(self) -> None:
        self.make("proc/cpuinfo", "flags : svm\n")
        self.assert_result("fail", "modprobe kvm_amd", check.kvm_device(self.host))
        self.make("dev/kvm")
        (self.root / "dev/kvm").chmod(0o600)
        self.assert_result("fail", "chgrp kvm", check.kvm_device(self.host))
        (self.root / "dev/kvm").chmod(0o666)
        self.assert_result("warn", "everybody", check.kvm_device(self.host))

    def test_an_agent_that_is_not_root_is_in_the_group_of_qemu(self) -> None:
        own, other = mock.Mock(gr_name="libvirt"), mock.Mock(gr_name="qemu")
        with (
            mock.patch("os.geteuid", return_value=1000),
            mock.patch("os.getgroups", return_value=[1, 2]),
            mock.patch(
                "grp.getgrgid", side_effect={1: own, 2: mock.Mock(gr_name="kvm"), 3: other}.get
            ),
        ):
            self.hypervisor.host_capabilities.return_value.qemu_group = 2
            self.assert_result("pass", "libvirt, kvm", check.groups(self.host))
            self.hypervisor.host_capabilities.return_value.qemu_group = 3
            self.assert_result("warn", "usermod -aG qemu", check.groups(self.host))

    def test_a_nova_compute_that_is_not_root_must_be_in_the_group_of_qemu(self) -> None:
        capabilities = self.hypervisor.host_capabilities.return_value
        with (
            mock.patch("os.geteuid", return_value=1000),
            mock.patch("os.getegid", return_value=1),
            mock.patch("os.getgroups", return_value=[1, 2]),
            mock.patch("pwd.getpwuid", return_value=mock.Mock(pw_name="nova")),
            mock.patch("grp.getgrgid", side_effect={3: mock.Mock(gr_name="qemu")}.__getitem__),
        ):
            for capabilities.qemu_group in (None, 1, 2):
                check.require_qemu_group(self.hypervisor)
            for group, name in ((3, "qemu"), (4, "4")):
                capabilities.qemu_group = group
                with self.assertRaises(exception.ConfigurationError) as caught:
                    check.require_qemu_group(self.hypervisor)
                self.assertIn(f"usermod -aG {name} nova", str(caught.exception))
        with mock.patch("os.geteuid", return_value=0):
            check.require_qemu_group(self.hypervisor)

    def test_versions(self) -> None:
        self.assert_result("pass", "9.0.0", check.libvirt_version(self.host))
        self.hypervisor.version_numbers.return_value = (6001000, 6999000)
        self.assert_result("fail", "7.0.0", check.libvirt_version(self.host))
        self.assert_result("warn", "next release", check.qemu_version(self.host))
        with self.assertRaises(exception.ConfigurationError):
            check.require_versions(self.conf, self.hypervisor)

    def test_nested(self) -> None:
        self.make("proc/cpuinfo", "vendor_id : AuthenticAMD\nflags : svm\n")
        self.assert_result("warn", "nested enable", check.nested(self.host))
        self.make("sys/module/kvm_amd/parameters/nested", "1\n")
        self.assert_result("pass", "on-request", check.nested(self.host))
        self.conf.set_override("policy", "off", "kvm_nested")
        self.assert_result("pass", "no guest", check.nested(self.host))

    def test_files_of_the_kernel(self) -> None:
        for function, path, text, result in (
            (check.iommu, "sys/class/iommu/dmar0/x", "", "pass"),
            (check.ksm, "sys/kernel/mm/ksm/run", "1\n", "warn"),
            (
                check.clock,
                "sys/devices/system/clocksource/clocksource0/current_clocksource",
                "tsc\n",
                "pass",
            ),
        ):
            with self.subTest(path):
                self.assertNotEqual(result, function(self.host)[0])
                self.make(path, text)
                self.assertEqual(result, function(self.host)[0])
        self.assert_result("pass", "none", check.hugepages(self.host))
        for name, text in (("nr_hugepages", "8\n"), ("free_hugepages", "3\n")):
            self.make(f"sys/kernel/mm/hugepages/hugepages-2048kB/{name}", text)
        self.assert_result("pass", "2048kB: 3 of 8 free", check.hugepages(self.host))

    def test_network_and_tls(self) -> None:
        self.assert_result("pass", "default", check.network(self.host))
        self.hypervisor.networks.return_value = {"default": False}
        self.assert_result("warn", "net-start", check.network(self.host))
        self.hypervisor.networks.return_value = {}
        self.assert_result("warn", "net-define", check.network(self.host))
        self.assert_result("warn", "server-key.pem", check.tls(self.host))
        for name in ("ca-cert", "server-cert", "server-key"):
            self.make(f"etc/pki/qemu/{name}.pem")
        self.assertEqual("pass", check.tls(self.host)[0])

    def test_space(self) -> None:
        with mock.patch("shutil.disk_usage") as usage:
            usage.return_value.free = 5 << 30
            self.assert_result("warn", "5 GiB", check.space(self.host))

    def nova(self, files: dict[str, str]) -> Any:
        """The check in an environment where nova's directory has these files, and nothing else."""
        with tempfile.TemporaryDirectory() as directory:
            for name, content in files.items():
                path = pathlib.Path(directory, "nova", name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content)
            others = {
                name: module
                for name, module in sys.modules.items()
                if name.partition(".")[0] != "nova"
            }
            with (
                mock.patch.object(sys, "path", [directory]),
                mock.patch.object(sys, "meta_path", [machinery.PathFinder]),
                mock.patch.dict(sys.modules, others, clear=True),
                mock.patch("shutil.which", return_value="/usr/bin/genisoimage"),
            ):
                return check.nova(self.host)

    def test_nova(self) -> None:
        package = {"__init__.py": "", "virt/__init__.py": ""}
        broken = {"__init__.py": "", "virt/__init__.py": "raise ImportError('no such module')"}
        shim = {"virt/kvmdriver.py": ""}
        for result, words, files in (
            ("pass", "not installed", {}),
            # kvmdriver without nova, installed or as the current directory
            ("pass", "not installed", shim),
            ("pass", "not installed", {"other.txt": ""}),
            ("fail", "cannot import nova.virt.kvmdriver", package),
            ("fail", "cannot be imported: no such module", {**broken, **shim}),
            ("fail", "cannot be imported", {"__init__.py": "", "utils.py": ""}),
            ("pass", "nova-compute can import", {**package, **shim}),
        ):
            with self.subTest(words, files=sorted(files)):
                self.assert_result(result, words, self.nova(files))

    def test_a_check_that_breaks_fails_alone(self) -> None:
        def breaks(_host: Any) -> Any:
            raise ModuleNotFoundError("No module named 'nova.virt'")

        with mock.patch.object(check, "CHECKS", (("nova", breaks), ("KSM", check.ksm))):
            lines = check.run(self.conf, self.hypervisor, str(self.root))
        self.assertEqual(["fail", "pass"], [line.result for line in lines])
        self.assertIn("nova.virt", lines[0].found)

    def test_a_libvirt_that_is_gone_fails_its_checks_only(self) -> None:
        error = exception.HypervisorUnavailable("libvirt does not answer")
        self.hypervisor.version_numbers.side_effect = error
        self.hypervisor.networks.side_effect = error
        self.hypervisor.host_capabilities.side_effect = error
        lines = {line.name: line for line in check.run(self.conf, self.hypervisor, str(self.root))}
        self.assertEqual(len(check.CHECKS), len(lines))
        for name in ("libvirt", "QEMU", "network"):
            self.assertEqual("fail", lines[name].result)
            self.assertIn("virsh", lines[name].remedy)
        self.assertEqual("pass", lines["KSM"].result)
