"""What becomes of changes that were cut off: done, or not done."""

import contextlib
import os
import tempfile
import threading
import types
import unittest
from collections.abc import Iterator
from typing import Any
from unittest import mock

from lxml import etree

from kvmdriver import exception
from kvmdriver.hypervisor.record import RUNNING, Record, Task, TaskName
from kvmdriver.model import Instance
from kvmdriver.operations import attach, destroy, mending, power, resize, snapshot
from kvmdriver.operations.context import Context

UUID = "0a1b2c3d-0000-4000-8000-000000000001"
INSTANCE = Instance.parse(
    {
        "name": "web",
        "uuid": UUID,
        "memory": {"current_mib": 128, "maximum_mib": 256},
        "disks": [{"name": "vda", "size_mib": 1, "file": {"path": "/i/disk", "format": "raw"}}],
        "nics": [{"source": "default", "mac": "52:54:00:00:00:01"}],
    }
)
DEFINITION = """<domain><name>web</name><memory>262144</memory><currentMemory>131072</currentMemory>
<vcpu>1</vcpu><devices>
<disk><source file='/i/disk'/><target dev='vda'/></disk>
<disk><source file='/i/disk.config'/><target dev='sdz'/></disk>
<interface><mac address='52:54:00:00:00:01'/></interface>
</devices></domain>"""


class DeviceTest(unittest.TestCase):
    def test_attach(self) -> None:
        for live, config, expected in (
            (None, True, "done"),
            (None, False, "not done"),
            (True, True, "done"),
            (False, False, "not done"),
            (True, False, "add to the definition"),
            (False, True, "take from the definition"),
        ):
            self.assertEqual(expected, attach.decide_attach(live, config))

    def test_detach(self) -> None:
        for live, config, expected in (
            (None, False, "done"),
            (None, True, "not done"),
            (False, False, "done"),
            (True, True, "not done"),
            (False, True, "take from the definition"),
            (True, False, "add to the definition"),
        ):
            self.assertEqual(expected, attach.decide_detach(live, config))

    def domain(self, live: str | None, config: str) -> mock.Mock:
        """A domain whose definitions have, or have not, the disk of INSTANCE."""
        domain = mock.Mock()
        domain.is_active.return_value = live is not None
        domain.xml.side_effect = lambda inactive=False: etree.fromstring(
            config if inactive or live is None else live
        )
        return domain

    def test_half_attached_and_half_detached(self) -> None:
        without = INSTANCE.model_copy(update={"disks": ()})
        empty = "<domain><devices/></domain>"
        record = Record(instance=without, root="/i")
        adding = Task.begin(TaskName.ATTACH, wanted=INSTANCE)
        domain = self.domain(DEFINITION, empty)
        self.assertTrue(attach.mend_attach(mock.Mock(), domain, record, adding))
        self.assertEqual({"live": False, "config": True}, domain.attach.call_args.kwargs)
        domain = self.domain(empty, DEFINITION)
        self.assertFalse(attach.mend_attach(mock.Mock(), domain, record, adding))
        self.assertEqual({"live": False, "config": True}, domain.detach.call_args.kwargs)
        removing = Task.begin(TaskName.DETACH, wanted=without)
        record = Record(instance=INSTANCE, root="/i")
        domain = self.domain(empty, DEFINITION)
        self.assertTrue(attach.mend_detach(mock.Mock(), domain, record, removing))
        self.assertEqual(1, domain.detach.call_count)
        # a guest that has the device is asked, and keeps it or releases it
        domain = self.domain(DEFINITION, DEFINITION)
        context = mock.MagicMock()
        released = context.hypervisor.events.expect.return_value.__enter__.return_value
        released.wait.return_value = None
        self.assertFalse(attach.mend_detach(context, domain, record, removing))
        self.assertEqual(1, domain.detach_alias.call_count)
        self.assertEqual(0, domain.detach.call_count + domain.attach.call_count)

    def test_a_disk_of_somebody_else_with_the_same_name_is_left(self) -> None:
        other = DEFINITION.replace("/i/disk'", "/somebody/else'")
        domain = self.domain(None, other)
        record = Record(instance=INSTANCE.model_copy(update={"disks": ()}), root="/i")
        adding = Task.begin(TaskName.ATTACH, wanted=INSTANCE)
        self.assertFalse(attach.mend_attach(mock.Mock(), domain, record, adding))
        self.assertEqual(0, domain.detach.call_count)


