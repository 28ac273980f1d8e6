"""An agent whose requests hang, on an in-memory bus: questions are answered, and it ends."""

import threading
import time
import unittest
import uuid
from typing import Any
from unittest import mock

from oslo_config import cfg

from kvmdriver import conf as options
from kvmdriver import exception
from kvmdriver.agent import server
from kvmdriver.agent import transport as bus
from kvmdriver.agent.client import ComputeAPI


class ServerTest(unittest.TestCase):
    def setUp(self) -> None:
        self.conf = options.register_opts(cfg.ConfigOpts())
        self.conf([], project="kvmdriver", default_config_files=[])
        for name, value in (
            ("host", str(uuid.uuid4())),
            ("workers", 2),
            ("downloads", 1),
            ("waiting_downloads", 1),
            ("peer_workers", 1),
            ("shutdown_grace", 0.2),
        ):
            self.conf.set_override(name, value, "kvm_agent")
        # The driver is replaced: what matters here is who is kept waiting by calls that hang.
        self.driver = mock.Mock(migration_activity=threading.Event(), attention=threading.Event())
        self.driver.has_unmended.return_value = False
        self.driver.list_instances.return_value = []
        self.hang = threading.Event()
        self.addCleanup(self.hang.set)
        self.hanging = threading.Semaphore(0)
        transport = bus.rpc_transport(self.conf, "fake://")
        with mock.patch.object(server, "load_driver", return_value=self.driver):
            self.agent = server.AgentServer(self.conf, transport, mock.Mock())
        self.api = ComputeAPI(self.conf, transport=transport)

    def wait(self, *_arguments: Any, **_named: Any) -> None:
        self.hanging.release()
        self.hang.wait()

    def call(self, function: Any, *arguments: Any) -> threading.Thread:
        def work() -> None:
            try:
                function(*arguments)
            except exception.KVMDriverError as error:
                self.errors.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    def start_with_all_workers_busy(self) -> list[threading.Thread]:
        self.errors: list[exception.KVMDriverError] = []
        self.agent.start()
        self.driver.power_on.side_effect = self.wait
        calls = [self.call(self.api.start_instance, f"guest-{n}") for n in range(4)]
        for _ in calls:
            self.assertTrue(self.hanging.acquire(timeout=10))
        return calls

    def test_questions_are_answered_while_all_workers_are_busy(self) -> None:
        calls = self.start_with_all_workers_busy()
        self.assertEqual([], self.api.list_instances())
        self.assertTrue(self.api.answers(self.conf.kvm_agent.host))
        self.assertIsNone(self.api.get_progress("nothing"))
        self.driver.is_moving.return_value = True
        self.assertEqual(
            {"moving": True},
            self.api.ask(
                "is_moving",
                self.conf.kvm_agent.host,
                lane="reads",
                uuid=str(uuid.uuid4()),
                migration=str(uuid.uuid4()),
            ),
        )
        self.hang.set()
        for call in calls:
            call.join(10)
        self.assertEqual([], self.errors)
        self.agent.stop()

    def test_other_agents_are_answered_while_all_workers_are_busy(self) -> None:
        self.start_with_all_workers_busy()
        self.driver.migration_receiver.return_value = None
        self.api.ask(
            "migration_receiver",
            self.conf.kvm_agent.host,
            uuid=str(uuid.uuid4()),
            migration=str(uuid.uuid4()),
        )
        self.driver.migration_receiver.assert_called_once()
        self.hang.set()
        self.agent.stop()

    def test_it_ends_although_requests_hang(self) -> None:
        self.start_with_all_workers_busy()
        # what can be cancelled ends now
        self.driver.cancel.side_effect = lambda _reason: self.hang.set()
        began = time.monotonic()
        self.agent.stop()
        self.assertLess(time.monotonic() - began, 5)
        self.driver.cancel.assert_called_once()
        self.driver.close.assert_called_once()

    def test_it_ends_although_a_request_cannot_be_cancelled(self) -> None:
        self.start_with_all_workers_busy()
        began = time.monotonic()
        undo = mock.patch.object(server, "_UNDO_SECONDS", 0.2)
        with undo, self.assertLogs("kvmdriver.agent.server", "WARNING") as logged:
            self.agent.stop()
        self.assertLess(time.monotonic() - began, 5)
        self.assertIn("changes", logged.output[0])

    def test_a_host_that_is_not_reconciled_in_time_is_served(self) -> None:
        self.driver.init_host.side_effect = self.wait
        with mock.patch.object(server, "_PREPARE_SECONDS", 0.2):
            self.agent.start()
        self.assertEqual([], self.api.list_instances())
        self.hang.set()
        self.agent.stop()

    def test_a_configuration_that_is_wrong_keeps_it_from_starting(self) -> None:
        self.driver.init_host.side_effect = exception.ConfigurationError("no such CPU")
        with self.assertRaises(exception.ConfigurationError):
            self.agent.start()
