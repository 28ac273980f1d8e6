"""What becomes of a domain's XML when the domain moves."""

import unittest

from lxml import etree

from kvmdriver.definition.build import domain_xml
from kvmdriver.definition.migration import foreign_devices, live_definition, with_addresses
from kvmdriver.definition.platform import Platform
from kvmdriver.model import Instance
from kvmdriver.model.layout import InstanceLayout
from tests.unit.definition import instances
from tests.unit.definition.test_golden import PLATFORM

UUID = "6a1b4f0e-93c5-4f0c-9d0a-0b7f3c1b2a44"


def made(root: str) -> etree._Element:
    """A definition as a host with its instances below ``root`` makes it."""
    instance = Instance.model_validate(
        {
            "uuid": UUID,
            "name": "web",
            "memory": {"current_mib": 64},
            "virt_type": "qemu",
            "machine": "pc-q35-7.2",
            "disks": [
                {
                    "name": "vda",
                    "bus": "virtio",
                    "size_mib": 1,
                    "file": {"path": f"{root}/{UUID}/disk", "format": "qcow2"},
                }
            ],
            "nics": [{"source": "default", "mac": "52:54:00:00:00:01", "model": "virtio"}],
            "cpu": {"mode": "none"},
            "boot": {"firmware": "bios"},
            "rng": False,
        }
    )
    platform = Platform(layout=InstanceLayout(root, UUID), emulator=f"{root}/qemu")
    return domain_xml(instance, platform)


def as_libvirt_keeps_it(element: etree._Element) -> etree._Element:
    """With some of what libvirt adds to a definition."""
    devices = element.find("devices")
    for slot, name in enumerate(("disk", "interface")):
        etree.SubElement(
            devices.find(name), "address", type="pci", bus="0x00", slot=f"0x0{slot + 3}"
        )
    added = etree.SubElement(devices, "controller", type="pci", index="0", model="pcie-root")
    etree.SubElement(added, "alias", name="pcie.0")
    etree.SubElement(devices, "hostdev", mode="subsystem", type="pci")
    etree.SubElement(devices, "disk", type="block")
    return element


class PersistentDefinitionTest(unittest.TestCase):
    def setUp(self) -> None:
        self.result = with_addresses(made("/there"), as_libvirt_keeps_it(made("/here")))

    def test_devices_stay_in_their_places(self) -> None:
        for name in ("disk", "interface"):
            self.assertIsNotNone(self.result.find(f"devices/{name}/address"), name)

    def test_controllers_that_addresses_need_are_there(self) -> None:
        found = self.result.find("devices/controller[@model='pcie-root']")
        self.assertIsNotNone(found)
        self.assertIsNone(found.find("alias"))

    def test_nothing_else_is_taken_over(self) -> None:
        """The other host sends this over a bus: it must not add devices, or choose files."""
        self.assertIsNone(self.result.find("devices/hostdev"))
        self.assertEqual(1, len(self.result.findall("devices/disk")))

    def test_devices_that_are_none_of_the_instances_are_told(self) -> None:
        plain = made("/here")
        self.assertEqual([], foreign_devices(made("/there"), plain))
        for element, attributes, child in (
            ("disk", {"type": "block"}, ("target", {"dev": "vdb"})),
            ("disk", {"type": "block"}, None),
            ("interface", {"type": "direct"}, ("mac", {"address": "52:54:00:00:00:02"})),
            ("hostdev", {"mode": "subsystem", "type": "pci"}, None),
            ("filesystem", {"type": "mount"}, None),
            ("tpm", {"model": "tpm-crb"}, None),
        ):
            with self.subTest(element):
                definition = made("/here")
                device = etree.SubElement(definition.find("devices"), element, attributes)
                if child:
                    etree.SubElement(device, *child)
                found = foreign_devices(made("/there"), definition)
                self.assertEqual([element], [name.partition(" ")[0] for name in found])
        self.assertNotIn("/here", etree.tostring(self.result, encoding="unicode"))

    def test_arguments_are_left_as_they_are(self) -> None:
        fresh = made("/there")
        before = etree.tostring(fresh)
        with_addresses(fresh, as_libvirt_keeps_it(made("/here")))
        self.assertEqual(before, etree.tostring(fresh))


class LiveDefinitionTest(unittest.TestCase):
    def setUp(self) -> None:
        running = as_libvirt_keeps_it(made("/here"))
        graphics = running.find("devices/graphics")
        graphics.set("port", "5901")
        prepared = made("/there")
        etree.SubElement(prepared, "metadata").text = "of the destination"
        self.result = live_definition(running, prepared)

    def test_what_belongs_to_the_host_is_that_of_the_destination(self) -> None:
        text = etree.tostring(self.result, encoding="unicode")
        self.assertNotIn("/here", text)
        self.assertIn(f"/there/{UUID}/disk", text)
        self.assertIn("/there/qemu", text)
        self.assertEqual("of the destination", self.result.findtext("metadata"))

    def test_what_the_guest_sees_stays(self) -> None:
        self.assertEqual("0x03", self.result.find("devices/disk/address").get("slot"))
        self.assertIsNotNone(self.result.find("devices/controller[@model='pcie-root']"))

    def test_ports_are_chosen_anew(self) -> None:
        graphics = self.result.find("devices/graphics")
        self.assertEqual(("-1", "yes"), (graphics.get("port"), graphics.get("autoport")))


class GoldenInstancesTest(unittest.TestCase):
    def test_a_definition_moved_to_a_like_host_is_the_same(self) -> None:
        for name, instance in instances.INSTANCES.items():
            with self.subTest(name):
                one = domain_xml(instance, PLATFORM)
                self.assertEqual(etree.tostring(one), etree.tostring(with_addresses(one, one)))
                self.assertEqual(etree.tostring(one), etree.tostring(live_definition(one, one)))
