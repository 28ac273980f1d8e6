"""Domain XML against golden files and against libvirt's own schema.

KVMDRIVER_UPDATE_GOLDEN=1 writes the files anew; read the difference before you commit it.
"""

import os
import pathlib
import unittest

from lxml import etree

from kvmdriver.definition.build import domain_xml
from kvmdriver.definition.platform import Platform
from kvmdriver.hypervisor.record import Owner, Record, Task
from kvmdriver.hypervisor.xml import to_string
from kvmdriver.model.layout import InstanceLayout
from tests.unit.definition.instances import INSTANCES, UUID

GOLDEN = pathlib.Path(__file__).parent / "golden"
SCHEMA = "/usr/share/libvirt/schemas/domain.rng"
PLATFORM = Platform(
    layout=InstanceLayout("/instances", UUID), emulator="/usr/bin/qemu-system-x86_64"
)


class GoldenTest(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls) -> None:
        cls.schema = etree.RelaxNG(etree.parse(SCHEMA))

    def test_golden_files(self) -> None:
        for name, instance in INSTANCES.items():
            with self.subTest(name):
                found = to_string(domain_xml(instance, PLATFORM))
                path = GOLDEN / f"{name}.xml"
                if os.environ.get("KVMDRIVER_UPDATE_GOLDEN"):
                    path.write_text(found)
                self.assertEqual(path.read_text(), found)

    def test_no_golden_file_is_forgotten(self) -> None:
        self.assertEqual(set(INSTANCES), {path.stem for path in GOLDEN.glob("*.xml")})

    def test_libvirts_schema(self) -> None:
        for name, instance in INSTANCES.items():
            with self.subTest(name):
                record = Record(
                    instance=instance,
                    root="/instances",
                    task=Task(name="create", owner=Owner.current()),
                )
                found = domain_xml(instance, PLATFORM, record.to_element())
                # libvirt's schema leaves metadata to its owner
                self.schema.assertValid(etree.fromstring(etree.tostring(found)))

    def test_text_is_escaped(self) -> None:
        found = to_string(domain_xml(INSTANCES["kernel"], PLATFORM))
        self.assertIn("console=ttyS0 &lt;&amp;&gt;", found)
