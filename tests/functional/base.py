"""What functional tests share: a real agent on real libvirt, guests, and a look for leftovers."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest
import uuid
from typing import Any

import libvirt
from oslo_config import cfg

from kvmdriver import conf as options
from kvmdriver import exception, model, privsep
from kvmdriver.agent.local import LocalAgent
from tests import namespace

GUEST = os.environ.get("KVMDRIVER_GUEST", "/var/tmp/kvmdriver-guest")
BOOT_SECONDS = 90


def guest_file(name: str) -> str:
    return os.path.join(GUEST, name)


def public_key() -> str:
    with open(guest_file("id_ed25519.pub")) as key:
        return key.read().strip()


def run(*command: str, check: bool = True) -> str:
    """A command's output; its errors are shown when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if check and done.returncode:
        raise AssertionError(f"{shlex.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


class FunctionalTest(unittest.TestCase):
    """A test with an agent of its own, in-process, and instances that are removed afterwards."""

    config: dict[str, dict[str, Any]] = {}

    def setUp(self) -> None:
        super().setUp()
        if namespace.INSIDE not in os.environ:
            self.fail("functional tests need their laboratory: run them with tools/run-tests")
        self.state = tempfile.mkdtemp(dir=os.environ[namespace.INSIDE])
        os.chmod(self.state, 0o755)
        self.addCleanup(shutil.rmtree, self.state, ignore_errors=True)
        self.instances = os.path.join(self.state, "instances")
        self.made: set[str] = set()
        self._configure_privsep()
        self.agent = self.start_agent()
        self.api = self.agent.client
        self.addCleanup(self._clean_up)

    def _configure_privsep(self) -> None:
        """The process that reads logs for an agent without root does so below what it is told."""
        if os.geteuid() == 0:
            return
        path = os.path.join(self.state, "privsep.conf")
        with open(path, "w") as config:
            config.write(f"[kvm_storage]\ninstances_path = {self.instances}\n")
        command = f"sudo privsep-helper --config-file {path}"
        cfg.CONF.set_override("helper_command", command, "kvm_privsep")
        self.addCleanup(privsep.context.stop)

    def make_conf(self) -> cfg.ConfigOpts:
        conf = options.register_opts(cfg.ConfigOpts())
        conf([], project="kvmdriver", default_config_files=[])
        conf.set_override("virt_type", "qemu", "kvm")
        conf.set_override("instances_path", self.instances, "kvm_storage")
        conf.set_override("reserved_disk_mib", 16, "kvm_storage")
        # servers of images are on this machine, at whatever port is free
        conf.set_override("image_url_networks", ["127.0.0.0/8"], "kvm_storage")
        conf.set_override("image_url_ports", ["1-65535"], "kvm_storage")
        conf.set_override("host", f"test-{uuid.uuid4()}", "kvm_agent")
        for group, values in self.config.items():
            for name, value in values.items():
                conf.set_override(name, value, group)
        return conf

    def start_agent(self) -> LocalAgent:
        return LocalAgent(self.make_conf())

    def _clean_up(self) -> None:
        for identity in self.made:
            self.api.terminate_instance(identity)
        self.agent.close()
        self.assert_nothing_left()

    def assert_nothing_left(self) -> None:
        """No domain, directory, half-made image, TAP or lock of this test's instances."""
        connection = libvirt.open("qemu:///system")
        try:
            domains = {domain.UUIDString() for domain in connection.listAllDomains()}
        finally:
            connection.close()
        self.assertEqual(set(), domains & self.made, "domains are left")
        left = []
        for directory, _names, files in os.walk(self.instances):
            if directory == os.path.join(self.instances, "_base"):
                files = [name for name in files if name.startswith(".")]
            left += [os.path.join(directory, name) for name in files]
        self.assertEqual([], left, "files are left")
        self.assertEqual(0, len(self.agent._server.driver._context.locks), "locks are left")

    # Making instances

    def name(self, suffix: str = "") -> str:
        return f"{self.id().rpartition('.')[2].removeprefix('test_')[:40]}-{uuid.uuid4().hex[:6]}{suffix}"

    def request(self, **fields: Any) -> model.Instance:
        """An instance that boots the test guest, with ``fields`` added or changed."""
        data: dict[str, Any] = {
            "name": self.name(),
            "memory": {"current_mib": 192},
            "disks": [{"image": {"type": "file", "path": guest_file("guest.qcow2")}}],
            "nics": [{"type": "network", "source": "default"}],
            "config_drive": {"ssh_keys": [public_key()]},
        }
        data |= fields
        return model.Instance.parse(data)

    def create(self, *, start: bool = True, **fields: Any) -> model.InstanceView:
        request = self.request(**fields)
        self.made.add(request.uuid)
        return self.api.build_and_run_instance(request, start=start)

    def refused(
        self, kind: type[exception.KVMDriverError], call: Any, *arguments: Any, **named: Any
    ) -> exception.KVMDriverError:
        """The error that a call must end with: of that type, with a remedy."""
        with self.assertRaises(kind) as caught:
            call(*arguments, **named)
        error = caught.exception
        self.assertTrue(error.message, "the error says nothing")
        return error

    def create_refused(
        self, kind: type[exception.KVMDriverError], **fields: Any
    ) -> exception.KVMDriverError:
        """Create an instance that must be refused, and see that nothing of it is left."""
        request = self.request(**fields)
        self.made.add(request.uuid)
        error = self.refused(kind, self.api.build_and_run_instance, request)
        self.assertIsNotNone(error.field)
        self.assertIsNotNone(error.remedy)
        self.assert_nothing_left()
        return error

    # Looking into guests

    def wait_for_console(self, name: str, text: str, count: int = 1) -> str:
        """Wait until a text has come ``count`` times on the serial console; all of its output."""
        output = ""

        def seen() -> bool:
            nonlocal output
            output = self.api.get_console_output(name)
            return output.count(text) >= count

        try:
            namespace.wait_for(seen, BOOT_SECONDS)
        except AssertionError:
            self.fail(f"{text!r} did not come {count} times on the console:\n{output}")
        return output

    def wait_for_ssh(self, name: str) -> "Guest":
        """Wait until the guest answers ssh at an address that the agent reports."""
        guest: Guest | None = None

        def answers() -> bool:
            nonlocal guest
            for address in self.api.get_instance(name).addresses:
                guest = Guest(address.ip)
                if guest.answers():
                    return True
            return False

        try:
            namespace.wait_for(answers, BOOT_SECONDS, 0.5)
        except AssertionError:
            self.fail(f"no ssh:\n{self.api.get_console_output(name)}")
        assert guest is not None
        return guest

    def wait_for_status(self, name: str, status: str) -> None:
        namespace.wait_for(lambda: self.api.get_instance(name).status == status, BOOT_SECONDS)


class Guest:
    """A guest that answers ssh."""

    def __init__(self, address: str):
        self.address = address

    def _command(self, command: str) -> list[str]:
        return [
            "ssh", "-q", "-i", guest_file("id_ed25519"), "-o", "StrictHostKeyChecking=no",
            "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-o", "ConnectTimeout=3",
            f"root@{self.address}", command,
        ]  # fmt: skip

    def answers(self) -> bool:
        try:
            return not subprocess.run(
                self._command("true"), capture_output=True, timeout=10
            ).returncode
        except subprocess.TimeoutExpired:
            return False

    def run(self, command: str) -> str:
        done = subprocess.run(self._command(command), capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise AssertionError(f"{command}: {done.returncode} {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def uptime(self) -> float:
        return float(self.run("cut -d' ' -f1 /proc/uptime"))

    def memory_mib(self) -> int:
        return int(re.findall(r"MemTotal: +(\d+)", self.run("cat /proc/meminfo"))[0]) // 1024

    def cpus(self) -> int:
        return int(self.run("nproc"))

    def disks_mib(self) -> dict[str, int]:
        names = "for d in /sys/block/*; do echo ${d##*/} $(cat $d/size); done"
        rows = [line.split() for line in self.run(names).splitlines()]
        return {name: int(sectors) // 2048 for name, sectors in rows}

    def macs(self) -> set[str]:
        return set(self.run("cat /sys/class/net/eth*/address").split())


def kvmdriver(*arguments: str, state: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user would, on the laboratory's libvirt."""
    instances = "OS_KVM_STORAGE__INSTANCES_PATH"
    done = subprocess.run(
        [os.path.join(os.path.dirname(sys.executable), "kvmdriver"), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={
            **os.environ,
            "OS_KVM__VIRT_TYPE": "qemu",
            instances: os.path.join(state, "instances"),
            # a user who is not root: the privileged process must know the directory, too
            "OS_KVM_PRIVSEP__HELPER_COMMAND": f"sudo --preserve-env={instances} privsep-helper",
        },
    )
    if check and done.returncode:
        raise AssertionError(f"{shlex.join(arguments)}: {done.stdout}{done.stderr}")
    return done


def kvmdriver_json(*arguments: str, state: str) -> Any:
    return json.loads(kvmdriver(*arguments, "-f", "json", state=state).stdout)
