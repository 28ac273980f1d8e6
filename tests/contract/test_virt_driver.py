"""Nova's own cases for every virt driver, on this driver with real libvirt and QEMU.

See tests.contract.base for what is real.
"""

import logging
import os
from typing import Any
from unittest import mock

import fixtures
from nova import exception, objects, test
from nova.tests.unit import utils as test_utils
from nova.tests.unit.virt import test_virt_drivers as cases

from kvmdriver.nova import volumes
from tests.contract.base import DRIVER, RealHost

# What kvmdriver does not have, nor Nova's in-tree driver: see nova's support matrix.
NOT_IMPLEMENTED = {
    "soft_delete",
    "restore",
    "get_mks_console",
    "host_power_action",
    "set_host_enabled",
}


class _Said(logging.Handler):
    """Collects which methods nova's cases found missing."""

    def __init__(self) -> None:
        super().__init__()
        self.missing: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if "does not implement" in record.getMessage() and isinstance(record.args, dict):
            self.missing.add(record.args["method"])


class ContractTest(RealHost, cases._VirtDriverTestCase, test.TestCase):
    def setUp(self) -> None:
        self.driver_module = DRIVER
        self.said = _Said()
        logging.getLogger(cases.__name__).addHandler(self.said)
        self.addCleanup(logging.getLogger(cases.__name__).removeHandler, self.said)
        super().setUp()
        self.start_driver(self.connection, self.image_service)

    def tearDown(self) -> None:
        super().tearDown()
        self.assertEqual(set(), self.said.missing - NOT_IMPLEMENTED)

    # Where nova's case holds for any driver only with fakes, the same is asked for real.

    test_live_migration = None
    test_live_migration_force_complete = None

    def test_set_admin_password(self) -> None:
        instance, _ = self._get_running_instance()
        self.assertRaises(
            exception.QemuGuestAgentNotEnabled,
            self.connection.set_admin_password,
            instance,
            "secret",
        )

    def test_migrate_disk_and_power_off(self) -> None:
        instance, network_info = self._get_running_instance()
        flavor = test_utils.get_test_flavor()
        arguments = (self.ctxt, instance, "elsewhere", flavor, network_info)
        self.assertRaises(
            exception.InstanceFaultRollback,
            self.connection.migrate_disk_and_power_off,
            *arguments,
        )
        arguments = (self.ctxt, instance, self.connection.get_host_ip_addr(), flavor, network_info)
        self.assertIn("disk", self.connection.migrate_disk_and_power_off(*arguments))

    def test_unrescue_unrescued_instance(self) -> None:
        instance, _ = self._get_running_instance()
        self.assertRaises(
            exception.InstanceInvalidState, self.connection.unrescue, self.ctxt, instance
        )

    def test_unrescue_rescued_instance(self) -> None:
        instance, network_info = self._get_running_instance()
        self.connection.rescue(
            self.ctxt, instance, network_info, objects.ImageMeta.from_dict({}), "", None, None
        )
        self.connection.unrescue(self.ctxt, instance)
        files = os.listdir(self.connection.node.layout(instance).directory)
        self.assertEqual([], [name for name in files if "rescue" in name])

    def test_block_stats(self) -> None:
        instance, _ = self._get_running_instance()
        self.assertEqual(5, len(self.connection.block_stats(instance, "vda")))
        self.assertRaises(exception.DiskNotFound, self.connection.block_stats, instance, "someid")

    def test_get_console_output(self) -> None:
        instance, _ = self._get_running_instance()
        self.assertIsInstance(self.connection.get_console_output(self.ctxt, instance), bytes)

    def test_get_spice_console(self) -> None:
        self.flags(enabled=True, group="spice")
        super().test_get_spice_console()

    def test_get_device_name_for_instance(self) -> None:
        instance, _ = self._get_running_instance()
        bdm = objects.BlockDeviceMapping(device_type=None, disk_bus=None)
        name = self.connection.get_device_name_for_instance(instance, [], bdm)
        self.assertRegex(name, "^/dev/vd[b-z]$")
        self.assertEqual(("virtio", "disk"), (bdm.disk_bus, bdm.device_type))

    def _with_files(self) -> Any:
        """Volumes of nova's kind "fake" become files of 1 MiB."""

        def connect(_node: Any, connection_info: dict[str, Any], _uuid: str) -> None:
            path = os.path.join(self.root, f"volume-{id(connection_info)}")
            with open(path, "wb") as file:
                file.truncate(1 << 20)
            connection_info["data"]["device_path"] = path

        self.useFixture(fixtures.MonkeyPatch("kvmdriver.nova.volumes.connect", connect))
        # these cases of nova's have no context, without which its database cannot be asked
        self.useFixture(
            fixtures.MonkeyPatch(
                "kvmdriver.nova.device_metadata.build",
                lambda *_arguments: objects.InstanceDeviceMetadata(),
            )
        )
        return mock.patch.dict(volumes.KINDS, {"fake": volumes.Kind(None, "file")})

    def test_swap_volume(self) -> None:
        with self._with_files():
            super().test_swap_volume()

    def test_attach_detach_volume(self) -> None:
        with self._with_files():
            super().test_attach_detach_volume()

    def test_attach_detach_different_power_states(self) -> None:
        with self._with_files():
            super().test_attach_detach_different_power_states()
