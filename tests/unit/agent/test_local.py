"""The agent in the process of the command line."""

import tempfile
import unittest

from oslo_config import cfg

from kvmdriver import conf as options
from kvmdriver import exception
from kvmdriver.agent.local import LocalAgent, use_embedded


class LocalAgentTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="kd", dir="/tmp")
        self.addCleanup(directory.cleanup)
        self.conf = options.register_opts(cfg.ConfigOpts())
        self.conf([], project="kvmdriver", default_config_files=[])
        self.conf.set_override("instances_path", f"{directory.name}/instances", "kvm_storage")

    def test_no_other_hypervisor_takes_the_place_of_one_that_does_not_answer(self) -> None:
        uri = "qemu+unix:///system?socket=/nowhere"
        self.conf.set_override("uri", uri, "kvm")
        with self.assertRaises(exception.HypervisorUnavailable) as caught:
            LocalAgent(self.conf)
        self.assertEqual(("kvm.uri", uri), (caught.exception.field, caught.exception.value))
        self.assertIn("libvirtd", caught.exception.remedy)
        self.assertIn("--embedded", caught.exception.remedy)

    def test_an_embedded_one_is_asked_for_by_name(self) -> None:
        use_embedded(self.conf)
        self.assertTrue(self.conf.kvm.uri.startswith("qemu:///embed?root="))

    def test_an_agent_on_the_bus_has_its_own(self) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
            file.write("[DEFAULT]\ntransport_url = rabbit://a:b@host/\n")
            file.flush()
            conf = options.register_opts(cfg.ConfigOpts())
            conf([], project="kvmdriver", default_config_files=[file.name])
            with self.assertRaises(exception.ConfigurationError) as caught:
                use_embedded(conf)
        self.assertEqual("--embedded", caught.exception.field)