class SizesTest(unittest.TestCase):
    def test_a_change_of_which_any_step_is_seen_is_finished(self) -> None:
        for config, live, expected in (
            ((1, 4), None, False),
            ((2, 4), None, True),
            ((1, 4), 1, False),
            ((1, 4), 2, True),
            ((2, 4), 2, True),
        ):
            self.assertEqual(expected, resize.decide((1, 4), (2, 4), config, live))

    def test_the_maximum_alone(self) -> None:
        self.assertFalse(resize.decide((1, 4), (1, 8), (1, 4), None))
        self.assertTrue(resize.decide((1, 4), (1, 8), (1, 8), None))
        # the guest has been started in the meantime: what it has says nothing
        self.assertFalse(resize.decide((1, 4), (1, 8), (1, 4), 1))

    def test_half_of_a_change_of_vcpus_is_finished(self) -> None:
        wanted = INSTANCE.changed(vcpus={"current": 2, "maximum": 4})
        domain = mock.Mock()
        domain.is_active.return_value = False
        domain.xml.return_value = etree.fromstring("<domain><vcpu current='1'>4</vcpu></domain>")
        record, task = (
            Record(instance=INSTANCE, root="/i"),
            Task.begin(TaskName.VCPUS, wanted=wanted),
        )
        self.assertTrue(resize.mend_vcpus(mock.Mock(), domain, record, task))
        domain.set_vcpus.assert_called_once_with(2, live=False, config=True)


class RebootTest(unittest.TestCase):
    def decide(self, **changed: Any) -> str:
        known: dict[str, Any] = {"run": -1, "before": 3, "cut_off": True, "same_boot": True}
        return power.decide_reboot(**(known | changed))

    def test_only_a_guest_that_the_reboot_has_switched_off_is_started(self) -> None:
        self.assertEqual("start", self.decide())
        self.assertEqual("not done", self.decide(run=3))
        self.assertEqual("done", self.decide(run=4))
        self.assertEqual("not done", self.decide(cut_off=False))
        self.assertEqual("not done", self.decide(same_boot=False))

    def test_a_stop_mends_again_what_could_not_be_mended_while_the_guest_hung(self) -> None:
        context, domain = mock.MagicMock(), mock.Mock(uuid=UUID)
        domain.status.return_value = "running"
        record = Record(instance=INSTANCE, root="/i", task=Task.begin(TaskName.REBOOT))
        off: list[bool] = []

        @contextlib.contextmanager
        def exclusively(_name: str, *, to_stop: bool) -> Iterator[Any]:
            self.assertTrue(to_stop)
            off.append(domain.destroy.called)
            yield domain, record

        context.exclusively = exclusively
        power.stop(context, UUID, timeout=0)
        self.assertEqual([False, False, True], off)


class SnapshotTest(unittest.TestCase):
    def test_done_once_the_part_has_become_the_image(self) -> None:
        image, other = (1, 2), (1, 3)
        for found, parts, expected in (
            (image, [], True),
            (image, [image], True),
            (image, [other], False),
            (None, [other], False),
            (None, [], False),
        ):
            self.assertEqual(expected, snapshot.decide(found, parts))


class TableTest(unittest.TestCase):
    def test_every_task_has_an_end(self) -> None:
        whole = {TaskName.CREATE, TaskName.DELETE, TaskName.EVACUATE}
        moving = {TaskName.INCOMING, TaskName.OUTGOING}  # migrate.recover ends these
        self.assertEqual(set(TaskName), whole | moving | set(mending._MENDERS))

    def test_a_task_of_an_older_version_is_taken_back_by_its_files(self) -> None:
        task = Task.begin(TaskName.ATTACH, files=("/x",))
        self.assertIs(mending._not_done, mending.mender(task))
        self.assertIs(attach.mend_attach, mending.mender(task.changed(wanted=INSTANCE)))


