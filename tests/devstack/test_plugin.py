"""The plugin for DevStack: every phase in order, twice, then unstack and clean."""

import configparser
import json
import os
import pathlib
import sys

from oslo_rootwrap import wrapper

from tests.devstack.base import TOP, PluginTest

# nova-compute's own way to its driver and its options
LOAD = """
import json, sys
from nova.conf import CONF
CONF(["--config-file", sys.argv[1]], project="nova")
from nova.virt import driver
loaded = driver.load_compute_driver(None)
print(json.dumps({
    "class": type(loaded).__module__ + "." + type(loaded).__name__,
    "machine_type": CONF.kvm.machine_type,
    "virt_type": CONF.kvm.virt_type,
    "mode": CONF.kvm_cpu.mode,
    "models": CONF.kvm_cpu.models,
    "features": CONF.kvm_cpu.features,
    "policy": CONF.kvm_nested.policy,
    "intel": CONF.kvm_nested.kvm_intel_options,
    "native_tls": CONF.kvm_migration.native_tls,
    "address": CONF.kvm_migration.inbound_address,
}))
"""

# the agent's own way to its options
LOAD_AGENT = """
import json, sys
from oslo_config import cfg
from kvmdriver import conf as options
from kvmdriver.agent import local
from kvmdriver.agent.server import load_driver
conf = options.register_opts(cfg.ConfigOpts())
conf(["--config-file", sys.argv[1]], project="kvmdriver")
assert local.has_transport(conf)
load_driver(conf)
print(json.dumps({
    "virt_type": conf.kvm.virt_type,
    "mode": conf.kvm_cpu.mode,
    "models": conf.kvm_cpu.models,
    "instances_path": conf.kvm_storage.instances_path,
}))
"""

VARIABLES = {
    "KVMDRIVER_MACHINE_TYPE": "q35",
    "KVMDRIVER_VIRT_TYPE": "kvm",
    "KVMDRIVER_CPU_MODE": "custom",
    "KVMDRIVER_CPU_MODELS": "Haswell,Nehalem",
    "KVMDRIVER_CPU_FEATURES": "+aes,-pcid",
    "KVMDRIVER_NESTED": "True",
    "KVMDRIVER_NESTED_POLICY": "on",
    "KVMDRIVER_KVM_INTEL_OPTIONS": "nested:1,ept:1",
    "KVMDRIVER_MIGRATION_ADDRESS": "192.0.2.7",
    "KVMDRIVER_AGENT": "True",
}


