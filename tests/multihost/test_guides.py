"""The commands of guides that need two hosts, run as they are written."""

import os
import shutil
import tempfile

from tests import commands
from tests.multihost.base import MultihostTest
from tests.multihost.laboratory import Host

BLOCKS = [block for blocks in commands.needing("two hosts").values() for block in blocks]
AFRESH = [block for block in BLOCKS if "--rebuild" in block.text]
EVACUATION = [block for block in BLOCKS if "evacuate" in block.text and block not in AFRESH]
MOVES = [block for block in BLOCKS if "server migrate" in block.text]


class GuidesTest(MultihostTest):
    def home(self, host: Host) -> str:
        """The home directory of a user who works on a host."""
        home = tempfile.mkdtemp(dir=self.laboratory.state)
        os.mkdir(os.path.join(home, ".kvmdriver"))
        os.symlink(host.config, os.path.join(home, ".kvmdriver", "kvmdriver.conf"))
        return home

    def test_hosts_that_live(self) -> None:
        others = [block for block in BLOCKS if block not in (*AFRESH, *EVACUATION, *MOVES)]
        with self.agents(shared=True):
            view = self.create(name="web")
            self.guest_of(view)
            commands.carry_out(others, self.home(self.first), {})
            commands.carry_out(MOVES, self.home(self.first), {})
            self.assertEqual({"kvm1": "off"}, self.where(view.uuid))

    def test_a_host_that_has_died(self) -> None:
        with self.agents(shared=True):
            view = self.create(name="web", nics=[])
            self.first.crash()
            output = commands.carry_out(EVACUATION, self.home(self.second), {})
            self.assertIn(view.uuid, output)
            self.assertEqual({"kvm2": "running"}, self.where(view.uuid))
            self.restore()

    def test_a_host_that_has_died_with_its_storage(self) -> None:
        with self.agents():
            view = self.create(name="web", nics=[])
            home = self.home(self.second)
            shutil.copy(os.path.join(self.first.local_storage, view.uuid, "instance.json"), home)
            self.first.crash()
            commands.carry_out(AFRESH, home, {})
            self.assertEqual({"kvm2": "running"}, self.where(view.uuid))
            self.restore()
            self.wait_for(lambda: view.uuid not in self.first.domains())
