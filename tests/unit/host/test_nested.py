import os
import pathlib
import shutil
import tempfile
import unittest
from unittest import mock

from kvmdriver import exception, privsep
from kvmdriver.host.nested import CONFIGURATION, NestedHost, may_move

OPTIONS = {"kvm_intel": {"ept": "1"}, "kvm_amd": {"npt": "1"}}
HEADER = "# Made by kvmdriver host nested; it writes this file anew each time.\n"

# A modprobe of a made-up host: loading sets the parameters that the configuration names.
MODPROBE = """#!/bin/sh
root=$(dirname "$(dirname "$0")")
echo "$@" >> $root/calls
[ -e $root/broken ] && { echo "modprobe: FATAL: it is broken" >&2; exit 1; }
if [ "$1" = -r ]; then rm -r $root/sys/module/$2; exit 0; fi
mkdir -p $root/sys/module/$1/parameters
echo 0 > $root/sys/module/$1/refcnt
echo N > $root/sys/module/$1/parameters/nested
echo Y > $root/sys/module/$1/parameters/ept
[ -e $root/stubborn ] && exit 0
for pair in $(sed -n "s/^options $1 //p" $root/etc/modprobe.d/*.conf 2>/dev/null); do
    echo ${pair#*=} > $root/sys/module/$1/parameters/${pair%%=*}
done
"""