class LifeTest(PluginTest):
    def test_twice_then_unstack_and_clean(self) -> None:
        self.with_packages()
        before = self.tree()
        self.stack(**VARIABLES)
        self.check_nova()
        self.check_rootwrap()
        self.check_agent()
        self.check_host()
        self.check_tempest()
        stacked = self.tree()
        self.stack(**VARIABLES)
        self.assertEqual(_without_packages(stacked), _without_packages(self.tree()))
        for phase in ("unstack", "unstack", "clean", "clean"):
            self.run_phases(phase, **VARIABLES)
        after = self.tree()
        tempest = "opt/stack/tempest/etc/tempest.conf"
        # stack.sh makes this file anew, and no phase of unstack.sh knows of it
        self.assertIn("swap_volume = True", after.pop(tempest))
        before.pop(tempest)
        self.assertEqual(before, after)
        self.assertEqual(["modprobe -r kvm_intel", "modprobe kvm_intel"], self.calls()[-2:])
        self.assertEqual("N\n", self.read("sys/module/kvm_intel/parameters/nested"))

    def calls(self) -> list[str]:
        return self.read("calls").splitlines()

    def check_nova(self) -> None:
        loaded = json.loads(self.python(LOAD, str(self.root / "etc/nova/nova.conf")))
        self.assertEqual(
            {
                "class": "kvmdriver.nova.driver.NovaDriver",
                "machine_type": "q35",
                "virt_type": "kvm",
                "mode": "custom",
                "models": ["Haswell", "Nehalem"],
                "features": ["+aes", "-pcid"],
                "policy": "on",
                "intel": {"nested": "1", "ept": "1"},
                "native_tls": False,
                "address": "192.0.2.7",
            },
            loaded,
        )

    def check_rootwrap(self) -> None:
        """Our filters let both privileged processes of nova-compute start, and no other."""
        ours = [
            entry
            for entry in wrapper.load_filters([str(self.root / "etc/nova/rootwrap.d")])
            # oslo.rootwrap has one of its own
            if entry.name.startswith("privsep-rootwrap-kvmdriver")
        ]
        for context, allowed in (("context", True), ("processes", True), ("modules", False)):
            command = [
                *("privsep-helper", "--config-file", "/etc/nova/nova-cpu.conf"),
                *("--privsep_context", f"kvmdriver.privsep.{context}"),
                *("--privsep_sock_path", "/tmp/tmpabc/privsep.sock"),
            ]
            with self.subTest(context=context):
                self.assertEqual(allowed, any(entry.match(command) for entry in ours))

    def check_agent(self) -> None:
        path = self.root / "etc/kvmdriver/kvmdriver.conf"
        self.assertEqual(0o600, path.stat().st_mode & 0o777)
        loaded = json.loads(self.python(LOAD_AGENT, str(path)))
        instances = loaded.pop("instances_path")
        self.assertEqual(str(self.root / "opt/stack/data/kvmdriver/instances"), instances)
        self.assertTrue(os.path.isdir(instances))
        self.assertEqual(
            {"virt_type": "kvm", "mode": "custom", "models": ["Haswell", "Nehalem"]}, loaded
        )
        command, group = self.read("units/kvmdriver-agent.service").splitlines()
        self.assertEqual("Group=libvirt", group)
        executable, option, file = command.removeprefix("ExecStart=").split()
        self.assertTrue(os.access(executable, os.X_OK))
        self.assertEqual(("--config-file", str(path)), (option, file))

    def check_host(self) -> None:
        self.assertIn("libvirt-qemu:x:994:stack\n", self.read("etc/group"))
        self.assertIn("options kvm_intel", self.read("etc/modprobe.d/kvm-nested.conf"))
        self.assertEqual("1\n", self.read("sys/module/kvm_intel/parameters/nested"))
        self.assertEqual("restart libvirtd", self.calls()[-1])

    def check_tempest(self) -> None:
        parser = configparser.ConfigParser()
        parser.read(self.root / "opt/stack/tempest/etc/tempest.conf")
        flags = parser["compute-feature-enabled"]
        self.assertFalse(flags.getboolean("volume_multiattach"))
        self.assertFalse(flags.getboolean("attach_encrypted_volume"))
        self.assertTrue(flags.getboolean("suspend"))
        self.assertTrue(flags.getboolean("console_output"))


