"""What reaches a terminal: text, and no command to it."""

import ast
import io
import json
import pathlib
import unittest

import yaml

import kvmdriver.cli
from kvmdriver.cli.terminal import Screen, printable, printable_log

ESCAPES = "\x1b]0;OWNED\x07\x1b[2J\x9b31m\x7f\r\b\u202emoc\u2066.\u200f\u2028"


class PrintableTest(unittest.TestCase):
    def test_nothing_that_a_terminal_carries_out(self) -> None:
        shown = printable(f"a{ESCAPES}b\n\tc")
        self.assertEqual(
            r"a\u001b]0;OWNED\u0007\u001b[2J\u009b31m\u007f\u000d\u0008\u202emoc\u2066.\u200f\u2028b"
            "\n\tc",
            shown,
        )
        everything = "".join(map(chr, range(0x3000))) + "".join(map(chr, range(0xD800, 0xE000)))
        printable(everything).encode()
        self.assertEqual(
            {"\n", "\t"}, {c for c in printable(everything) if ord(c) < 32 or 127 <= ord(c) < 160}
        )

    def test_other_scripts_stay(self) -> None:
        for text in ("Grüße", "日本語", "عربي", "🙂", "a\u00a0b"):
            self.assertEqual(text, printable(text))

    def test_a_document_means_the_same(self) -> None:
        screen = Screen(io.StringIO())
        json.dump({"name": ESCAPES}, screen, ensure_ascii=False)
        self.assertEqual({"name": ESCAPES}, json.loads(screen.getvalue()))
        screen = Screen(io.StringIO())
        yaml.safe_dump({"name": ESCAPES}, screen)
        self.assertEqual({"name": ESCAPES}, yaml.safe_load(screen.getvalue()))

    def test_a_progress_bar_returns_to_its_line(self) -> None:
        screen = Screen(io.StringIO(), keep="\r")
        screen.write("\rcopy: 5 %\x1b[2J")
        self.assertEqual("\rcopy: 5 %\\u001b[2J", screen.getvalue())


class LogTest(unittest.TestCase):
    def test_colours_stay(self) -> None:
        for text in (
            "\x1b[32mOK\x1b[0m",
            "\x1b[1;31mFAILED",
            "\x1b[m",
            "\x1b[38;5;208mx",
            "\x1b[48;2;1;2;3mx",
        ):
            self.assertEqual(text + "\x1b[0m", printable_log(text))

    def test_nothing_else_does(self) -> None:
        self.assertEqual(printable(ESCAPES), printable_log(ESCAPES))
        for text in ("\x1b[8mhidden", "\x1b[2K", "\x1b[5n", "\x1b[1;8m", "\x1b[32", "\x1b[32\n1m"):
            self.assertEqual(printable(text), printable_log(text))

    def test_lines_of_a_serial_port(self) -> None:
        self.assertEqual("a\nb\\u000dc", printable_log("a\r\nb\rc"))


class OneWayOutTest(unittest.TestCase):
    def test_commands_write_through_the_screen(self) -> None:
        directory = pathlib.Path(kvmdriver.cli.__file__).parent
        found = []
        for path in directory.glob("*.py"):
            if path.name == "terminal.py":
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                direct = isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr")
                if direct and isinstance(node.value, ast.Name) and node.value.id == "sys":
                    found.append(f"{path.name}:{node.lineno}")
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
                    found.append(f"{path.name}:{node.lineno}")
        self.assertEqual([], found, "written past kvmdriver.cli.terminal")