class NestedHostTest(unittest.TestCase):
    def setUp(self) -> None:
        self.root = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        self.make("proc/cpuinfo", "vendor_id\t: GenuineIntel\nflags\t\t: fpu vmx aes\n")
        self.make("proc/sys/kernel/osrelease", "6.1.0-13-amd64\n")
        self.make("sys/module/kvm_intel/refcnt", "0\n")
        self.make("sys/module/kvm_intel/parameters/nested", "N\n")
        self.make("sys/module/kvm_intel/parameters/ept", "Y\n")
        self.make("sbin/modprobe", MODPROBE)
        os.chmod(self.root / "sbin/modprobe", 0o755)
        self.host = NestedHost(str(self.root))
        self.said: list[str] = []

    def make(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def configuration(self) -> str | None:
        path = self.root / CONFIGURATION.lstrip("/")
        return path.read_text() if path.exists() else None

    def calls(self) -> list[str]:
        path = self.root / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def tree(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in self.root.rglob("*")
            if path.is_file() and path.name != "calls"
        }

    def test_view(self) -> None:
        view = self.host.view()
        self.assertEqual(
            ("Intel", True, "kvm_intel", True, False),
            (view.vendor, view.cpu_flag, view.module, view.loaded, view.nested),
        )
        self.assertEqual({"nested": "N", "ept": "Y"}, view.parameters)
        self.assertEqual("6.1.0-13-amd64", view.kernel)

    def test_enable_and_disable(self) -> None:
        before = self.tree()
        steps = self.host.steps(True, OPTIONS)
        self.assertEqual(before, self.tree(), "nothing is done before apply")
        self.assertEqual(
            [
                f"write {CONFIGURATION}: options kvm_intel ept=1 nested=1",
                "unload the module: modprobe -r kvm_intel",
                "load the module: modprobe kvm_intel",
                "verify /sys/module/kvm_intel/parameters: ept=1 nested=1",
            ],
            [step.text for step in steps],
        )
        self.host.apply(steps, self.said.append)
        self.assertEqual(HEADER + "options kvm_intel ept=1 nested=1\n", self.configuration())
        self.assertEqual(["-r kvm_intel", "kvm_intel"], self.calls())
        self.assertTrue(self.host.view().nested)
        self.assertEqual([], self.host.steps(True, OPTIONS))
        self.host.apply(self.host.steps(False, OPTIONS), self.said.append)
        self.assertEqual(HEADER + "options kvm_intel ept=1 nested=0\n", self.configuration())
        self.assertFalse(self.host.view().nested)

    def test_module_that_is_not_loaded(self) -> None:
        shutil.rmtree(self.root / "sys/module/kvm_intel")
        self.host.apply(self.host.steps(True, OPTIONS), self.said.append)
        self.assertEqual(["kvm_intel"], self.calls())
        self.assertTrue(self.host.view().nested)

    def test_amd(self) -> None:
        shutil.rmtree(self.root / "sys")
        self.make("proc/cpuinfo", "vendor_id : AuthenticAMD\nflags : svm\n")
        self.host.apply(self.host.steps(True, {"kvm_amd": {}}), self.said.append)
        self.assertEqual(HEADER + "options kvm_amd nested=1\n", self.configuration())
        self.assertEqual("AMD", self.host.view().vendor)

    def test_guests_that_run_are_named(self) -> None:
        with self.assertRaises(exception.InvalidState) as caught:
            self.host.steps(True, OPTIONS, ["web", "database"])
        self.assertIn("web, database", caught.exception.message)
        self.make("sys/module/kvm_intel/refcnt", "3\n")
        with self.assertRaises(exception.InvalidState) as caught:
            self.host.steps(True, OPTIONS)
        self.assertIn("3 processes", caught.exception.message)

    def test_a_failure_is_undone(self) -> None:
        for before in (None, "options kvm_intel nested=0 ept=1\n"):
            for obstacle in ("broken", "stubborn"):
                with self.subTest(before=before, obstacle=obstacle):
                    if before:
                        self.make(CONFIGURATION.lstrip("/"), before)
                    (self.root / "calls").unlink(missing_ok=True)
                    tree = self.tree()
                    steps = self.host.steps(True, OPTIONS)
                    self.make(obstacle, "")
                    with self.assertRaises(exception.HostError) as caught:
                        self.host.apply(steps, self.said.append)
                    self.assertTrue(caught.exception.remedy)
                    (self.root / obstacle).unlink()
                    self.assertEqual(before, self.configuration())
                    after = self.tree()
                    for name in set(tree) | set(after):
                        if "parameters" not in name and "refcnt" not in name:
                            self.assertEqual(tree.get(name), after.get(name), name)
                    self.assertTrue(self.host.view().loaded)
                    self.assertFalse(self.host.view().nested)

    def test_no_hardware_virtualization(self) -> None:
        shutil.rmtree(self.root / "sys")
        self.make("proc/cpuinfo", "flags : fpu\n")
        with self.assertRaises(exception.Unsupported):
            self.host.steps(True, OPTIONS)

    def test_options_are_no_way_in(self) -> None:
        with self.assertRaises(exception.ConfigurationError):
            self.host.steps(True, {"kvm_intel": {"ept": "1\ninstall kvm /bin/sh"}})
        for arguments in (["-r", "ext4"], ["--dirname", "/tmp", "kvm_intel"]):
            with self.assertRaises(PermissionError):
                privsep.modprobe(arguments)
        with self.assertRaises(PermissionError):
            privsep.write_module_options("/etc/cron.d/x.conf", "")


class MoveTest(unittest.TestCase):
    def test_verdicts(self) -> None:
        for policy, vendor, kernel, entered, verdict in (
            ("auto", "Intel", "6.1.0", True, True),
            ("auto", "Intel", "5.2.9", True, False),
            ("auto", "AMD", "6.1.0", True, False),
            ("auto", "AMD", "6.1.0", False, True),
            ("auto", "AMD", "6.1.0", None, None),
            ("warn", "AMD", "6.1.0", True, None),
            ("allow", "AMD", "6.1.0", True, True),
            ("refuse", "Intel", "6.1.0", True, False),
            ("refuse", "Intel", "6.1.0", False, True),
        ):
            with self.subTest(policy=policy, vendor=vendor, kernel=kernel, entered=entered):
                self.assertIs(verdict, may_move(policy, vendor, kernel, entered))

    def test_statistics_of_the_kernel(self) -> None:
        root = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, root)
        with mock.patch.object(privsep, "KVM_STATISTICS", str(root)):
            self.assertIsNone(privsep.entered_l2(77))
            for vcpu, count in (("vcpu0", "0"), ("vcpu1", "0")):
                (root / "77-12" / vcpu).mkdir(parents=True)
                (root / "77-12" / vcpu / "nested_run").write_text(count + "\n")
            self.assertIs(False, privsep.entered_l2(77))
            (root / "77-12" / "vcpu1" / "nested_run").write_text("12\n")
            self.assertIs(True, privsep.entered_l2(77))
            self.assertIsNone(privsep.entered_l2(7))
