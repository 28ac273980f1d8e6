"""Files that go to another host, with a stand-in for ssh that runs the command here."""

import os
import pathlib
import tempfile
import unittest
from unittest import mock

from kvmdriver import exception
from kvmdriver.nova.remote import RemoteHost

# "kvm9" cannot be reached; ssh says so with 255 (ssh(1), EXIT STATUS)
SSH = """#!/bin/sh
while [ "$1" = -o ]; do shift 2; done
[ "$1" = -- ] || { echo "the host could be an option" >&2; exit 255; }
shift
host=$1; shift
[ "$host" = kvm9 ] && { echo "Connection refused" >&2; exit 255; }
exec sh -c "$*"
"""
BLOCK = 1024 * 1024


class RemoteHostTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.here = pathlib.Path(directory.name, "here")
        self.there = pathlib.Path(directory.name, "there; touch $(id) 'a'")
        tools = pathlib.Path(directory.name, "bin")
        for path in (self.here, tools):
            path.mkdir()
        (tools / "ssh").write_text(SSH)
        (tools / "ssh").chmod(0o755)
        path = mock.patch.dict(os.environ, {"PATH": f"{tools}:{os.environ['PATH']}"})
        path.start()
        self.addCleanup(path.stop)
        self.host = RemoteHost("kvm2")

    def test_files_arrive_with_their_holes(self) -> None:
        disk = self.here / "disk"
        with open(disk, "wb") as file:
            file.truncate(16 * BLOCK)
            file.seek(8 * BLOCK)
            file.write(b"x" * BLOCK)
        (self.here / "disk.info").write_text("{}")
        self.host.make_directory(str(self.there), fresh=True)
        self.host.send([str(disk), str(self.here / "disk.info")], str(self.there))
        arrived = self.there / "disk"
        self.assertEqual(disk.read_bytes(), arrived.read_bytes())
        self.assertLess(arrived.stat().st_blocks * 512, 4 * BLOCK)
        self.assertEqual(["disk", "disk.info"], sorted(os.listdir(self.there)))
        self.host.remove(str(self.there))
        self.host.remove(str(self.there))
        self.assertFalse(self.there.exists())
        self.assertEqual({"here", "bin"}, set(os.listdir(self.here.parent)))

    def test_addresses(self) -> None:
        for address in ("kvm2", "kvm_2.example.org", "192.0.2.1", "2001:db8::1"):
            with self.subTest(address):
                RemoteHost(address)
        wrong = ("", "-oProxyCommand=id", "root@kvm2", "kvm2 -l root", "kvm2\n", "kvm;id", "a/b")
        for address in wrong:
            with self.subTest(address), self.assertRaises(exception.HostError) as caught:
                RemoteHost(address)
            self.assertEqual("host", caught.exception.field)

    def test_a_directory_that_is_there_is_not_taken(self) -> None:
        self.there.mkdir()
        with self.assertRaisesRegex(exception.HostError, "exists"):
            self.host.make_directory(str(self.there), fresh=True)
        self.host.make_directory(str(self.there))

    def test_what_is_shared(self) -> None:
        self.assertTrue(self.host.shares(str(self.here)))
        self.assertEqual([], os.listdir(self.here))
        self.assertFalse(self.host.has(str(self.there)))

    def test_a_host_that_cannot_be_asked_gives_no_answer(self) -> None:
        """No would have the directory removed in the end, which may be the shared one."""
        away = RemoteHost("kvm9")
        for ask in (away.has, away.shares, away.make_directory, away.remove):
            with self.assertRaises(exception.HostError) as caught:
                ask(str(self.here))
            self.assertEqual(("host", "kvm9"), (caught.exception.field, caught.exception.value))
        self.assertEqual([], os.listdir(self.here))
        with self.assertRaisesRegex(exception.HostError, "Connection refused"):
            away.send([__file__], "/nonexistent")

    def test_a_file_that_does_not_arrive(self) -> None:
        with self.assertRaises(exception.HostError):
            self.host.send([str(self.here / "missing")], str(self.here))
        with self.assertRaises(exception.HostError):
            self.host.send([__file__], str(self.there))
        self.host.send([], str(self.there))
