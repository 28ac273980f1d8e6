"""What the directory of an instance says about it."""

import os
import stat
import tempfile
import unittest

from kvmdriver import exception, model
from kvmdriver.model.evacuation import Description
from kvmdriver.storage import description as descriptions

HOST_UUID = "0a1b2c3d-0000-4000-8000-000000000001"


def described(**fields: object) -> Description:
    data: dict[str, object] = {
        "host": "kvm1",
        "host_uuid": HOST_UUID,
        "instance": {"name": "web", "memory": {"current_mib": 64}},
        "definition": "<domain><graphics passwd='secret'/></domain>",
    }
    return Description.parse({**data, **fields})


class DescriptionTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.path = os.path.join(self.directory, descriptions.NAME)

    def test_there_and_back(self) -> None:
        self.assertIsNone(descriptions.read(self.directory))
        descriptions.write(self.directory, described())
        descriptions.write(self.directory, described(autostart=True))
        self.assertEqual(described(autostart=True).host_uuid, HOST_UUID)
        found = descriptions.read(self.directory)
        assert found is not None
        self.assertTrue(found.autostart)
        self.assertIn("secret", found.definition)
        self.assertEqual(0o600, stat.S_IMODE(os.stat(self.path).st_mode))
        self.assertEqual([descriptions.NAME], os.listdir(self.directory))

    def test_secrets_of_the_instance_survive(self) -> None:
        instance = model.Instance.parse({"name": "web", "consoles": {"vnc_password": "secret12"}})
        found = Description.from_json(described(instance=instance).to_json())
        self.assertEqual(instance, found.instance)

    def test_another_file_is_refused(self) -> None:
        for content, word in (
            ("{", "JSON"),
            ("[" * 100000, "JSON"),
            ("[]", "valid"),
            ('{"host": "kvm1"}', "host_uuid"),
            (described().to_json().replace('"version": 1', '"version": 2'), "version"),
            (described().to_json().replace("web", "../web"), "instance.name"),
            ("x" * (9 * 1024 * 1024), "too long"),
        ):
            with open(self.path, "w") as file:
                file.write(content)
            with self.subTest(content[:20]), self.assertRaises(exception.StorageError) as caught:
                descriptions.read(self.directory)
            self.assertIn(word, caught.exception.message)
            self.assertEqual(self.path, caught.exception.value)

    def test_whose_it_is(self) -> None:
        other = "0a1b2c3d-0000-4000-8000-000000000002"
        for host, host_uuid, own in (
            ("kvm1", HOST_UUID, True),
            ("renamed", HOST_UUID, True),
            ("kvm1", other, True),
            ("kvm2", other, False),
        ):
            with self.subTest(host=host, host_uuid=host_uuid):
                self.assertEqual(own, described().is_of(host, host_uuid))

    def test_only_one_host_claims(self) -> None:
        with descriptions.claim(self.directory, "kvm1"):
            with (
                self.assertRaisesRegex(exception.InstanceBusy, "kvm1 is bringing it back"),
                descriptions.claim(self.directory, "kvm2"),
            ):
                self.fail("claimed twice")
            # what a killed agent has left does not stop its successor
            with descriptions.claim(self.directory, "kvm1"):
                pass
        with descriptions.claim(self.directory, "kvm2"):
            pass
        self.assertEqual([], os.listdir(self.directory))

    def test_a_directory_that_is_gone(self) -> None:
        gone = os.path.join(self.directory, "gone")
        with self.assertRaises(exception.StorageError):
            descriptions.write(gone, described())
        with self.assertRaises(exception.StorageError), descriptions.claim(gone, "kvm1"):
            self.fail("claimed")
