"""``kvmdriver server ...``: power."""

import argparse

from kvmdriver.cli.base import InstanceCommand


class StartServer(InstanceCommand):
    """Start a stopped instance."""

    def take_action(self, args: argparse.Namespace) -> None:
        self.client.start_instance(args.instance)


class StopServer(InstanceCommand):
    """Shut an instance down, and switch it off if it takes too long."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--timeout",
            type=float,
            metavar="SECONDS",
            help="time for the guest to shut down; 0 switches off at once (virsh destroy)",
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> None:
        self.client.stop_instance(args.instance, timeout=args.timeout)


class RebootServer(InstanceCommand):
    """Reboot an instance."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--hard", action="store_true", help="off and on, without asking it")
        parser.add_argument(
            "--timeout",
            type=float,
            metavar="SECONDS",
            help="until a soft reboot becomes a hard one",
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> None:
        self.client.reboot_instance(args.instance, hard=args.hard, timeout=args.timeout)


class SuspendServer(InstanceCommand):
    """Save an instance's memory to disk and switch it off."""

    def take_action(self, args: argparse.Namespace) -> None:
        self.client.suspend_instance(args.instance)


class ResumeServer(InstanceCommand):
    """Bring a suspended instance back."""

    def take_action(self, args: argparse.Namespace) -> None:
        self.client.resume_instance(args.instance)


class PauseServer(InstanceCommand):
    """Stop an instance's CPUs; its memory stays where it is."""

    def take_action(self, args: argparse.Namespace) -> None:
        self.client.pause_instance(args.instance)


class UnpauseServer(InstanceCommand):
    """Let an instance's CPUs run again."""

    def take_action(self, args: argparse.Namespace) -> None:
        self.client.unpause_instance(args.instance)
