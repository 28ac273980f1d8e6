"""Names, UUIDs, numbers and paths that are refused, and values that no error repeats."""

import unittest

from kvmdriver import exception
from kvmdriver.agent.requests import SnapshotInstance
from kvmdriver.model import (
    Boot,
    ConfigDrive,
    Consoles,
    CpuTopology,
    Disk,
    Instance,
    IoLimits,
    Memory,
    Model,
    Nic,
    UrlImage,
    Vcpus,
)
from kvmdriver.model.base import as_uuid, check_new_name, is_uuid

UUID = "6a1b4f0e-93c5-4f0c-9d0a-0b7f3c1b2a44"
DIGITS = UUID.replace("-", "")
CONTROL = ("\0", "\a", "\v", "\f", "\r", "\x1b", "\x7f", "\x85", "\x9b", "\u2028", "\u2029")


def refused(kind: type[Model], **fields: object) -> exception.InvalidRequest:
    """The error for these fields."""
    try:
        kind.parse(fields)
    except exception.InvalidRequest as error:
        return error
    raise AssertionError(f"{kind.__name__} takes {fields!r}")


class NamesTest(unittest.TestCase):
    def test_no_new_name_is_a_uuid(self) -> None:
        for name in (
            UUID, DIGITS, UUID.upper(), DIGITS.upper(), f"{{{UUID}}}", f"urn:uuid:{UUID}",
            f"{DIGITS[:4]}-{DIGITS[4:]}", f"{DIGITS[:30]}_4",
        ):  # fmt: skip
            with self.subTest(name), self.assertRaises(exception.InvalidRequest) as caught:
                check_new_name(name)
            self.assertEqual("name", caught.exception.field)
            self.assertIn("UUID", caught.exception.remedy)

    def test_other_names(self) -> None:
        for name in ("web", DIGITS[:-1], DIGITS + "0", f"x-{UUID}", "g" * 32):
            check_new_name(name)

    def test_an_old_instance_can_still_be_read(self) -> None:
        self.assertEqual(DIGITS, Instance.parse({"name": DIGITS}).name)

    def test_spellings_of_a_uuid(self) -> None:
        for text in (UUID, DIGITS, UUID.upper(), DIGITS.upper()):
            self.assertEqual(UUID, as_uuid(text))
        for text in (
            f"{{{UUID}}}", f"urn:uuid:{UUID}", f"{DIGITS[:4]}-{DIGITS[4:]}", UUID + "\n", "",
            "0x" + DIGITS[2:], DIGITS[:30] + "_1", "٠" * 32, DIGITS[:-1],
        ):  # fmt: skip
            self.assertIsNone(as_uuid(text), text)
            self.assertEqual("uuid", refused(Instance, name="a", uuid=text).field)
        self.assertFalse(is_uuid(DIGITS))
        self.assertTrue(is_uuid(UUID))


class NumbersTest(unittest.TestCase):
    def test_only_integers_are_integers(self) -> None:
        for kind, field in (
            (Vcpus, "current"), (Vcpus, "maximum"), (Memory, "current_mib"),
            (Memory, "maximum_mib"), (CpuTopology, "cores"), (Disk, "size_mib"),
            (IoLimits, "total_iops_sec"), (Nic, "mtu"),
        ):  # fmt: skip
            for value in (
                0,
                -0.0,
                -1,
                True,
                False,
                "64",
                64.0,
                1e300,
                float("nan"),
                2**63,
                10**5000,
            ):
                fields = {"current_mib": 64} if kind is Memory else {}
                with self.subTest(field=field, value=str(type(value))):
                    self.assertEqual(field, refused(kind, **{**fields, field: value}).field)

    def test_only_booleans_are_booleans(self) -> None:
        for value in (0, 1, "yes", "true", 1.0):
            self.assertEqual("autostart", refused(Instance, name="a", autostart=value).field)

    def test_the_most_is_what_there_is_when_it_is_not_given(self) -> None:
        self.assertEqual(3, Vcpus.parse({"current": 3}).maximum)
        self.assertEqual(64, Memory.parse({"current_mib": 64}).maximum_mib)
        self.assertEqual(Vcpus(current=2), Vcpus.model_validate_json('{"current": 2}'))


