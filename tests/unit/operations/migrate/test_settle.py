"""The console log of an instance that has moved."""

import unittest
from unittest import mock

from kvmdriver import exception
from kvmdriver.model import FileReceiver, MigrationView
from kvmdriver.operations.migrate import settle

_UUID = "2033e251-843a-436a-86e6-30bb42b51c6c"
_VIEW = MigrationView(
    id="m1", instance="web", uuid=_UUID, kind="live", source="a", destination="b", state="finish"
)


def _receiver(port: int) -> FileReceiver:
    return FileReceiver(address="192.0.2.1", port=port, token="t" * 32)


class ConsoleLogTest(unittest.TestCase):
    def send(self, *outcomes: exception.KVMDriverError | None) -> list[int]:
        """The ports to which the log was sent, when sending ends so."""
        neighbour = mock.Mock()
        neighbour.receiver.side_effect = [_receiver(port) for port in (5001, 5002, 5003)]
        with (
            mock.patch.object(settle.console, "read_log", return_value=b"printed"),
            mock.patch.object(settle, "send_file", side_effect=outcomes) as sent,
        ):
            settle._send_console_log(mock.Mock(), _VIEW, neighbour)
        return [call.args[1].port for call in sent.call_args_list]

    def test_a_receiver_that_was_closed_is_asked_for_again(self) -> None:
        closed = exception.StorageError("console.log was not taken: the receiver has gone away")
        with self.assertNoLogs("kvmdriver", "WARNING"):
            self.assertEqual([5001, 5002], self.send(closed, None))

    def test_a_log_that_cannot_be_sent_stays_behind(self) -> None:
        full = exception.StorageError("no space is left")
        with self.assertLogs("kvmdriver", "WARNING") as logged:
            self.assertEqual([5001, 5002], self.send(full, full))
        self.assertIn("the console log stays behind: no space is left", logged.output[0])

    def test_a_host_that_does_not_answer_is_not_asked_again(self) -> None:
        with self.assertLogs("kvmdriver", "WARNING"):
            self.assertEqual([5001], self.send(exception.AgentUnreachable("b does not answer")))
