"""What libvirt is asked for, and what its answers mean."""

import unittest

import libvirt
from lxml import etree

from kvmdriver.hypervisor.migration import JobProgress, MigrationSettings, presence

MIB = 1024 * 1024
XML = etree.Element("domain")


def settings(**fields: object) -> MigrationSettings:
    return MigrationSettings(uri="qemu+tls://kvm2/system", definition=XML, **fields)  # type: ignore[arg-type]


class SettingsTest(unittest.TestCase):
    def test_plain(self) -> None:
        flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER
        self.assertEqual(flags, settings().flags())
        self.assertEqual({libvirt.VIR_MIGRATE_PARAM_DEST_XML}, set(settings().parameters()))

    def test_each_wish_has_its_flag(self) -> None:
        for fields, flag in (
            ({"native_tls": True}, libvirt.VIR_MIGRATE_TLS),
            ({"tunnelled": True}, libvirt.VIR_MIGRATE_TUNNELLED),
            ({"auto_converge": True}, libvirt.VIR_MIGRATE_AUTO_CONVERGE),
            ({"post_copy": True}, libvirt.VIR_MIGRATE_POSTCOPY),
            ({"parallel_connections": 2}, libvirt.VIR_MIGRATE_PARALLEL),
            ({"disks": ("vda",)}, libvirt.VIR_MIGRATE_NON_SHARED_INC),
            ({"disks": ("vda",), "full_copy": True}, libvirt.VIR_MIGRATE_NON_SHARED_DISK),
            (
                {"hand_over": True},
                libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE,
            ),
        ):
            self.assertEqual(settings().flags() | flag, settings(**fields).flags(), fields)

    def test_addresses_and_ports(self) -> None:
        found = settings(address="2001:db8::1", port=50100, disks=("vda",), disk_port=50101)
        values = found.parameters()
        self.assertEqual("tcp://[2001:db8::1]:50100", values[libvirt.VIR_MIGRATE_PARAM_URI])
        self.assertEqual(50101, values[libvirt.VIR_MIGRATE_PARAM_DISKS_PORT])
        self.assertEqual(["vda"], values[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS])

    def test_a_tunnel_has_no_address_of_its_own(self) -> None:
        values = settings(address="192.0.2.1", tunnelled=True).parameters()
        self.assertNotIn(libvirt.VIR_MIGRATE_PARAM_URI, values)

    def test_the_limit_holds_after_post_copy_too(self) -> None:
        values = settings(bandwidth=50, post_copy=True).parameters()
        self.assertEqual(50, values[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH])
        self.assertEqual(50, values[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH_POSTCOPY])


class ProgressTest(unittest.TestCase):
    def test_units(self) -> None:
        found = JobProgress.from_stats(
            {
                "type": libvirt.VIR_DOMAIN_JOB_UNBOUNDED,
                "operation": libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT,
                "memory_total": 512 * MIB,
                "memory_dirty_rate": 2560,
                "memory_page_size": 4096,
                "disk_remaining": 3 * MIB,
                "downtime": 90,
            }
        )
        assert found is not None
        self.assertEqual((512, 10, 3, 90), (found.memory_total, found.dirty_rate, found.disk_left, found.downtime))  # fmt: skip

    def test_other_jobs_are_none_of_ours(self) -> None:
        self.assertIsNone(JobProgress.from_stats({"type": libvirt.VIR_DOMAIN_JOB_NONE}))
        for operation in (
            libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN,
            libvirt.VIR_DOMAIN_JOB_OPERATION_SAVE,
        ):
            stats = {"type": libvirt.VIR_DOMAIN_JOB_UNBOUNDED, "operation": operation}
            self.assertIsNone(JobProgress.from_stats(stats))


class PresenceTest(unittest.TestCase):
    def test_states_and_reasons(self) -> None:
        for state, reason, expected in (
            (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_MIGRATED, "on"),
            (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER, "on"),
            (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION, "handed-over"),
            (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY, "post-copy"),
            (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED, "lost"),
            (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED, "off-migrated"),
            (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED, "crashed"),
            (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN, "off"),
        ):
            self.assertEqual(expected, presence(state, reason))