class TextsTest(unittest.TestCase):
    def test_paths(self) -> None:
        long = "a" * 256
        for path in (
            *(f"/images/a{character}b" for character in CONTROL), "/images/a\n", "/images/\ta",
            f"/images/{long}", f"/{long}/a", "/" + "ü" * 128, "/a" * 2048, "/a\ud800",
            "relative", "/a/../b", "/a/..",
        ):  # fmt: skip
            with self.subTest(ascii(path)):
                self.assertEqual("path", refused(SnapshotInstance, instance="a", path=path).field)
        for path in (f"/{long[1:]}/b", "/" + "ü" * 127, "/a..b", "/a b"):
            SnapshotInstance.parse({"instance": "a", "path": path})

    def test_short_texts_are_one_line(self) -> None:
        for character in (*CONTROL, "\n", "\t"):
            error = refused(Instance, name="a", os_variant=f"debian{character}11")
            self.assertEqual("os_variant", error.field)

    def test_ssh_keys(self) -> None:
        for key in (
            *(f"ssh-ed25519 AAAA{character}comment" for character in CONTROL),
            *(f"ssh-ed25519 AAAA{character}" for character in CONTROL),
            *(f"{character}ssh-ed25519 AAAA" for character in CONTROL),
            "ssh-ed25519 AAAA\nssh-ed25519 BBBB", "ssh-ed25519\tAAAA", "ssh-ed25519", "", "AAAA x",
        ):  # fmt: skip
            with self.subTest(ascii(key)):
                self.assertEqual("ssh_keys.0", refused(ConfigDrive, ssh_keys=[key]).field)
        drive = ConfigDrive.parse({"ssh_keys": [" ssh-ed25519 AAAA me@host, ü \n"]})
        self.assertEqual(("ssh-ed25519 AAAA me@host, ü",), drive.ssh_keys)

    def test_passwords_of_screens(self) -> None:
        for password in ("", "9" * 9, "üüüüü", *CONTROL, "a\n"):
            self.assertEqual("vnc_password", refused(Consoles, vnc_password=password).field)
        Consoles.parse({"vnc_password": "üüüü"})

    def test_urls(self) -> None:
        good = {"checksum": "sha256:" + "0" * 64}
        for url in (
            "http://ho\nst/", "http://host/\r\n", "http://host:99999/", "http://[::1/", "http:///a",
        ):  # fmt: skip
            self.assertEqual("url", refused(UrlImage, url=url, **good).field)


class PrivateTest(unittest.TestCase):
    """Values that are secret, or may be, are in no error."""

    SECRET = "s3cr3t-"

    def test_nothing_secret_is_repeated(self) -> None:
        secret = self.SECRET
        checksum = "sha256:" + "0" * 64
        for kind, fields in (
            (ConfigDrive, {"user_data": secret + "\ud800"}),
            (ConfigDrive, {"user_data": secret * 200_000}),
            (ConfigDrive, {"user_data": [secret]}),
            (ConfigDrive, {"user_data": {"a": secret}}),
            (ConfigDrive, {"admin_password": secret * 100}),
            (ConfigDrive, {"admin_password": [secret]}),
            (ConfigDrive, {"admin_pass": secret}),
            (ConfigDrive, {"ssh_keys": [secret]}),
            (ConfigDrive, {"ssh_keys": secret}),
            (ConfigDrive, {"addresses": secret}),
            (Instance, {"name": "a", "config_drive": secret}),
            (Instance, {"name": "a", "config_drive": {"user_data": 1, "x": secret}}),
            (Instance, {"name": "a", "metadata": secret}),
            (Instance, {"name": "a", "consoles": {"vnc_password": secret * 2}}),
            (Instance, {"name": "a", "consoles": {"graphics": "none", "vnc_password": "s3cr3t-"}}),
            (Boot, {"kernel": {"path": "/k", "type": "file"}, "cmdline": f"password={secret}\0"}),
            (UrlImage, {"url": f"https://user:{secret}@host/a", "checksum": checksum}),
            (UrlImage, {"url": f"https:///a?signature={secret}", "checksum": checksum}),
            (Disk, {"image": {"type": secret}}),
        ):
            with self.subTest(kind=kind.__name__, fields=list(fields)):
                error = refused(kind, **fields)
                self.assertNotIn(secret, str(error.to_dict()))
                self.assertTrue(error.field or error.message)

    def test_what_helps_is_repeated(self) -> None:
        for kind, fields, value in (
            (Instance, {"name": "a b"}, "a b"),
            (Vcpus, {"current": 0}, "0"),
            (Nic, {"source": "default", "mac": "nonsense"}, "nonsense"),
            (Instance, {"name": "a", "machine": "Q35"}, "Q35"),
        ):
            self.assertEqual(value, refused(kind, **fields).value)

    def test_a_field_of_any_name_and_length(self) -> None:
        error = refused(Vcpus, **{"x" * 100_000: self.SECRET})
        self.assertEqual(200, len(error.field))
        self.assertLess(len(error.message), 300)
