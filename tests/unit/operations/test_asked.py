import hashlib
import unittest
from typing import Any

from kvmdriver.model import Instance
from kvmdriver.operations.asked import digest_of, is_digest_of


def request(**fields: Any) -> Instance:
    data = {
        "name": "web",
        "uuid": "0a1b2c3d-0000-4000-8000-000000000001",
        "disks": [{"size_mib": 1}],
    }
    return Instance.parse({**data, **fields})


class AskedTest(unittest.TestCase):
    def test_the_same_request(self) -> None:
        for fields in (
            {},
            {"consoles": {"vnc_password": "hush"}},
            {"config_drive": {"user_data": "#!x", "admin_password": "hush"}},
        ):
            digest = digest_of(request(**fields))
            self.assertTrue(is_digest_of(digest, request(**fields)))

    def test_any_difference_counts(self) -> None:
        fields = {"consoles": {"vnc_password": "a"}, "config_drive": {"user_data": "#!x"}}
        digest = digest_of(request(**fields))
        for other in (
            {**fields, "name": "web2"},
            {**fields, "consoles": {"vnc_password": "b"}},
            {**fields, "consoles": {}},
            {**fields, "config_drive": {"user_data": "#!y"}},
            {**fields, "config_drive": {"user_data": "#!x", "admin_password": "b"}},
            {},
        ):
            self.assertFalse(is_digest_of(digest, request(**other)), other)
        self.assertFalse(is_digest_of(digest_of(request()), request(**fields)))

    def test_equal_secrets_have_no_equal_digests(self) -> None:
        asked = request(consoles={"vnc_password": "hush"})
        self.assertNotEqual(digest_of(asked), digest_of(asked))

    def test_digests_of_older_versions_compare_as_before(self) -> None:
        asked = request(consoles={"vnc_password": "hush"})
        digest = hashlib.sha256(asked.record_json().encode()).hexdigest()
        self.assertTrue(is_digest_of(digest, asked))
        self.assertTrue(is_digest_of(digest, request(consoles={"vnc_password": "other"})))
        self.assertFalse(is_digest_of(digest, request(name="web2")))
        self.assertFalse(is_digest_of(None, asked))
        self.assertFalse(is_digest_of("clone of a as b", asked))