class DifferencesTest(unittest.TestCase):
    def differences(self, definition: str, autostart: bool = False) -> list[str]:
        root = etree.fromstring(definition)
        return list(mending._differences(root, autostart, INSTANCE, "/i/disk.config"))

    def test_none(self) -> None:
        self.assertEqual([], self.differences(DEFINITION))

    def test_each_is_named(self) -> None:
        for definition, word in (
            (DEFINITION.replace("<name>web", "<name>other"), "name"),
            (DEFINITION.replace("<vcpu>1", "<vcpu current='1'>2"), "vCPUs"),
            (DEFINITION.replace("131072", "262144"), "memory"),
            (DEFINITION.replace("'vda'", "'vdb'"), "disks"),
            (DEFINITION.replace("00:01'", "00:02'"), "interfaces"),
        ):
            found = self.differences(definition)
            self.assertEqual(1, len(found), found)
            self.assertTrue(found[0].startswith(word), found)
        self.assertTrue(self.differences(DEFINITION, autostart=True)[0].startswith("autostart"))


class FakeContext(types.SimpleNamespace):
    """The tasks of a Context, with one instance; libvirt is replaced, since it is to fail."""

    task, under_way, finish, mend = Context.task, Context.under_way, Context.finish, Context.mend
    at_rest, exclusively = Context.at_rest, Context.exclusively
    _take_back, _mend_later, _unused = Context._take_back, Context._mend_later, Context._unused

    def __init__(self) -> None:
        self.domain = mock.Mock(uuid=UUID)
        self.domain.name = "web"
        super().__init__(
            record=Record(instance=INSTANCE, root="/i"),
            unmended=set(),
            attention=threading.Event(),
            mender=mock.Mock(return_value="it was taken back"),
            hypervisor=mock.Mock(),
            store=mock.Mock(root="/i"),
            locks=mock.Mock(hold=lambda *_uuids: contextlib.nullcontext()),
        )
        self.hypervisor.domain.return_value = self.hypervisor.find.return_value = self.domain
        self.domain.record.side_effect = lambda: self.record

    def known(self, _name: str) -> Any:
        return self.domain, self.record

    find = known

    def save(self, _domain: object, record: Record) -> None:
        self.record = record


class DeleteTest(unittest.TestCase):
    def answer(self, task: Task | None) -> Any:
        """What a delete says whose instance was removed by the mending of that task."""
        context = mock.MagicMock()
        domain, record = mock.Mock(uuid=UUID), Record(instance=INSTANCE, root="/i", task=task)
        context.find.return_value = context.known.return_value = (domain, record)
        context.at_rest.side_effect = exception.InstanceNotFound("gone")
        return destroy.terminate(context, UUID)

    def test_the_disks_that_a_delete_kept_which_was_cut_off(self) -> None:
        self.assertEqual(
            ("/i/disk",), self.answer(Task.begin(TaskName.DELETE, files=("/i/disk",)))
        )
        self.assertEqual((), self.answer(Task.begin(TaskName.CREATE)))


