"""What tests of consoles share: nova's proxies, as a person with a browser meets them."""

import os
import subprocess
import sys
import tempfile

from PIL import Image

from tests.openstack.checks.base import PATHS, Failed, StackTest, openstack, run, wait_for
from tests.openstack.consoles import share
from tests.openstack.control import Control
from tests.openstack.paths import FIRST

# Fills the screen with a colour, writes on it, and says so on the other console. What is typed in
# the browser is its name and the number of a colour (ECMA-48, 8.3.117).
PAINT = (
    r"""printf '#!/bin/sh\nprintf "\\033[1;37;4$1m\\033[2J\\033[H"\nuname -srm\n"""
    r"""hostname\nuptime\nfree -m\necho GUEST: painted $1 >/dev/ttyS0\n' >/bin/paint; chmod 755 /bin/paint; """
    r"""echo made-$((6 * 7))"""
)


class ConsoleTest(StackTest):
    """A test that types into the consoles of a server and sees what the guest answers."""

    def use(self, kind: str, server: str, *arguments: str) -> str:
        """Use a console inside the namespaces, where its proxy listens; what that prints."""
        url = openstack("console", "url", "show", f"--{kind}", server)["url"]
        how = "serial" if kind == "serial" else "screen"
        options = ("--login",) if kind == "novnc" else ()
        command = (sys.executable, "-m", "tests.openstack.consoles", how, *options, url)
        done = subprocess.run(
            [*Control(PATHS, FIRST).enter(), *command, *arguments],
            capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        if done.returncode:
            raise Failed(f"{kind}: {done.stdout[-500:]} {done.stderr[-2000:]}")
        return done.stdout

    def assert_painted(self, path: str, colour: str, number: int) -> None:
        """The screenshot shows it, and the guest has told it on the serial console."""
        with Image.open(path) as picture:
            # of the whole window, in which the guest's screen is half
            self.assertGreater(share(picture, colour), 0.4, f"{path} is not {colour}")
        wait_for(
            lambda: (
                f"GUEST: painted {number}" in run("openstack", "console", "log", "show", "screen")
            ),
            30,
            "the guest to tell what was typed",
        )

    def check_consoles(self) -> None:
        self.create("screen")
        wait_for(
            lambda: "login:" in run("openstack", "console", "log", "show", "screen"),
            60,
            "the boot",
        )
        self.assertIn("made-42", self.use("serial", "screen", PAINT, "made-42"))

        # where to keep the pictures, e.g. for doc/source/images
        directory = os.environ.get("KVMDRIVER_SCREENSHOTS")
        if not directory:
            temporary = tempfile.TemporaryDirectory()
            self.addCleanup(temporary.cleanup)
            directory = temporary.name
        vnc, spice = (os.path.join(directory, f"{kind}.png") for kind in ("novnc", "spice"))
        self.use("novnc", "screen", "paint 4", "blue", vnc)
        self.assert_painted(vnc, "blue", 4)
        # whoever was logged in on the screen still is
        self.use("spice", "screen", "paint 2", "green", spice)
        self.assert_painted(spice, "green", 2)
