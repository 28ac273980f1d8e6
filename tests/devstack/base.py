"""A root of its own in which the plugin for DevStack runs its phases."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import unittest

TOP = pathlib.Path(__file__).parents[2]
PLUGIN = TOP / "devstack"
STACK = ("pre-install", "install", "post-config", "extra", "test-config")

# nova.conf as DevStack has it when our phases begin, in short
NOVA_CONF = """[DEFAULT]
compute_driver = libvirt.LibvirtDriver
default_ephemeral_format = ext4
pointer_model = ps2mouse
state_path = {root}/opt/stack/data/nova

[libvirt]
live_migration_uri = qemu+ssh://stack@%s/system
cpu_mode = custom
cpu_models = Nehalem
virt_type = qemu
"""

# A modprobe of a made-up host: loading sets the parameters that the configuration names.
MODPROBE = """#!/bin/sh
root=$(dirname "$(dirname "$0")")
echo "modprobe $*" >> $root/calls
if [ "$1" = -r ]; then rm -r $root/sys/module/$2; exit 0; fi
mkdir -p $root/sys/module/$1/parameters
echo 0 > $root/sys/module/$1/refcnt
echo N > $root/sys/module/$1/parameters/nested
for pair in $(cat $root/etc/modprobe.d/*.conf 2>/dev/null | sed -n "s/^options $1 //p"); do
    echo ${pair#*=} > $root/sys/module/$1/parameters/${pair%%=*}
done
"""

# what a test may leave: caches, and what a build leaves in the clone that DevStack keeps
_UNIMPORTANT = (".git", "__pycache__", "kvmdriver.egg-info")


class PluginTest(unittest.TestCase):
    """Each test has a nova tree, a Python environment and configuration files of its own."""

    def setUp(self) -> None:
        self.root = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        self.make("etc/nova/nova.conf", NOVA_CONF.format(root=self.root))
        self.make("etc/nova/rootwrap.d/compute.filters", "[Filters]\n")
        self.make("etc/group", "libvirt:x:110:stack\nlibvirt-qemu:x:994:\n")
        self.make("opt/stack/tempest/etc/tempest.conf", "[compute]\n")
        self.make("units/devstack@n-cpu.service", "")
        self.make("calls", "")
        self.make("proc/cpuinfo", "vendor_id\t: GenuineIntel\nflags\t\t: fpu vmx aes\n")
        self.make("sys/module/kvm_intel/refcnt", "0\n")
        self.make("sys/module/kvm_intel/parameters/nested", "N\n")
        self.make("sbin/modprobe", MODPROBE)
        os.chmod(self.root / "sbin/modprobe", 0o755)
        for directory in ("etc/modprobe.d", "opt/stack/nova/nova/virt", "opt/stack/data"):
            (self.root / directory).mkdir(parents=True)
        # no package: pip runs no install, and the phases that do are tested with a real one
        (self.root / "opt/stack/kvmdriver").symlink_to(TOP)

    def with_packages(self) -> None:
        """Have a real nova tree and a real Python environment, as DevStack makes them."""
        installed = sysconfig.get_path("purelib")
        nova = self.root / "opt/stack/nova"
        for directory, real in (
            ("nova", ("virt", "__pycache__")),
            ("nova/virt", ("__pycache__",)),
        ):
            # links, so that what is compiled already is not compiled again
            for entry in os.scandir(os.path.join(installed, directory)):
                if entry.name not in real and entry.name != "kvmdriver.py":
                    os.symlink(entry.path, nova / directory / entry.name)
        # a clone, as DevStack has it: a build leaves files behind in the tree
        clone = self.root / "opt/stack/kvmdriver"
        clone.unlink()
        subprocess.run(["git", "clone", "-q", str(TOP), str(clone)], check=True)
        venv = self.root / "venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
        packages = next(venv.glob("lib/python*/site-packages"))
        # nova's tree first, then what both need
        (packages / "surroundings.pth").write_text(f"{nova}\n{installed}\n")

    def make(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def read(self, path: str) -> str:
        return (self.root / path).read_text()

    def run_phases(
        self, *phases: str, check: bool = True, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run phases in one shell, as stack.sh, unstack.sh and clean.sh do.

        :param phases: each a mode with or without its phase.
        :param variables: what local.conf sets.
        """
        lines = [
            "set -o errexit -o errtrace -o nounset",
            f"source {TOP}/tests/devstack/stand_ins.sh",
            f"source {PLUGIN}/settings",
            *(f"source {PLUGIN}/plugin.sh {phase}" for phase in phases),
        ]
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        done = subprocess.run(
            ["bash", "-c", "\n".join(lines)],
            env={**environment, "ROOT": str(self.root), "PYTHONWARNINGS": "ignore", **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if check:
            self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        return done

    def stack(self, **variables: str) -> None:
        self.run_phases(*(f"stack {phase}" for phase in STACK), **variables)

    def python(self, program: str, *arguments: str) -> str:
        """What a program prints that runs in the environment of nova-compute."""
        done = subprocess.run(
            [str(self.root / "venv/bin/python"), "-W", "ignore", "-c", program, *arguments],
            env={**os.environ, "OS_NOVA_DISABLE_EVENTLET_PATCHING": "1"},
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(0, done.returncode, done.stderr)
        return done.stdout

    def tree(self) -> dict[str, str]:
        """Every file below the root with its content, but for caches."""
        found = {}
        for directory, directories, files in os.walk(self.root):
            directories[:] = [name for name in directories if name not in _UNIMPORTANT]
            for name in (*files, *directories):
                path = pathlib.Path(directory, name)
                relative = str(path.relative_to(self.root))
                if path.is_symlink():
                    found[relative] = f"-> {os.readlink(path)}"
                elif path.is_file():
                    found[relative] = path.read_bytes().decode(errors="replace")
                else:
                    found[relative] = "directory"
        del found["calls"]
        return found
