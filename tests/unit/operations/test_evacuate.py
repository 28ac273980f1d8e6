"""A host that returns gives up only what another one really has."""

import types
import unittest
from typing import Any
from unittest import mock

from kvmdriver import exception
from kvmdriver.guest.locks import InstanceLocks
from kvmdriver.hypervisor.record import Owner, Record, Task
from kvmdriver.model import Instance, Migration
from kvmdriver.operations import evacuate

UUID = "0a1b2c3d-0000-4000-8000-000000000001"
OTHER = "0a1b2c3d-0000-4000-8000-000000000002"


def record(**fields: Any) -> Record:
    instance = Instance.parse({"name": "web", "uuid": UUID})
    return Record(instance=instance, root="/instances", **fields)


class FakeContext:
    """What evacuation asks of a host; ``records`` is what it has, by UUID."""

    host = "kvm1"

    def __init__(self, **records: Record):
        self.records = {UUID: records["here"]} if records else {}
        self.locks = InstanceLocks()
        self.evacuated: set[tuple[str, str]] = set()
        self.saved: list[Record] = []
        self.store = mock.Mock()
        self.hypervisor = mock.Mock()

    def known(self, uuid: str) -> Any:
        return self.find(uuid) if uuid in self.records else None

    def find(self, uuid: str) -> Any:
        return types.SimpleNamespace(uuid=uuid, name="web"), self.records[uuid]

    def save(self, _domain: object, changed: Record) -> None:
        self.saved.append(changed)


class ForgetTest(unittest.TestCase):
    def setUp(self) -> None:
        self.removed = self._patch(evacuate.destroy, "remove")
        self.forgotten = self._patch(evacuate, "forget")
        self.described = self._patch(evacuate.descriptions, "read")
        self.described.return_value.is_of.return_value = True

    def _patch(self, where: Any, name: str) -> mock.Mock:
        patch = mock.patch.object(where, name)
        self.addCleanup(patch.stop)
        return patch.start()

    def forget(self, context: Any, claimant: Any) -> None:
        evacuate.forget_evacuated(context, UUID, claimant)

    def test_it_is_given_up_when_the_other_host_says_so(self) -> None:
        claimant = mock.Mock()
        claimant.has_evacuated.return_value = True
        self.forget(FakeContext(here=record()), claimant)
        claimant.has_evacuated.assert_called_once_with(UUID, "kvm1")
        self.removed.assert_called_once()

    def test_files_that_are_the_other_hosts_stay(self) -> None:
        self.described.return_value.is_of.return_value = False
        claimant = mock.Mock()
        self.forget(FakeContext(here=record()), claimant)
        self.forgotten.assert_called_once()
        self.removed.assert_not_called()

    def test_nothing_is_removed_when_it_cannot_be_told_whose_the_files_are(self) -> None:
        self.described.side_effect = exception.StorageError("cannot be read")
        with self.assertRaises(exception.StorageError):
            self.forget(FakeContext(here=record()), mock.Mock())
        self.forgotten.assert_not_called()
        self.removed.assert_not_called()

    def test_an_instance_that_has_just_come_back_is_not_left(self) -> None:
        """Its directory was another host's until whoever has the lock writes that it is ours."""
        self.described.return_value.is_of.side_effect = [False, True]
        self.assertFalse(evacuate.leave(FakeContext(here=record()), UUID))  # type: ignore[arg-type]
        self.forgotten.assert_not_called()
        self.removed.assert_not_called()

    def test_not_on_the_word_of_just_anybody(self) -> None:
        claimant = mock.Mock(host="kvm2")
        claimant.has_evacuated.return_value = False
        with self.assertRaisesRegex(exception.InvalidState, "kvm2 has not"):
            self.forget(FakeContext(here=record()), claimant)
        self.removed.assert_not_called()

    def test_not_on_its_own_word(self) -> None:
        """An instance that went back before the host was told is the host's own."""
        claimant = mock.Mock(host="kvm1")
        claimant.has_evacuated.return_value = True
        with self.assertRaises(exception.InvalidState):
            self.forget(FakeContext(here=record(evacuated_from=("kvm1",))), claimant)
        self.removed.assert_not_called()

    def test_what_is_not_here_or_is_on_its_way_is_not_asked_for(self) -> None:
        migration = Migration(id="m1", kind="live", peer="kvm2", state="prepare")
        moving = Task(name="immigrate", owner=Owner.current(), migration=migration)
        claimant = mock.Mock()
        for context in (FakeContext(), FakeContext(here=record(task=moving))):
            self.forget(context, claimant)
        claimant.has_evacuated.assert_not_called()
        self.removed.assert_not_called()

    def test_an_instance_that_has_changed_meanwhile_stays(self) -> None:
        context = FakeContext(here=record())

        def comes_back(_uuid: str, _host: str) -> bool:
            context.records[UUID] = record(came_by="m2")
            return True

        claimant = mock.Mock()
        claimant.has_evacuated.side_effect = comes_back
        self.forget(context, claimant)
        self.removed.assert_not_called()


