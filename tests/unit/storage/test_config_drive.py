import json
import os
import tempfile
import unittest

from kvmdriver.model import Instance
from kvmdriver.model.config_drive import hostname_from
from kvmdriver.storage import config_drive

INSTANCE = Instance.parse(
    {
        "uuid": "6a1b4f0e-93c5-4f0c-9d0a-0b7f3c1b2a44",
        "name": "web_1",
        "disks": [{"size_mib": 1}],
        "nics": [
            {"source": "default", "mac": "52:54:00:00:00:01"},
            {"source": "default", "mac": "52:54:00:00:00:02"},
        ],
        "config_drive": {
            "ssh_keys": ["ssh-ed25519 AAAA me@here"],
            "user_data": "#!/bin/sh\necho hello\n",
            "admin_password": "secret",
            "addresses": [{"nic": 1, "address": "192.0.2.5/24", "gateway": "192.0.2.1", "dns": ["192.0.2.2"]}],
        },
    }
)  # fmt: skip


class ConfigDriveTest(unittest.TestCase):
    def test_content(self) -> None:
        files = config_drive.content(INSTANCE)
        metadata = json.loads(files["openstack/latest/meta_data.json"])
        self.assertEqual("web-1", metadata["hostname"])
        self.assertEqual({"key0": "ssh-ed25519 AAAA me@here"}, metadata["public_keys"])
        self.assertEqual("secret", metadata["admin_pass"])
        network = json.loads(files["openstack/latest/network_data.json"])
        self.assertEqual(["ipv4_dhcp", "ipv4"], [n["type"] for n in network["networks"]])
        static = network["networks"][1]
        self.assertEqual(("192.0.2.5", "255.255.255.0"), (static["ip_address"], static["netmask"]))
        self.assertEqual([{"type": "dns", "address": "192.0.2.2"}], network["services"])

    def test_hostnames(self) -> None:
        for name, hostname in (("web_1", "web-1"), ("a+", "a"), ("x..y", "x.y"), ("0", "0")):
            self.assertEqual(hostname, hostname_from(name))

    def test_image_can_be_read_back(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "disk.config")
            config_drive.write(INSTANCE, path)
            self.assertEqual(config_drive.content(INSTANCE), config_drive._read_files(path))
            with open(path, "rb") as image:
                image.seek(0x8028)
                self.assertEqual(b"config-2", image.read(8))

    def test_a_copy_keeps_what_the_driver_does_not_know(self) -> None:
        record = Instance.model_validate_json(INSTANCE.record_json())
        clone = record.changed(name="other", uuid="7a1b4f0e-93c5-4f0c-9d0a-0b7f3c1b2a44")
        with tempfile.TemporaryDirectory() as directory:
            old, new = os.path.join(directory, "old"), os.path.join(directory, "new")
            config_drive.write(INSTANCE, old)
            config_drive.write_copy(old, clone, new)
            files = config_drive._read_files(new)
        self.assertEqual(b"#!/bin/sh\necho hello\n", files["openstack/latest/user_data"])
        metadata = json.loads(files["openstack/latest/meta_data.json"])
        self.assertEqual(("secret", "other"), (metadata["admin_pass"], metadata["name"]))
        self.assertEqual(clone.uuid, metadata["uuid"])
