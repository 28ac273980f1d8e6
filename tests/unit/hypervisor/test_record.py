import os
import subprocess
import unittest

from lxml import etree

from kvmdriver import exception
from kvmdriver.hypervisor.domain import record_in, status_of
from kvmdriver.hypervisor.record import (
    NAMESPACE,
    RUNNING,
    DoneRequest,
    Owner,
    Record,
    RunningTasks,
    Task,
    TaskName,
    is_dead,
)
from kvmdriver.model import Instance, Migration

INSTANCE = Instance.parse(
    {"name": "web", "disks": [{"image": {"type": "file", "path": "/a&b<c>.qcow2"}}]}
)
RECORD = Record(
    instance=INSTANCE,
    root="/instances",
    digest="abc",
    task=Task.begin(
        TaskName.ATTACH,
        "r1:d1",
        files=("/x",),
        removes=("/y",),
        wanted=INSTANCE.changed(name="other"),
        answer="vdb",
    ),
    requests=(DoneRequest(id="r0"), DoneRequest(id="r-1", digest="d", answer="a&b")),
    evacuated_from=("kvm2", "kvm3"),
)


class RecordTest(unittest.TestCase):
    def test_round_trip_through_a_domain(self) -> None:
        domain = etree.fromstring("<domain><metadata/></domain>")
        domain.find("metadata").append(RECORD.to_element())
        self.assertEqual(RECORD, record_in(etree.fromstring(etree.tostring(domain))))

    def test_bare_elements_have_no_namespace(self) -> None:
        text = etree.tostring(RECORD.to_element(bare=True)).decode()
        self.assertNotIn(NAMESPACE, text)
        self.assertTrue(text.startswith('<instance version="1">'))

    def test_records_of_older_versions_are_read(self) -> None:
        text = (
            f"<domain><metadata><k:instance xmlns:k='{NAMESPACE}' version='1'>"
            '<k:spec>{"name": "web", "uuid": "0a1b2c3d-0000-4000-8000-000000000001"}</k:spec>'
            "<k:root>/instances</k:root><k:digest>abc</k:digest>"
            '<k:task>{"name":"attach","owner":{"boot_id":"b","pid":1,"started":2},"files":["/x"]}'
            "</k:task><k:request id='r0'/></k:instance></metadata></domain>"
        )
        record = record_in(etree.fromstring(text))
        self.assertEqual((DoneRequest(id="r0"),), record.requests)
        self.assertEqual(
            ("attach", None, ("/x",)), (record.task.name, record.task.id, record.task.files)
        )
        self.assertTrue(record.task.is_dead())

    def test_what_a_task_wants_has_no_secrets(self) -> None:
        secret = INSTANCE.changed(consoles={"vnc_password": "hush"})
        record = RECORD.changed(task=RECORD.task.changed(wanted=secret))
        self.assertNotIn(b"hush", etree.tostring(record.to_element()))

    def test_foreign_and_broken_domains(self) -> None:
        self.assertIsNone(record_in(etree.fromstring("<domain/>")))
        for inner in ("", "<k:spec>{}</k:spec>", "<k:spec>no json</k:spec>"):
            text = f"<domain><metadata><k:instance xmlns:k='{NAMESPACE}'>{inner}</k:instance></metadata></domain>"
            self.assertIsNone(record_in(etree.fromstring(text)))

    def test_only_the_last_requests_are_remembered(self) -> None:
        record = RECORD
        for number in range(20):
            record = record.with_request(f"n{number}:d", "answer")
        self.assertEqual(8, len(record.requests))
        self.assertEqual(DoneRequest(id="n19", digest="d", answer="answer"), record.requests[-1])
        self.assertIs(record, record.with_request("n19:d"))
        self.assertIs(record, record.with_request(None))

    def test_a_request_is_bound_to_what_it_asked(self) -> None:
        record = RECORD.with_request("r1:d1", "vdb")
        self.assertEqual("vdb", record.done("r1:d1").answer)
        self.assertIsNone(record.done("r2:d1"))
        self.assertIsNone(record.done(None))
        with self.assertRaises(exception.RequestConflict) as caught:
            record.done("r1:d2")
        self.assertEqual(("request_id", "r1"), (caught.exception.field, caught.exception.value))

    def test_a_request_without_a_digest_is_known_by_its_id(self) -> None:
        self.assertIsNotNone(RECORD.done("r0:d5"))
        self.assertIsNotNone(RECORD.with_request("r1:d1").done("r1"))

    def test_a_request_crosses_to_another_host(self) -> None:
        for reference in ("r1:d1", "r1"):
            self.assertEqual(reference, DoneRequest.of(reference, "vdb").reference)


class DeadTaskTest(unittest.TestCase):
    """Nobody works on it: its process is dead, or its operation has ended."""

    def setUp(self) -> None:
        self.current = Owner.current()
        self.other = self.current.changed(pid=self.current.pid + 1)
        self.task = Task.begin(TaskName.ATTACH)

    def test_of_this_process(self) -> None:
        running = RunningTasks()
        self.assertTrue(is_dead(self.task, self.current, running, True))
        with running.hold(self.task):
            self.assertFalse(is_dead(self.task, self.current, running, True))
        self.assertTrue(is_dead(self.task, self.current, running, True))

    def test_of_an_operation_that_failed(self) -> None:
        with self.assertRaises(ZeroDivisionError), RUNNING.hold(self.task):
            self.assertFalse(self.task.is_dead())
            raise ZeroDivisionError
        self.assertTrue(self.task.is_dead())

    def test_of_this_process_by_a_version_that_did_not_number_them(self) -> None:
        self.assertTrue(is_dead(self.task.changed(id=None), self.current, RunningTasks(), True))

    def test_of_another_process(self) -> None:
        task = self.task.changed(owner=self.other)
        self.assertFalse(is_dead(task, self.current, RunningTasks(), True))
        self.assertTrue(is_dead(task, self.current, RunningTasks(), False))

    def test_migrations_have_their_own_end(self) -> None:
        moving = Migration(id="m", kind="live", peer="kvm2", state="run")
        task = self.task.changed(owner=self.other, migration=moving)
        self.assertFalse(is_dead(task, self.current, RunningTasks(), False))


class OwnerTest(unittest.TestCase):
    def test_we_live(self) -> None:
        self.assertTrue(Owner.current().is_alive())

    def test_the_dead_do_not(self) -> None:
        process = subprocess.Popen(["sleep", "60"])
        owner = Owner.of(process.pid)
        self.assertTrue(owner.is_alive())
        process.kill()
        process.wait()
        self.assertFalse(owner.is_alive())

    def test_neither_does_another_process_with_our_number(self) -> None:
        ours = Owner.current()
        self.assertFalse(ours.changed(started=ours.started + 1).is_alive())
        self.assertFalse(ours.changed(boot_id="another boot").is_alive())
        self.assertEqual(os.getpid(), ours.pid)


class StatusTest(unittest.TestCase):
    def test_states(self) -> None:
        # virDomainState and the reasons of libvirt-domain.h
        self.assertEqual("running", status_of(1, 1))
        self.assertEqual("paused", status_of(3, 1))
        self.assertEqual("blocked", status_of(3, 5))
        self.assertEqual("stopped", status_of(5, 1))
        self.assertEqual("crashed", status_of(5, 3))
        self.assertEqual("suspended", status_of(5, 5))
