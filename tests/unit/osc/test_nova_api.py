"""Servers and migrations of Nova's API as the models of this project; the SDK's own resources."""

import unittest
from typing import Any
from unittest import mock

from openstack import exceptions as sdk_exceptions
from openstack.compute.v2 import _proxy
from openstack.compute.v2.migration import Migration
from openstack.compute.v2.server import Server
from openstack.compute.v2.server_migration import ServerMigration

from kvmdriver import exception
from kvmdriver.model import MigrationOptions
from kvmdriver.osc.nova_api import NovaAPI

UUID = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"


def server(**changes: Any) -> Server:
    """As nova-api answers with microversion 2.96."""
    body: dict[str, Any] = {
        "id": UUID, "name": "web", "status": "ACTIVE",
        "OS-EXT-STS:vm_state": "active", "OS-EXT-STS:task_state": None,
        "OS-EXT-STS:power_state": 1, "OS-EXT-SRV-ATTR:host": "compute1",
        "flavor": {"original_name": "small", "ram": 512, "vcpus": 2, "disk": 1},
        "addresses": {
            "private": [
                {"addr": "10.0.0.4", "version": 4, "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:00:00:01"},
                {"addr": "192.0.2.7", "version": 4, "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:00:00:01"},
            ],
        },
    }  # fmt: skip
    return Server.existing(**{**body, **changes})


def migration(**changes: Any) -> Migration:
    body = {
        "id": 7, "uuid": OTHER, "instance_uuid": UUID, "migration_type": "live-migration",
        "source_compute": "compute1", "dest_compute": "compute2", "status": "completed",
    }  # fmt: skip
    return Migration.existing(**{**body, **changes})


class NovaAPITest(unittest.TestCase):
    def setUp(self) -> None:
        self.compute = mock.create_autospec(_proxy.Proxy, instance=True)
        self.compute.find_server.return_value = self.compute.get_server.return_value = server()
        self.compute.server_migrations.return_value = []
        self.compute.migrations.return_value = []
        self.api = NovaAPI(self.compute)

    def test_a_server(self) -> None:
        view = self.api.get_instance("web")
        self.assertTrue(self.compute.find_server.call_args.kwargs["all_projects"])
        self.assertEqual(
            (UUID, "web", "running", 512, 2, "compute1"),
            (view.uuid, view.name, view.status, view.memory_mib, view.vcpus, view.host),
        )
        self.assertEqual(["10.0.0.4", "192.0.2.7"], [address.ip for address in view.addresses])
        self.assertEqual(
            [("private", "fa:16:3e:00:00:01")], [(n.source, n.mac) for n in view.nics]
        )
        self.assertIn("disks", view.unknown)

    def test_every_state_of_a_server(self) -> None:
        for expected, vm_state, power, task in (
            ("building", "building", 0, "spawning"),
            ("paused", "paused", 3, None),
            ("stopped", "stopped", 4, None),
            ("suspended", "suspended", 7, None),
            ("stopped", "shelved_offloaded", 4, None),
            ("stopped", "shelved_offloaded", None, None),
            ("crashed", "error", 0, None),
            ("running", "error", 1, None),
            ("deleting", "active", 1, "deleting"),
            ("deleting", "soft-delete", 4, None),
            ("running", "rescued", 1, None),
        ):
            with self.subTest((vm_state, power, task)):
                self.compute.get_server.return_value = server(
                    **{
                        "OS-EXT-STS:vm_state": vm_state,
                        "OS-EXT-STS:power_state": power,
                        "OS-EXT-STS:task_state": task,
                    }
                )
                self.assertEqual(expected, self.api.get_instance("web").status)

    def test_a_server_that_does_not_exist(self) -> None:
        self.compute.find_server.return_value = None
        with self.assertRaises(exception.InstanceNotFound) as caught:
            self.api.get_instance("nix")
        self.assertEqual("nix", caught.exception.instance)
        self.assertIn("openstack server list", caught.exception.remedy)

    def test_errors_have_types(self) -> None:
        for error, expected in (
            (sdk_exceptions.DuplicateResource("two"), exception.InvalidRequest),
            (sdk_exceptions.ForbiddenException("no"), exception.InvalidRequest),
            (sdk_exceptions.NotFoundException("gone"), exception.InvalidState),
            (sdk_exceptions.ConflictException("busy"), exception.InvalidState),
            (sdk_exceptions.HttpException("502"), exception.AgentUnreachable),
        ):
            with self.subTest(error):
                self.compute.find_server.side_effect = error
                with self.assertRaises(expected):
                    self.api.get_instance("web")

    def test_migrations_of_all_servers(self) -> None:
        self.compute.servers.return_value = [server()]
        self.compute.migrations.return_value = [
            migration(id=3, uuid=None, migration_type="resize", status="finished"),
            migration(id=2, migration_type="evacuation", status="done"),
            migration(id=1, instance_uuid=OTHER, status="error", dest_compute=None),
        ]
        found = self.api.list_migrations()
        self.assertEqual(
            [(OTHER, "live", "failed", ""), ("web", "cold", "completed", "compute2")],
            [(view.instance, view.kind, view.state, view.destination) for view in found],
        )
        self.assertEqual("3", found[1].id)

    def test_a_migration_under_way(self) -> None:
        mib = 1024 * 1024
        self.compute.migrations.return_value = [migration(status="running")]
        self.compute.server_migrations.return_value = [
            ServerMigration.existing(
                id=7, uuid=OTHER, server_uuid=UUID, status="running",
                source_compute="compute1", dest_compute="compute2",
                memory_total_bytes=512 * mib, memory_remaining_bytes=128 * mib,
                disk_total_bytes=None, disk_remaining_bytes=None,
            )
        ]  # fmt: skip
        view = self.api.get_migration("web")
        self.assertEqual(
            ("run", "live", 512, 128, None),
            (view.state, view.kind, view.memory_total, view.memory_left, view.disk_left),
        )
        self.api.live_migration_abort("web")
        self.api.live_migration_force_complete("web")
        aborted = self.compute.abort_server_migration.call_args
        self.assertEqual((7, UUID), (aborted.args[0].id, aborted.args[1].id))
        self.assertFalse(aborted.kwargs["ignore_missing"])
        self.assertEqual(7, self.compute.force_complete_server_migration.call_args.args[0].id)

    def test_no_migration(self) -> None:
        for call in (
            self.api.get_migration,
            self.api.live_migration_abort,
            self.api.live_migration_force_complete,
        ):
            with self.subTest(call.__name__), self.assertRaises(exception.InvalidState):
                call("web")

    def test_what_nova_has_no_call_for(self) -> None:
        with self.assertRaises(exception.Unsupported) as caught:
            self.api.set_migration("web", MigrationOptions(bandwidth=1))
        self.assertIn("--host", caught.exception.remedy)
        with self.assertRaises(exception.Unsupported) as caught:
            self.api.live_migration_abort("web", force=True)
        self.assertEqual("--force", caught.exception.field)
        self.compute.abort_server_migration.assert_not_called()
