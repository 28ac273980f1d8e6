import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

from oslo_config import cfg

from kvmdriver import conf

TOP = pathlib.Path(__file__).parents[3]
# whose options are in the files that come with kvmdriver
NAMESPACES = ("kvmdriver", "oslo.messaging", "oslo.concurrency", "oslo.log")


def validate(text: str) -> subprocess.CompletedProcess[str]:
    """What oslo-config-validator says about a file of options."""
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(text)
        file.flush()
        return subprocess.run(
            [
                pathlib.Path(sys.executable).parent / "oslo-config-validator",
                "--fatal-warnings", "--input-file", file.name,
                *(f"--namespace={name}" for name in NAMESPACES),
            ],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip


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


class FilesTest(unittest.TestCase):
    """The files that operators copy, with what stands in comments switched on."""

    def test_they_are_valid(self) -> None:
        for name in (
            "etc/kvmdriver/kvmdriver.conf.sample",
            "etc/rabbitmq/agent.conf",
            "etc/rabbitmq/client.conf",
            "packaging/kvmdriver.conf",
        ):
            with self.subTest(name):
                text = re.sub(r"(?m)^#([a-z_]+ ?= ?)", r"\1", (TOP / name).read_text())
                done = validate(text)
                self.assertEqual(0, done.returncode, done.stderr)

    def test_a_mistake_would_be_seen(self) -> None:
        done = validate("[kvm_storage]\ninstance_path = /srv\n")
        self.assertEqual(1, done.returncode)
        self.assertIn("kvm_storage/instance_path is not part of the sample config", done.stderr)
