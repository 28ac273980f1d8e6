"""What a nova-compute that is not root does with files that belong to root."""

import os
import shutil
import subprocess
import sys

from tests.contract.booted import BootedGuest

# a user that has no files: nobody
USER = 65534

# the part of nova-compute that reads the log, with nova's own way to the privileged process
PROGRAM = """
import os, sys
from types import SimpleNamespace
from nova.conf import CONF
CONF(["--config-file", os.environ["NOVA_CONF"]], project="nova")
from kvmdriver.nova import consoles
assert os.getuid() != 0
try:
    open(sys.argv[1])
    raise AssertionError("everybody can read the log")
except PermissionError:
    pass
node = SimpleNamespace(
    domain=lambda _instance: None,
    layout=lambda _instance: SimpleNamespace(console_log=sys.argv[1]),
)
sys.stdout.buffer.write(consoles.output(node, SimpleNamespace(uuid="-")))
"""


class NotRootTest(BootedGuest):
    def test_console_output(self) -> None:
        self.spawn()
        log = self.driver.node.layout(self.instance).console_log
        status = os.stat(log)
        self.assertEqual((0, 0o600), (status.st_uid, status.st_mode & 0o777))
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PROGRAM, log],
            user=USER,
            group=USER,
            extra_groups=[],
            env={**os.environ, "PATH": self.path_with_sudo(), "NOVA_CONF": self.nova_conf()},
            cwd="/",
            capture_output=True,
            timeout=120,
            check=False,
        )
        self.assertEqual(0, done.returncode, done.stderr.decode())
        self.assertIn(b"GUEST: up", done.stdout)

    def nova_conf(self) -> str:
        path = os.path.join(self.root, "nova.conf")
        with open(path, "w") as file:
            file.write(f"[DEFAULT]\nstate_path = {self.root}\n")
        return path

    def path_with_sudo(self) -> str:
        """PATH with a sudo that asks nobody: env(1), which belongs to root and is setuid."""
        directory = os.path.join(self.root, "bin")
        os.mkdir(directory)
        sudo = os.path.join(directory, "sudo")
        shutil.copy(shutil.which("env") or "/usr/bin/env", sudo)
        os.chmod(sudo, 0o4755)
        return os.pathsep.join((directory, os.path.dirname(sys.executable), os.environ["PATH"]))
