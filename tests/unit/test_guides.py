"""The commands in README and documentation: each says what it needs, and ours exist as written."""

import contextlib
import io
import unittest

from kvmdriver.cli.shell import Shell
from tests import commands


class MarkerTest(unittest.TestCase):
    def test_every_block_says_what_it_needs(self) -> None:
        found = 0
        for path in commands.documents():
            for block in commands.blocks(path):
                found += 1
                with self.subTest(block.place):
                    self.assertIn(block.needs, commands.KINDS, "no marker, or an unknown one")
                    self.assertEqual(block.needs == "never", bool(block.reason), "a reason")
        self.assertGreater(found, 40)

    def test_blocks_are_found_with_their_markers(self) -> None:
        text = (
            "A.\n\n.. needs: laboratory\n.. code-block:: shell\n\n   one \\\n      two  # three\n\n"
            ".. needs: never: why\n\nThis::\n\n    four\n\nThat::\n\n    five\n\n"
            ".. code-block:: ini\n\n   six = 6\n\n::\n\n   [DEFAULT]\n   seven = 7\n"
        )
        blocks = list(commands.parse(text, "page"))
        self.assertEqual(
            [("laboratory", ""), ("never", "why"), (None, "")],
            [(block.needs, block.reason) for block in blocks],
        )
        self.assertEqual([["one", "two"]], list(blocks[0].commands()))
        self.assertEqual("page:4", blocks[0].place)


class CommandTest(unittest.TestCase):
    def test_our_commands_exist_with_their_arguments(self) -> None:
        seen = 0
        for path in commands.documents():
            for block in commands.blocks(path):
                for words in block.commands():
                    if words[0] == "kvmdriver":
                        seen += 1
                        with self.subTest(f"{block.place}: {' '.join(words)}"):
                            self._parse(words[1:])
        self.assertGreater(seen, 40)

    def test_a_wrong_command_is_seen(self) -> None:
        with self.assertRaises(AssertionError):
            self._parse(["server", "reboot", "web", "--softly"])
        with self.assertRaises(AssertionError):
            self._parse(["server", "fly", "web"])

    def _parse(self, words: list[str]) -> None:
        """Parse a command as the shell does, without carrying it out."""
        if "||" in words:
            words = words[: words.index("||")]
        shell = Shell()
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                _, rest = shell.parser.parse_known_args(words)
                factory, name, arguments = shell.command_manager.find_command(rest)
                factory(shell, None, cmd_name=name).get_parser(name).parse_args(arguments)
        except (SystemExit, ValueError) as error:
            self.fail(f"{error}: {said.getvalue()}")
