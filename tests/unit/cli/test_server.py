"""Deleting instances from the command line: what is not there is told."""

import io
import types
import unittest
from unittest import mock

from kvmdriver import exception
from kvmdriver.agent.client import ComputeAPI
from kvmdriver.cli.server import DeleteServer


class DeleteTest(unittest.TestCase):
    def setUp(self) -> None:
        self.existing = {"web", "db"}
        self.client = mock.create_autospec(ComputeAPI, instance=True)
        self.client._change.side_effect = self._change
        self.client.terminate_instance = types.MethodType(
            ComputeAPI.terminate_instance, self.client
        )
        self.app = mock.Mock(client=self.client, stdout=io.StringIO(), stderr=io.StringIO())

    def _change(self, _method: str, _host: object, _progress: object, **asked: object) -> object:
        """What an agent answers."""
        found = asked["instance"] in self.existing
        self.existing.discard(str(asked["instance"]))
        return {"found": found, "kept": [f"/{asked['instance']}/disk"] if found else []}

    def delete(self, *arguments: str) -> int:
        command = DeleteServer(self.app, None)
        return command.run(command.get_parser("delete").parse_args(arguments))

    def test_what_is_there(self) -> None:
        self.assertEqual(0, self.delete("web", "db"))
        self.assertEqual(("/web/disk\n/db/disk\n", ""), (self.out(), self.err()))

    def test_what_is_not_there_does_not_keep_the_others(self) -> None:
        self.assertEqual(1, self.delete("nobody", "web", "web"))
        self.assertEqual({"db"}, self.existing)
        self.assertEqual(2, self.err().count("instance_not_found"))
        self.assertIn("there is no instance 'nobody'", self.err())

    def test_if_it_exists(self) -> None:
        self.assertEqual(0, self.delete("--if-exists", "nobody", "web"))
        self.assertEqual(({"db"}, ""), (self.existing, self.err()))

    def test_nothing_can_be_removed(self) -> None:
        self.client._change.side_effect = exception.HypervisorUnavailable("libvirt is away")
        self.assertEqual(1, self.delete("web", "db"))
        self.assertEqual(1, self.err().count("libvirt is away"))

    def test_an_error_is_one_line_for_each_fact(self) -> None:
        self.client._change.side_effect = exception.InstanceBusy("busy\n  remedy: none")
        self.assertEqual(1, self.delete("web"))
        self.assertIn("Error: busy   remedy: none\n", self.err())

    def out(self) -> str:
        return self.app.stdout.getvalue()

    def err(self) -> str:
        return self.app.stderr.getvalue()