class TellTest(unittest.TestCase):
    def tell(self, context: Any, neighbour: Any) -> int:
        self.asked: list[str] = []

        def neighbours(host: str) -> Any:
            self.asked.append(host)
            return neighbour

        return evacuate.tell(context, neighbours)

    def test_a_host_that_is_away_is_asked_once_for_all_of_its_instances(self) -> None:
        context = FakeContext(here=record(evacuated_from=("kvm2",)))
        context.records[OTHER] = context.records[UUID]
        context.evacuated = {(UUID, "kvm2"), (OTHER, "kvm2")}
        neighbour = mock.Mock()
        neighbour.answers.return_value = False
        self.assertEqual(1, self.tell(context, neighbour))
        self.assertEqual(["kvm2"], self.asked)
        neighbour.forget_evacuated.assert_not_called()

    def test_one_that_has_returned_is_told_and_not_asked_again(self) -> None:
        context = FakeContext(here=record(evacuated_from=("kvm2",)))
        context.evacuated = {(UUID, "kvm2")}
        neighbour = mock.Mock()
        self.assertEqual(0, self.tell(context, neighbour))
        neighbour.forget_evacuated.assert_called_once_with(UUID, "kvm1")
        self.assertEqual([()], [saved.evacuated_from for saved in context.saved])
        self.assertEqual(0, self.tell(context, neighbour))
        self.assertEqual([], self.asked)

    def test_nobody_is_told_of_an_instance_that_has_gone_on(self) -> None:
        for context in (FakeContext(), FakeContext(here=record())):
            context.evacuated = {(UUID, "kvm2")}
            self.assertEqual(0, self.tell(context, mock.Mock()))
            self.assertEqual([], self.asked)
            self.assertEqual(set(), context.evacuated)

    def test_of_several_hosts_each_is_told_for_itself(self) -> None:
        """The one that has brought it back has died as well."""
        context = FakeContext(here=record(evacuated_from=("kvm2", "kvm3")))
        context.evacuated = {(UUID, "kvm2"), (UUID, "kvm3")}
        there = {"kvm2": mock.Mock(), "kvm3": mock.Mock()}
        there["kvm3"].answers.return_value = False
        self.assertEqual(1, evacuate.tell(context, there.__getitem__))  # type: ignore[arg-type]
        self.assertEqual([("kvm3",)], [saved.evacuated_from for saved in context.saved])
        self.assertEqual({(UUID, "kvm3")}, context.evacuated)

    def test_one_that_leaves_is_not_spoken_of_before_it_is_settled(self) -> None:
        leaving = Task(name="emigrate", owner=Owner.current())
        context = FakeContext(here=record(evacuated_from=("kvm2",), task=leaving))
        context.evacuated = {(UUID, "kvm2")}
        self.assertEqual(1, self.tell(context, mock.Mock()))
        self.assertEqual([], self.asked)

    def test_one_that_cannot_do_it_yet_is_asked_again(self) -> None:
        context = FakeContext(here=record(evacuated_from=("kvm2",)))
        context.evacuated = {(UUID, "kvm2")}
        neighbour = mock.Mock()
        neighbour.forget_evacuated.side_effect = exception.HypervisorUnavailable("libvirt is away")
        with self.assertLogs(evacuate.LOG, "WARNING"):
            self.assertEqual(1, self.tell(context, neighbour))
        self.assertEqual({(UUID, "kvm2")}, context.evacuated)
        self.assertEqual([], context.saved)
