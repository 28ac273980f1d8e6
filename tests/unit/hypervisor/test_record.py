import os
import subprocess
import unittest

from lxml import etree

from kvmdriver.hypervisor.domain import record_in, status_of
from kvmdriver.hypervisor.record import NAMESPACE, Owner, Record, Task
from kvmdriver.model import Instance

INSTANCE = Instance.parse(
    {"name": "web", "disks": [{"image": {"type": "file", "path": "/a&b<c>.qcow2"}}]}
)
RECORD = Record(
    instance=INSTANCE,
    root="/instances",
    digest="abc",
    task=Task(name="create", owner=Owner.current(), request_id="r1", files=("/x",)),
    requests=("r0",),
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

    def test_foreign_and_broken_domains(self) -> None:
        self.assertIsNone(record_in(etree.fromstring("<domain/>")))
        for inner in ("", "<k:spec>{}</k:spec>", "<k:spec>no json</k:spec>"):
            text = f"<domain><metadata><k:instance xmlns:k='{NAMESPACE}'>{inner}</k:instance></metadata></domain>"
            self.assertIsNone(record_in(etree.fromstring(text)))

    def test_only_the_last_requests_are_remembered(self) -> None:
        record = RECORD
        for number in range(20):
            record = record.with_request(f"n{number}")
        self.assertEqual(8, len(record.requests))
        self.assertEqual("n19", record.requests[-1])
        self.assertIs(record, record.with_request("n19"))
        self.assertIs(record, record.with_request(None))


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