class SettingsTest(PluginTest):
    def test_wrong_settings_are_refused(self) -> None:
        before = self.tree()
        for sentence, variables in (
            ("VIRT_DRIVER=fake: remove that line", {"VIRT_DRIVER": "fake"}),
            ("LIBVIRT_TYPE=lxc: use kvm or qemu", {"LIBVIRT_TYPE": "lxc"}),
            ("remove NOVA_BACKEND=LVM", {"NOVA_BACKEND": "LVM"}),
            ("needs KVMDRIVER_CPU_MODELS", {"KVMDRIVER_CPU_MODE": "custom"}),
            (
                "in KVMDRIVER_CPU_BASELINE_FILE",
                {"KVMDRIVER_CPU_MODE": "baseline", "KVMDRIVER_CPU_BASELINE_FILE": "/missing"},
            ),
            (
                "needs /missing/ca-cert.pem: put the host's certificates there",
                {"KVMDRIVER_NATIVE_TLS": "yes", "KVMDRIVER_TLS_DIRECTORY": "/missing"},
            ),
        ):
            with self.subTest(sentence):
                done = self.run_phases(
                    "stack pre-install", "stack install", check=False, **variables
                )
                self.assertEqual(1, done.returncode, done.stdout)
                self.assertIn(sentence, done.stderr)
                self.assertEqual(before, self.tree())

    def test_without_settings_only_the_driver_is_exchanged(self) -> None:
        self.run_phases("stack pre-install", "stack post-config")
        parser = configparser.RawConfigParser()
        parser.read(self.root / "etc/nova/nova.conf")
        self.assertEqual("kvmdriver.KVMDriver", parser["DEFAULT"]["compute_driver"])
        self.assertEqual(["libvirt", "kvm_migration"], parser.sections())
        encryption = {"native_tls": "False", "tls_directory": "/etc/pki/qemu"}
        written = dict(parser.items("kvm_migration")).items() - parser.defaults().items()
        self.assertEqual(encryption, dict(written))
        self.assertFalse((self.root / "etc/kvmdriver").exists())
        self.assertEqual([], sorted((self.root / "etc/modprobe.d").iterdir()))

    def test_host_without_compute_is_left_alone(self) -> None:
        before = self.tree()
        phases = ("stack pre-install", "stack install", "stack post-config", "stack extra")
        self.run_phases(*phases, "unstack", "clean", ENABLED_SERVICES="n-api,n-cond")
        self.assertEqual(before, self.tree())

    def test_modprobe_file_of_before_comes_back(self) -> None:
        own = "options kvm_intel nested=0 ept=1\n"
        self.make("etc/modprobe.d/kvm-nested.conf", own)
        (self.root / "opt/stack/data/kvmdriver").mkdir()
        (self.root / "venv/bin").mkdir(parents=True)
        command = pathlib.Path(sys.executable).parent / "kvmdriver"
        (self.root / "venv/bin/kvmdriver").symlink_to(command)
        self.run_phases("stack post-config", KVMDRIVER_NESTED="True")
        self.assertIn("nested=1", self.read("etc/modprobe.d/kvm-nested.conf"))
        self.assertEqual("1\n", self.read("sys/module/kvm_intel/parameters/nested"))
        self.run_phases("unstack", "clean", KVMDRIVER_NESTED="True")
        self.assertEqual(own, self.read("etc/modprobe.d/kvm-nested.conf"))
        self.assertEqual("0\n", self.read("sys/module/kvm_intel/parameters/nested"))

    def test_options_of_others_stay_in_their_sections(self) -> None:
        self.run_phases("stack post-config", KVMDRIVER_MACHINE_TYPE="pc")
        with open(self.root / "etc/nova/nova.conf", "a") as file:
            file.write("[kvm_storage]\nreserved_disk_mib = 7\n")
        self.run_phases("unstack", KVMDRIVER_MACHINE_TYPE="pc")
        parser = configparser.RawConfigParser()
        parser.read(self.root / "etc/nova/nova.conf")
        self.assertEqual("7", parser["kvm_storage"]["reserved_disk_mib"])
        self.assertFalse(parser.has_section("kvm"))
        self.assertFalse(parser.has_section("kvm_migration"))

    def test_packages_are_those_of_bindep(self) -> None:
        """What DevStack installs for us is among what the project says that it needs."""
        bindep = (TOP / "bindep.txt").read_text()
        for kind, platform in (("debs", "dpkg"), ("rpms", "rpm")):
            ours = {
                line.split()[0]
                for line in bindep.splitlines()
                if line and "[" in line and (f"platform:{platform}" in line)
            }
            named = (TOP / f"devstack/files/{kind}/kvmdriver").read_text().split()
            self.assertEqual(set(), set(named) - ours)


def _without_packages(tree: dict[str, str]) -> dict[str, str]:
    return {path: text for path, text in tree.items() if not path.startswith("venv/")}
