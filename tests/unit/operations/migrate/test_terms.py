"""Offers that no agent of ours makes."""

import unittest
from typing import Any

from kvmdriver import exception
from kvmdriver.model import MigrationOffer
from kvmdriver.operations.migrate.terms import violations

UUID = "0a1b2c3d-0000-4000-8000-000000000001"
IMAGE = {"type": "file", "path": "/images/web.qcow2"}


def offer(**fields: Any) -> MigrationOffer:
    """What a source offers of an instance with an overlay, a CD and a config drive."""
    data: dict[str, Any] = {
        "id": "one",
        "kind": "live",
        "source": "kvm1",
        "instance": {
            "uuid": UUID,
            "name": "web",
            "disks": [
                {"name": "vda", "image": IMAGE, "file": {"path": "/i/disk", "format": "qcow2"}},
                {
                    "name": "sda",
                    "device": "cdrom",
                    "file": {"path": "/i/_base/cd", "format": "raw"},
                },
            ],
            "config_drive": {},
        },
        "marker": "migration-one",
        "definition": "<domain/>",
        "disks": [
            {
                "name": "vda",
                "file": "disk",
                "format": "qcow2",
                "size": 1000,
                "allocated": 10,
                "backing": "base",
                "backing_size": 500,
            }
        ],
        "files": [
            {"place": "instance", "name": "disk.config", "size": 7},
            {"place": "cache", "name": "base", "size": 500},
            {"place": "cache", "name": "cd", "size": 9},
        ],
    }
    return MigrationOffer.parse({**data, **fields})


def changed(which: str, position: int, **fields: Any) -> MigrationOffer:
    rows = offer().to_wire()[which]
    rows[position] = {**rows[position], **fields}
    return offer(**{which: rows})


def more(which: str, **row: Any) -> MigrationOffer:
    return offer(**{which: [*offer().to_wire()[which], row]})


class ViolationsTest(unittest.TestCase):
    def fields(self, found: MigrationOffer) -> set[str | None]:
        problems = list(violations(found))
        for problem in problems:
            self.assertTrue(problem.remedy)
        return {problem.field for problem in problems}

    def test_what_agents_offer(self) -> None:
        self.assertEqual(set(), self.fields(offer()))
        cold = changed("disks", 0, length=77).changed(kind="cold")
        self.assertEqual(set(), self.fields(cold))
        whole = offer(full_copy=True, files=offer().to_wire()["files"][::2])
        self.assertEqual(set(), self.fields(whole))

    def test_a_marker_that_others_can_have_made(self) -> None:
        for marker in ("disk", "instance.json", "migration-two"):
            self.assertEqual({"offer.marker"}, self.fields(offer(marker=marker)))

    def test_files_that_the_instance_does_not_need(self) -> None:
        for row in (
            {"place": "cache", "name": "0" * 40, "size": 1},
            {"place": "cache", "name": "disk.config", "size": 1},
            {"place": "instance", "name": "base", "size": 500},
            {"place": "instance", "name": "kernel", "size": 1},
            {"place": "instance", "name": "nvram.fd", "size": 1},
            {"place": "instance", "name": "instance.json", "size": 1},
            {"place": "instance", "name": "disk", "size": 1},
            {"place": "instance", "name": "console.log", "size": 1},
        ):
            with self.subTest(row):
                self.assertEqual({"offer.files"}, self.fields(more("files", **row)))

    def test_files_that_come_twice_or_are_missing(self) -> None:
        for row in offer().to_wire()["files"]:
            self.assertEqual({"offer.files"}, self.fields(more("files", **row)))
        self.assertEqual({"offer.files"}, self.fields(offer(files=[])))
        hidden = changed("disks", 0, length=1, file="disk.config").changed(kind="cold")
        self.assertEqual({"offer.files"}, self.fields(hidden))

    def test_an_image_of_another_size(self) -> None:
        self.assertEqual({"offer.files"}, self.fields(changed("files", 1, size=501)))

    def test_disks_that_are_none_of_the_instances(self) -> None:
        twice = more("disks", **offer().to_wire()["disks"][0])
        self.assertEqual({"offer.disks"}, self.fields(twice))
        for name in ("vdb", "sda"):
            row = {"name": name, "file": "x", "format": "raw", "size": 1, "allocated": 1}
            self.assertEqual({"offer.disks"}, self.fields(more("disks", **row)))
        self.assertIn("offer.disks", self.fields(changed("disks", 0, format="raw")))
        self.assertIn("offer.disks", self.fields(offer(kind="cold")))
        cold = changed("disks", 0, length=77).changed(kind="cold", full_copy=True)
        self.assertIn("offer.full_copy", self.fields(cold))

    def test_sizes_and_names_that_cannot_be(self) -> None:
        for fields in (
            {"size": 1 << 62},
            {"allocated": -1},
            {"file": "../disk"},
            {"length": 2**63},
        ):
            with self.subTest(fields), self.assertRaises(exception.InvalidRequest):
                changed("disks", 0, **fields)
        for row in ({"size": 1 << 62}, {"name": "/etc/shadow"}, {"place": "root"}):
            with self.subTest(row), self.assertRaises(exception.InvalidRequest):
                changed("files", 0, **row)
