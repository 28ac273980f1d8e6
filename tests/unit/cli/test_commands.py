"""Every command can be looked at: options of its own do not collide with those of cliff."""

import configparser
import importlib
import pathlib
import unittest
from unittest import mock

SETUP = pathlib.Path(__file__).parents[3] / "setup.cfg"


class CommandsTest(unittest.TestCase):
    def test_every_parser_can_be_made(self) -> None:
        setup = configparser.ConfigParser()
        setup.read(SETUP)
        lines = setup["entry_points"]["kvmdriver.cli"].split("\n")
        commands = dict(line.split(" = ") for line in lines if line)
        self.assertGreater(len(commands), 30)
        for name, place in commands.items():
            module, _, command = place.partition(":")
            made = getattr(importlib.import_module(module), command)(mock.Mock(), None)
            with self.subTest(name):
                parser = made.get_parser(f"kvmdriver {name}")
                self.assertTrue(made.get_description(), "it does not say what it does")
                self.assertIn(name.split("_")[-1], parser.prog)
