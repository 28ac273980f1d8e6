"""What one migration may do, from the configuration and its own options."""

import unittest

from oslo_config import cfg

from kvmdriver import conf as options
from kvmdriver import exception
from kvmdriver.guest.migration.policy import policy_of
from kvmdriver.model import MigrationOptions

GIB = 1024**3


class PolicyTest(unittest.TestCase):
    def setUp(self) -> None:
        conf = options.register_opts(cfg.ConfigOpts())
        conf([])
        self.conf = conf.kvm_migration
        for name, value in (
            ("bandwidth", 100),
            ("downtime", 300),
            ("max_downtime", 1000),
            ("completion_timeout", 10),
            ("timeout_action", "abort"),
        ):
            conf.set_override(name, value, "kvm_migration")

    def test_the_configuration_counts_where_the_migration_says_nothing(self) -> None:
        policy = policy_of(self.conf, MigrationOptions(), 4096)
        self.assertEqual(
            (100, 300, 1000), (policy.bandwidth, policy.downtime, policy.max_downtime)
        )
        self.assertEqual("abort", policy.timeout_action)

    def test_options_of_the_migration_win(self) -> None:
        chosen = MigrationOptions(bandwidth=7, timeout_action="pause", post_copy=True)
        policy = policy_of(self.conf, chosen, 4096)
        self.assertEqual(
            (7, "pause", True), (policy.bandwidth, policy.timeout_action, policy.post_copy)
        )

    def test_time_grows_with_what_is_sent(self) -> None:
        for memory_mib, disk_bytes, seconds in (
            (512, 0, 20),  # at least what two GiB get
            (4096, 0, 40),
            (4096, 6 * GIB, 100),
        ):
            policy = policy_of(self.conf, MigrationOptions(), memory_mib, disk_bytes)
            self.assertEqual(seconds, policy.timeout)
        self.assertIsNone(
            policy_of(self.conf, MigrationOptions(completion_timeout=0), 4096).timeout
        )

    def test_a_longer_downtime_raises_the_configured_limit(self) -> None:
        policy = policy_of(self.conf, MigrationOptions(downtime=2000), 4096)
        self.assertEqual((2000, 2000), (policy.downtime, policy.max_downtime))

    def test_options_that_contradict_each_other(self) -> None:
        with self.assertRaises(exception.InvalidRequest) as caught:
            policy_of(self.conf, MigrationOptions(downtime=2000, max_downtime=1000), 4096)
        self.assertIn("max_downtime", str(caught.exception))
