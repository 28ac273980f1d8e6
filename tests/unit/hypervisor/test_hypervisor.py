"""Domains that come and go while they are looked at, on libvirt's own test driver."""

import unittest
from unittest import mock

from lxml import etree

from kvmdriver import exception
from kvmdriver.hypervisor.connection import Connection
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.hypervisor import Hypervisor
from kvmdriver.hypervisor.record import Record
from kvmdriver.model import Instance

UUID = "0a1b2c3d-0000-4000-8000-000000000001"


def record(root: str) -> Record:
    return Record(instance=Instance.parse({"name": "web", "uuid": UUID}), root=root)


class DomainsTest(unittest.TestCase):
    def setUp(self) -> None:
        connection = Connection("test:///default", call_timeout=5, keepalive_interval=0)
        self.hypervisor = Hypervisor(connection)
        self.addCleanup(self.hypervisor.close)

    def define(self, root: str) -> Domain:
        domain = etree.fromstring(
            f"<domain type='test'><name>web</name><uuid>{UUID}</uuid><memory>1024</memory>"
            "<os><type>hvm</type></os><metadata/></domain>"
        )
        domain.find("metadata").append(record(root).to_element())
        with mock.patch(
            "libvirt.VIR_DOMAIN_DEFINE_VALIDATE", 0
        ):  # our record is not in its schema
            return self.hypervisor.define(domain)

    def root(self) -> str | None:
        found = self.hypervisor.record(UUID)
        return found.root if found else None

    def test_by_any_spelling_of_its_uuid_or_by_name(self) -> None:
        self.define("/a")
        for known in (UUID, UUID.upper(), UUID.replace("-", ""), "web"):
            self.assertEqual(UUID, self.hypervisor.domain(known).uuid)
        for unknown in ("x" * 36, "x" * 32, UUID[:-1] + "9", "nobody"):
            self.assertIsNone(self.hypervisor.find(unknown))

    def test_a_uuid_is_never_taken_for_a_name(self) -> None:
        # as from a time when names were not checked: named like the UUID of another domain
        wanted, own = (f"0a1b2c3d-0000-4000-8000-00000000000{last}" for last in "89")

        def define(name: str, uuid: str) -> Domain:
            text = (
                f"<domain type='test'><name>{name}</name><uuid>{uuid}</uuid><memory>1024</memory>"
                "<os><type>hvm</type></os></domain>"
            )
            with mock.patch("libvirt.VIR_DOMAIN_DEFINE_VALIDATE", 0):
                return self.hypervisor.define(etree.fromstring(text))

        for name in (wanted, wanted.replace("-", ""), wanted.upper()):
            named = define(name, own)
            self.assertIsNone(self.hypervisor.find(name), "nothing has this UUID")
            self.assertEqual(name, self.hypervisor.domain(own).name)
            owner = define("owner", wanted)
            self.assertEqual("owner", self.hypervisor.domain(name).name)
            for domain in (owner, named):
                domain._raw.undefine()  # the test driver has no flags for it

    def test_a_failure_to_look_is_not_taken_for_absence(self) -> None:
        self.define("/a")
        failure = exception.HypervisorUnavailable("libvirt does not answer")
        with (
            mock.patch.object(self.hypervisor.connection, "call_fresh", side_effect=failure),
            self.assertRaises(exception.HypervisorUnavailable),
        ):
            self.hypervisor.find(UUID)

    def test_the_record_of_what_has_just_gone(self) -> None:
        domain = self.define("/a")
        domain._raw.undefine()  # the test driver knows no flags
        with mock.patch.object(self.hypervisor, "domain", return_value=domain):
            self.assertIsNone(self.hypervisor.record(UUID))

    def test_a_domain_that_is_defined_has_its_record_at_once(self) -> None:
        self.assertIsNone(self.root())
        self.define("/a")
        self.assertEqual("/a", self.root())
        self.define("/b")
        self.assertEqual("/b", self.root())

    def test_what_was_read_before_a_change_is_not_kept(self) -> None:
        self.define("/a")
        read = Domain.record

        def slowly(domain: Domain) -> Record | None:
            found = read(domain)
            self.define("/b")
            return found

        with mock.patch.object(Domain, "record", slowly):
            self.assertEqual("/a", self.root())
        self.assertEqual("/b", self.root())