class TaskTest(unittest.TestCase):
    def setUp(self) -> None:
        self.context: Any = FakeContext()

    def work(self, error: Exception | None = None) -> None:
        wanted = INSTANCE.changed(name="other")
        with self.context.task(
            self.context.domain, self.context.record, TaskName.RENAME, "r1:d", wanted=wanted
        ):
            self.assertEqual("web", self.context.record.instance.name)
            self.assertEqual(wanted, self.context.record.task.wanted)
            self.assertFalse(self.context.record.task.is_dead())
            if error is not None:
                raise error

    def test_what_is_wanted_is_written_before_and_done_after(self) -> None:
        self.work()
        self.assertEqual("other", self.context.record.instance.name)
        self.assertIsNone(self.context.record.task)
        self.assertIsNotNone(self.context.record.done("r1:d"))

    def test_a_failure_is_mended_at_once(self) -> None:
        with self.assertRaises(exception.StorageError):
            self.work(exception.StorageError("no"))
        self.assertEqual(1, self.context.mender.call_count)
        self.assertFalse(self.context.attention.is_set())

    def test_what_cannot_be_mended_stays_and_is_mended_later(self) -> None:
        self.context.mender.side_effect = exception.HypervisorUnavailable("away")
        with (
            self.assertLogs("kvmdriver.operations.context", "WARNING"),
            self.assertRaises(exception.StorageError),
        ):
            self.work(exception.StorageError("no"))
        self.assertTrue(self.context.attention.is_set())
        self.assertEqual({UUID}, self.context.unmended)
        self.assertTrue(self.context.record.task.is_dead())

    def test_the_next_operation_mends_first(self) -> None:
        self.context.record = self.context.record.changed(task=Task.begin(TaskName.RENAME))
        with (
            self.assertLogs("kvmdriver.operations.context", "WARNING"),
            self.context.exclusively("web", to_stop=True),
        ):
            self.assertTrue(self.context.mender.call_args.args[3])

    def test_an_operation_waits_for_what_cannot_be_mended_but_a_stop_does_not(self) -> None:
        self.context.record = self.context.record.changed(task=Task.begin(TaskName.RENAME))
        self.context.mender.side_effect = exception.OperationTimeout("hangs")
        with self.assertRaises(exception.OperationTimeout), self.context.exclusively("web"):
            self.fail("the body was run")
        with (
            self.assertLogs("kvmdriver.operations.context", "WARNING"),
            self.context.exclusively("web", to_stop=True) as (domain, _record),
        ):
            self.assertIs(self.context.domain, domain)

    def test_a_task_in_hand_keeps_others_off(self) -> None:
        task = Task.begin(TaskName.RENAME)
        self.context.record = self.context.record.changed(task=task)
        with (
            RUNNING.hold(task),
            self.assertRaises(exception.InstanceBusy),
            self.context.exclusively("web"),
        ):
            self.fail("the body was run")
        self.assertEqual(0, self.context.mender.call_count)


class LostGuestTest(unittest.TestCase):
    """libvirt has the domain switched off, and its QEMU runs."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.old, self.new = (os.path.join(directory.name, name) for name in ("old", "new"))
        for number, path in enumerate((self.old, self.new)):
            with open(path, "w"):
                os.utime(path, ns=(number, number))
        instance, wanted = (
            INSTANCE.changed(
                disks=(INSTANCE.disks[0].changed(file={"path": path, "format": "raw"}),)
            )
            for path in (self.old, self.new)
        )
        task = Task.begin(
            TaskName.MOVE_DISK, wanted=wanted, files=(self.new,), removes=(self.old,)
        )
        self.record = Record(instance=instance, root="/i", task=task)
        self.domain = mock.Mock()
        self.domain.xml.return_value = etree.fromstring(
            f"<domain><devices><disk><driver type='raw'/><source file='{self.old}'/>"
            "<target dev='vda'/></disk></devices></domain>"
        )
        self.domain.is_active.return_value = False
        self.context = mock.Mock()

    def defined(self) -> list[str]:
        calls = self.context.hypervisor.define.call_args_list
        return [call.args[0].find("devices/disk/source").get("file") for call in calls]

    def test_nothing_is_mended_while_the_guest_may_use_the_files(self) -> None:
        self.domain.require_not_lost.side_effect = exception.InvalidState("lost")
        with self.assertRaises(exception.InvalidState):
            mending.mend(self.context, self.domain, self.record, False)
        self.context.save.assert_not_called()
        self.context.finish.assert_not_called()

    def test_the_disk_that_was_written_last_is_kept_when_the_guest_is_ended(self) -> None:
        self.domain.is_lost.return_value = True
        self.domain.destroy.side_effect = lambda: self.assertEqual([self.new], self.defined())
        mending.mend(self.context, self.domain, self.record, True)
        self.domain.destroy.assert_called_once_with()
        self.assertTrue(self.context.finish.call_args.kwargs["done"])

    def test_a_copy_that_the_guest_has_left_is_removed(self) -> None:
        os.utime(self.old, ns=(2, 2))
        self.domain.is_lost.return_value = True
        mending.mend(self.context, self.domain, self.record, True)
        self.assertEqual([], self.defined())
        self.assertFalse(self.context.finish.call_args.kwargs["done"])
