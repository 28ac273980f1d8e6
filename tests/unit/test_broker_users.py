"""``etc/rabbitmq/kvmdriver-users`` and the versions of ``rabbitmqctl``."""

import os
import pathlib
import subprocess
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).parents[2] / "etc/rabbitmq/kvmdriver-users"
# RabbitMQ 4 reads a password where there are exactly two words, and with -q waits forever. The
# stand-in ends with an error there.
RABBITMQCTL = """#!/bin/sh
directory=$(dirname "$0")
echo "$*" >>"$directory/calls"
case "$*" in
*list_users*) cat "$directory/users" ;;
*add_user*|*change_password*)
    [ $# = 2 ] || exit 70
    echo "Adding user ..."
    cat >"$directory/password" ;;
esac
"""


class UsersTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        (self.directory / "rabbitmqctl").write_text(RABBITMQCTL)
        (self.directory / "rabbitmqctl").chmod(0o755)
        (self.directory / "users").write_text("guest\t[administrator]\n")

    def make(self) -> str:
        """Make the user of a host; what ``rabbitmqctl`` was asked for."""
        done = subprocess.run(
            ["sh", str(SCRIPT), "host", "kvm1"],
            input="secret\n", capture_output=True, text=True, timeout=60,
            env={"PATH": f"{self.directory}:{os.environ['PATH']}"},
        )  # fmt: skip
        self.assertEqual((0, "", ""), (done.returncode, done.stdout, done.stderr))
        self.assertEqual("secret\n", (self.directory / "password").read_text())
        calls = (self.directory / "calls").read_text()
        self.assertNotIn("secret", calls)
        return calls

    def test_a_new_user(self) -> None:
        self.assertIn("\nadd_user kvm1\n", self.make())

    def test_a_user_who_exists(self) -> None:
        (self.directory / "users").write_text("kvm1\t[]\n")
        self.assertIn("\nchange_password kvm1\n", self.make())
