"""``kvmdriver server console ...``: the serial console, its log, the screen."""

import argparse
import os
import selectors
import socket
import sys
import termios
import tty

from kvmdriver import exception
from kvmdriver.cli import terminal
from kvmdriver.cli.base import InstanceCommand

_ESCAPE = b"\x1d"  # Ctrl-], as in virsh and telnet
_CHUNK = 4096


class Console(InstanceCommand):
    """Talk to an instance's serial console; Ctrl-] leaves it."""

    def take_action(self, args: argparse.Namespace) -> None:
        host, port, token = self.client.get_serial_console(args.instance)
        try:
            connection = socket.create_connection((host, port), timeout=10)
        except OSError as error:
            raise exception.AgentUnreachable(
                f"cannot reach the console on {host}:{port}: {error}",
                remedy="consoles listen on the agent's host only; run this there, or through ssh -L",
            ) from None
        with connection:
            connection.sendall(token.encode() + b"\n")
            connection.settimeout(None)
            self.say("Connected. Escape character is ^]")
            _talk(connection, sys.stdin.fileno(), self.app.stdout.fileno())
            self.say("\nThe console has ended")


def _talk(connection: socket.socket, keyboard: int, screen: int) -> None:
    saved = termios.tcgetattr(keyboard) if os.isatty(keyboard) else None
    try:
        if saved is not None:
            tty.setraw(keyboard)
        with selectors.DefaultSelector() as selector:
            selector.register(connection, selectors.EVENT_READ)
            selector.register(keyboard, selectors.EVENT_READ)
            while True:
                for key, _events in selector.select():
                    if key.fileobj is connection:
                        data = connection.recv(_CHUNK)
                        if not data:
                            return
                        os.write(screen, data)
                    else:
                        data = os.read(keyboard, _CHUNK)
                        before, escape, _after = data.partition(_ESCAPE)
                        connection.sendall(before)
                        if escape or not data:
                            return
    finally:
        if saved is not None:
            termios.tcsetattr(keyboard, termios.TCSADRAIN, saved)


class ConsoleLog(InstanceCommand):
    r"""Print the end of what an instance has written to its serial console.

    On a terminal colours stay, and other control characters of the guest are shown as \u001b. A pipe
    or a file gets what the guest has written.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--kib", type=int, metavar="KIB", help="how much of it")
        parser.add_argument("--lines", type=int, metavar="LINES", help="only the last lines")
        parser.add_argument(
            "--raw",
            action="store_true",
            help="send the guest's control characters to the terminal, which carries them out",
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> None:
        output = self.client.get_console_output(args.instance, kib=args.kib)
        if args.lines is not None:
            output = "".join(output.splitlines(keepends=True)[-args.lines :])
        stdout = self.app.stdout
        raw = stdout.raw if isinstance(stdout, terminal.Screen) else stdout
        to_terminal = raw.isatty() and not args.raw
        raw.write(terminal.printable_log(output) if to_terminal else output)


class VncUrl(InstanceCommand):
    """Print the URL of an instance's screen, for a VNC viewer."""

    def take_action(self, args: argparse.Namespace) -> None:
        self.app.stdout.write(f"{self.client.get_vnc_console(args.instance)}\n")


class Screenshot(InstanceCommand):
    """Write a picture of an instance's screen to a PNG file."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("path", metavar="FILE.png")
        return parser

    def take_action(self, args: argparse.Namespace) -> None:
        picture = self.client.get_screenshot(args.instance)
        try:
            with open(args.path, "wb") as target:
                target.write(picture)
        except OSError as error:
            raise exception.StorageError(
                f"cannot write the picture: {error}", field="path", value=args.path
            ) from None
