"""The commands of README and guides, run as they are written, with real guests."""

import os
import shutil
import unittest

from tests import commands, namespace
from tests.functional.base import guest_file, run

# Guests have no KVM here, and few of the machine's resources.
ENVIRONMENT = {"OS_KVM__VIRT_TYPE": "qemu", "OS_KVM_STORAGE__RESERVED_DISK_MIB": "16"}


class GuideTest(unittest.TestCase):
    def setUp(self) -> None:
        super().setUp()
        if namespace.INSIDE not in os.environ:
            self.fail("functional tests need their laboratory: run them with tools/run-tests")
        self.home = os.path.join(os.environ[namespace.INSIDE], "guides")
        images = os.path.join(self.home, "kvmdriver", "images")
        os.makedirs(images)
        self.addCleanup(shutil.rmtree, self.home)
        shutil.copy(guest_file("guest.qcow2"), os.path.join(images, "debian.qcow2"))
        os.makedirs(os.path.join(self.home, ".ssh"))
        shutil.copy(guest_file("id_ed25519.pub"), os.path.join(self.home, ".ssh"))
        # what the documents say, in a mount namespace of this laboratory's own
        var = "/var/lib/kvmdriver"
        os.makedirs(var, exist_ok=True)
        run("mount", "--bind", os.path.join(self.home, "kvmdriver"), var)
        self.addCleanup(run, "umount", "--lazy", var)

    def test_the_administrators_guide(self) -> None:
        self._run("doc/source/administrator.rst")

    def test_the_readme(self) -> None:
        self._run("README.rst")

    def test_all_documents_with_such_commands_are_run(self) -> None:
        named = set(commands.needing("laboratory"))
        self.assertEqual({"README.rst", "doc/source/administrator.rst"}, named)

    def _run(self, document: str) -> None:
        """Run the blocks of a document that need a laboratory, in one shell, up to an error."""
        blocks = commands.needing("laboratory").get(document, [])
        self.assertTrue(blocks)
        commands.carry_out(blocks, self.home, ENVIRONMENT)
        left = run("virsh", "-q", "list", "--all", "--name").split()
        self.assertEqual([], [name for name in left if name in ("web", "web2", "outer")])
