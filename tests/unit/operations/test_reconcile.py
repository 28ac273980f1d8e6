"""A reconciliation beside operations that are under way."""

import types
import unittest
from typing import Any
from unittest import mock

from kvmdriver.guest.locks import InstanceLocks
from kvmdriver.hypervisor.record import Record, Task, TaskName
from kvmdriver.model import Instance
from kvmdriver.operations import reconcile

UUID = "0a1b2c3d-0000-4000-8000-000000000001"


class BesideOperationsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.record = Record(
            instance=Instance.parse({"name": "web", "uuid": UUID}), root="/instances"
        )
        self.domain = mock.Mock(uuid=UUID)
        self.domain.is_active.return_value = True
        self.domain.running_record.return_value = None
        self.context = mock.Mock(locks=InstanceLocks(), unmended=set())
        self.context.hypervisor.summaries.return_value = [types.SimpleNamespace(uuid=UUID)]
        self.context.images.sweep.return_value = self.context.store.sweep.return_value = []
        self.context.store.orphans.return_value = []
        self.context.record.side_effect = lambda _uuid: self.record
        self.context.find.side_effect = lambda _uuid: (self.domain, self.record)
        for where, name, answer in (
            (reconcile.evacuate, "leave", False),
            (reconcile.mending, "differences", []),
        ):
            patch = mock.patch.object(where, name, return_value=answer)
            patch.start()
            self.addCleanup(patch.stop)

    def reconcile(self) -> Any:
        return reconcile.reconcile(self.context)

    def test_an_idle_instance_is_described_and_its_record_written_again(self) -> None:
        self.assertEqual([], self.reconcile())
        self.context.describe.assert_called_once_with(self.domain, self.record)
        self.context.hypervisor.save.assert_called_once_with(self.domain, self.record)
        self.assertEqual(set(), self.context.unmended)

    def test_nothing_of_an_instance_is_written_beside_an_operation(self) -> None:
        # a deletion that has removed the directory would find a description in it again
        with self.context.locks.hold(UUID):
            self.assertEqual([], self.reconcile())
        self.context.describe.assert_not_called()
        self.context.hypervisor.save.assert_not_called()

    def test_an_instance_that_was_busy_is_looked_at_again(self) -> None:
        with self.context.locks.hold(UUID):
            self.reconcile()
        self.assertEqual({UUID}, self.context.unmended)
        self.reconcile()
        self.context.describe.assert_called_once_with(self.domain, self.record)
        self.assertEqual(set(), self.context.unmended)

    def test_a_task_that_began_after_the_first_look_keeps_its_record(self) -> None:
        begun = self.record.changed(task=Task.begin(TaskName.SNAPSHOT))
        self.context.find.side_effect = lambda _uuid: (self.domain, begun)
        self.reconcile()
        self.context.describe.assert_not_called()
        self.context.hypervisor.save.assert_not_called()
