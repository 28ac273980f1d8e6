import unittest

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvmdriver import exception
from kvmdriver.model import Disk, Instance, Memory, Nic, Vcpus
from kvmdriver.model.layout import InstanceLayout, mac_address

DISK = {"image": {"type": "file", "path": "/images/a.qcow2"}}
MINIMAL = {"name": "web", "memory": {"current_mib": 512}, "disks": [DISK]}


def refused(**changes: object) -> exception.InvalidRequest:
    """The error for the minimal instance with these changes."""
    try:
        Instance.parse({**MINIMAL, **changes})
    except exception.InvalidRequest as error:
        return error
    raise AssertionError(f"{changes} was accepted")


class InstanceTest(unittest.TestCase):
    def test_minimal(self) -> None:
        instance = Instance.parse(MINIMAL)
        self.assertEqual(512, instance.memory.maximum_mib)
        self.assertEqual((1, 1), (instance.vcpus.current, instance.vcpus.maximum))
        self.assertEqual("pty", instance.consoles.serial)

    def test_names_with_xml_or_path_characters(self) -> None:
        for name in ("<x/>", "../etc", "a/b", "a\0b", "", "a" * 64, "-x", "a b", "ü", "a\n", 5):
            error = refused(name=name)
            self.assertEqual("name", error.field)
            self.assertTrue(error.remedy)

    def test_field_paths(self) -> None:
        for changes, field in (
            ({"memory": {"current_mib": 3}}, "memory.current_mib"),
            ({"memory": {"current_mib": 512, "maximum_mib": 256}}, "memory"),
            ({"memory": {"current_mib": "lots"}}, "memory.current_mib"),
            ({"vcpus": {"current": 0}}, "vcpus.current"),
            ({"vcpus": {"current": 4, "maximum": 2}}, "vcpus"),
            ({"vcpus": {"current": 10**9}}, "vcpus.current"),
            ({"uuid": "x"}, "uuid"),
            ({"surprise": 1}, "surprise"),
            ({"disks": [{}]}, "disks.0"),
            ({"disks": [{"image": {"type": "ftp"}}]}, "disks.0.image"),
            ({"disks": [{"size_mib": -1}]}, "disks.0.size_mib"),
            ({"disks": [{"size_mib": 1, "name": "../x"}]}, "disks.0.name"),
            ({"nics": [{"type": "network"}]}, "nics.0"),
            ({"nics": [{"source": "x", "mac": "01:00:00:00:00:01"}]}, "nics.0.mac"),
            ({"nics": [{"source": "a" * 16, "type": "bridge"}]}, "nics.0"),
            ({"cpu": {"mode": "custom"}}, "cpu"),
            ({"cpu": {"mode": "host-model", "models": ["EPYC"]}}, "cpu"),
            ({"boot": {"cmdline": "quiet"}}, "boot"),
            ({"boot": {"secure_boot": True}}, "boot"),
            ({"consoles": {"vnc_password": "longer than 8"}}, "consoles.vnc_password"),
            ({"consoles": {"keymap": "/dev/zero"}}, "consoles.keymap"),
            ({"consoles": {"keymap": "../../../etc/passwd"}}, "consoles.keymap"),
            ({"consoles": {"keymap": "en-us\n"}}, "consoles.keymap"),
            ({"consoles": {"graphics": "none", "vnc_password": "x"}}, "consoles"),
            ({"config_drive": {"hostname": "-"}}, "config_drive.hostname"),
            ({"config_drive": {"ssh_keys": ["rubbish"]}}, "config_drive.ssh_keys.0"),
            ({"config_drive": {"addresses": [{"address": "1.2.3"}]}}, "config_drive.addresses.0.address"),
            ({"os_variant": "a\x01"}, "os_variant"),
            ({"machine": "q35; rm"}, "machine"),
        ):  # fmt: skip
            with self.subTest(changes=changes):
                self.assertEqual(field, refused(**changes).field)

    def test_not_even_an_object(self) -> None:
        for rubbish in (None, 5, "x", [], [MINIMAL]):
            with self.assertRaises(exception.InvalidRequest):
                Instance.parse(rubbish)

    def test_twice_is_once_too_often(self) -> None:
        twin = {"size_mib": 5, "name": "vdb"}
        self.assertIn("vdb", refused(disks=[twin, twin]).message)
        nic = {"source": "default", "mac": "52:54:00:00:00:01"}
        self.assertIn("used twice", refused(nics=[nic, nic]).message)

    def test_topology_must_match(self) -> None:
        topology = {"sockets": 1, "cores": 2, "threads": 1}
        self.assertIn("2 vCPUs", refused(cpu={"topology": topology}).message)
        Instance.parse({**MINIMAL, "cpu": {"topology": topology}, "vcpus": {"current": 2}})

    def test_paths(self) -> None:
        for path in ("etc/passwd", "/a/../../etc/passwd", "/a\0b", ""):
            image = {"type": "file", "path": path}
            self.assertEqual("disks.0.image.file.path", refused(disks=[{"image": image}]).field)

    def test_urls(self) -> None:
        good = {"type": "url", "url": "https://a/b", "checksum": "sha256:" + "0" * 64}
        Disk.parse({"image": good})
        for changes in (
            {"url": "file:///etc/passwd"},
            {"url": "http://user:secret@host/"},
            {"url": "ftp://x/y"},
            {"checksum": "md5:00"},
            {"checksum": None},
        ):
            with self.assertRaises(exception.InvalidRequest):
                Disk.parse({"image": {**good, **changes}})

    def test_secrets_are_shown_on_the_wire_only(self) -> None:
        instance = Instance.parse(
            {
                **MINIMAL,
                "consoles": {"vnc_password": "hush"},
                "config_drive": {"admin_password": "hush", "user_data": "hush"},
            }
        )
        self.assertNotIn("hush", instance.record_json())
        self.assertNotIn("hush", str(instance.consoles))
        self.assertEqual(instance, Instance.parse(instance.to_wire()))
        error = refused(consoles={"vnc_password": "very secret indeed"})
        self.assertNotIn("very secret", str(error))

    def test_record_round_trip(self) -> None:
        instance = Instance.parse({**MINIMAL, "nics": [{"source": "default"}]})
        self.assertEqual(instance, Instance.model_validate_json(instance.record_json()))

    def test_frozen(self) -> None:
        with self.assertRaises(ValueError):
            Instance.parse(MINIMAL).name = "other"

    # how fast inputs are made says how busy the machine is, and nothing about the models
    @settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(),
                        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip
    def test_anything_is_refused_in_our_words(self, rubbish: object) -> None:
        for kind in (Instance, Disk, Nic, Memory, Vcpus):
            try:
                kind.parse(rubbish)
            except exception.InvalidRequest as error:
                self.assertTrue(error.remedy)


class LayoutTest(unittest.TestCase):
    def test_paths(self) -> None:
        layout = InstanceLayout("/i", "u")
        self.assertEqual("/i/u/disk", layout.disk("vda", first=True))
        self.assertEqual("/i/u/disk.vdb", layout.disk("vdb"))
        self.assertEqual("/i/u/disk.config", layout.config_drive)

    def test_mac_addresses_are_stable_and_local(self) -> None:
        self.assertEqual(mac_address("u", "nic", 0), mac_address("u", "nic", 0))
        self.assertNotEqual(mac_address("u", "nic", 0), mac_address("u", "nic", 1))
        self.assertTrue(mac_address("x").startswith("52:54:00:"))
