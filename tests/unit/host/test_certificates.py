"""Certificates are looked at before QEMU needs them."""

import datetime
import os
import tempfile
import unittest

from kvmdriver.host import certificates
from tests.certificates import Authority


class CertificatesTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        Authority().equip(directory.name, "kvm1", "192.0.2.1")
        self.directory = os.path.join(directory.name, "qemu")

    def messages(self, role: str = "server", days: int = 0) -> list[str]:
        now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
        found = certificates.problems(self.directory, role, now=now)  # type: ignore[arg-type]
        for problem in found:
            self.assertEqual("kvm_migration.tls_directory", problem.field)
            self.assertIsNotNone(problem.remedy)
        return [problem.message for problem in found]

    def test_good_ones_pass(self) -> None:
        self.assertEqual([], self.messages("server"))
        self.assertEqual([], self.messages("client"))

    def test_expired_ones_are_named(self) -> None:
        found = self.messages(days=40)
        self.assertEqual(2, len(found))
        self.assertIn("expires", found[0])

    def test_those_of_the_future_are_named(self) -> None:
        self.assertIn("is not valid before", self.messages(days=-70)[0])

    def test_a_client_without_its_own_uses_the_servers(self) -> None:
        os.unlink(os.path.join(self.directory, "client-cert.pem"))
        os.unlink(os.path.join(self.directory, "client-key.pem"))
        self.assertEqual([], self.messages("client"))

    def test_what_is_missing_is_named(self) -> None:
        os.unlink(os.path.join(self.directory, "server-key.pem"))
        self.assertIn("server-key.pem does not exist", self.messages()[0])
        with open(os.path.join(self.directory, "ca-cert.pem"), "w") as file:
            file.write("nothing")
        self.assertIn("it is no certificate", self.messages()[0])
