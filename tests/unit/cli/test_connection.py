"""Which configurations the command line takes."""

import os
import tempfile
import unittest

from kvmdriver import exception
from kvmdriver.cli.connection import Connection

URL = "transport_url = rabbit://kvm1:secret@127.0.0.1:5671/kvmdriver\n"


class ConnectionTest(unittest.TestCase):
    def connection(self, text: str) -> Connection:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = os.path.join(directory.name, "kvmdriver.conf")
        with open(path, "w") as file:
            file.write(f"[DEFAULT]\n{URL}{text}")
        connection = Connection([path])
        self.addCleanup(connection.close)
        return connection

    def test_a_client_of_its_own(self) -> None:
        self.assertIsNotNone(self.connection("control_exchange = amq.topic\n").client)

    def test_the_configuration_of_an_agent(self) -> None:
        connection = self.connection("[oslo_messaging_rabbit]\nuse_queue_manager = true\n")
        for _ in range(2):
            with self.assertRaises(exception.ConfigurationError) as caught:
                connection.client  # noqa: B018
            self.assertEqual("oslo_messaging_rabbit.use_queue_manager", caught.exception.field)
            self.assertIn("~/.kvmdriver/kvmdriver.conf", caught.exception.remedy or "")
