import pathlib
import subprocess
import sys
import tempfile
import unittest

from oslo_config import cfg

from kvmdriver import conf

TOP = pathlib.Path(__file__).parents[3]


class ConfTest(unittest.TestCase):
    def test_every_option_has_help(self) -> None:
        for group, options in conf.list_opts():
            for option in options:
                self.assertGreater(len(option.help or ""), 40, f"{group.name}.{option.name}")

    def test_register(self) -> None:
        options = conf.register_opts(cfg.ConfigOpts())
        options([], project="kvmdriver", default_config_files=[])
        self.assertEqual("127.0.0.1", options.kvm_console.listen)

    def test_what_one_overrides_is_not_overridden_for_others(self) -> None:
        first, second = (conf.register_opts(cfg.ConfigOpts()) for _ in range(2))
        first.set_override("virt_type", "qemu", "kvm")
        self.assertEqual("kvm", second.kvm.virt_type)

    def test_the_sample_is_up_to_date(self) -> None:
        sample = TOP / "etc/kvmdriver/kvmdriver.conf.sample"
        with tempfile.TemporaryDirectory() as directory:
            fresh = pathlib.Path(directory) / "sample"
            subprocess.run(
                [
                    pathlib.Path(sys.executable).parent / "oslo-config-generator",
                    "--namespace", "kvmdriver", "--wrap-width", "96", "--output-file", fresh,
                ],
                check=True, capture_output=True,
            )  # fmt: skip
            self.assertEqual(fresh.read_text(), sample.read_text())
