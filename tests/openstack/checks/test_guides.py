"""The commands of README and guides that need an OpenStack, run as they are written."""

import dataclasses
import ipaddress
import tempfile

from tests import commands
from tests.openstack.checks.base import PATHS, StackTest, act
from tests.openstack.paths import PUBLIC_CIDR, Paths

# what the suite does before and after all of its tests
OF_THE_SUITE = ("tools/openstack wipe", "tools/openstack tempest")


class GuidesTest(StackTest):
    def test_all_documents(self) -> None:
        for document, blocks in commands.needing("openstack").items():
            with self.subTest(document), tempfile.TemporaryDirectory() as home:
                self.addCleanup(self.remove, "web")
                commands.carry_out(
                    [self._of_this_stack(block) for block in blocks],
                    home,
                    {"KVMDRIVER_OPENSTACK": PATHS.root},
                )
                self._remove()

    def _remove(self) -> None:
        server = self.show("web")
        self.assertEqual("ACTIVE", server["status"])
        for address in server["addresses"]["private"]:
            if ipaddress.ip_address(address) in ipaddress.ip_network(PUBLIC_CIDR):
                act("floating", "ip", "delete", address)
        self.remove("web")

    @staticmethod
    def _of_this_stack(block: commands.Block) -> commands.Block:
        lines = (x for x in block.text.splitlines() if not x.strip().startswith(OF_THE_SUITE))
        text = "\n".join(lines).replace("tools/openstack", f"{commands.TOP}/tools/openstack")
        return dataclasses.replace(block, text=text.replace(Paths.standard().root, PATHS.root))
