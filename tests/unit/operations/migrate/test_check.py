"""Whose directory an instance that arrives may take."""

import os
import tempfile
import unittest
from typing import Any
from unittest import mock

from kvmdriver.model import Instance, MigrationOffer
from kvmdriver.model.evacuation import Description
from kvmdriver.operations.migrate import check
from kvmdriver.storage import description as descriptions
from kvmdriver.storage.store import InstanceStore

UUID = "0a1b2c3d-0000-4000-8000-000000000001"
INSTANCE = Instance.parse({"name": "web", "uuid": UUID, "memory": {"current_mib": 64}})


class IdentityTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.context: Any = mock.Mock(host="kvm2", store=InstanceStore(directory.name))
        self.context.hypervisor.find.return_value = None
        self.directory = self.context.store.layout(UUID).directory
        self.offer = MigrationOffer(
            id="m1",
            kind="cold",
            source="kvm1",
            instance=INSTANCE,
            marker="marker",
            definition="<domain/>",
        )

    def put(self, host: str | None, *, marker: bool = True, **fields: object) -> None:
        os.makedirs(self.directory, exist_ok=True)
        if host is not None:
            mark = Description.parse(
                {"host": host, "host_uuid": "u", "instance": INSTANCE, "definition": "<domain/>"}
            )
            descriptions.write(self.directory, mark.changed(**fields))
        if marker:
            with open(os.path.join(self.directory, "marker"), "w"):
                pass

    def problems(self) -> list[tuple[str, str]]:
        found = check._collect(check._identity, self.context, self.offer)
        return [(problem.code, problem.message) for problem in found]

    def test_a_directory_that_the_source_shares(self) -> None:
        self.assertEqual([], self.problems())
        self.put("kvm1")
        self.assertEqual([], self.problems())

    def test_a_directory_that_is_not_the_sources_to_give(self) -> None:
        """Anybody could name a file that he knows to be there."""
        self.put("kvm3")
        self.assertEqual("storage_error", self.problems()[0][0])
        self.assertIn("belongs to kvm3", self.problems()[0][1])
        self.put("kvm1", building="an-operation")
        self.assertEqual("storage_error", self.problems()[0][0])
        os.unlink(os.path.join(self.directory, descriptions.NAME))
        self.assertIn("belongs to nobody", self.problems()[0][1])

    def test_a_directory_in_the_way(self) -> None:
        self.put("kvm3", marker=False)
        ((code, message),) = self.problems()
        self.assertEqual("instance_exists", code)
        self.assertIn("web of kvm3", message)
