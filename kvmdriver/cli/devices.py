"""``kvmdriver server ...``: memory, vCPUs, disks and interfaces of instances."""

import argparse
from typing import Any

from kvmdriver.cli import parsing
from kvmdriver.cli.base import InstanceCommand, ProgressBar, ShowBase, argument, rows_of
from kvmdriver.model import Disk, Nic


class SetMemory(InstanceCommand, ShowBase):
    """Change an instance's memory: now while it runs, at most while it is stopped."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "memory", metavar="NOW[:MAX]", type=argument(parsing.memory, "a memory size")
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> Any:
        return rows_of(self.client.set_memory(args.instance, **args.memory))


class SetVcpus(InstanceCommand, ShowBase):
    """Change an instance's number of vCPUs: now while it runs, at most while it is stopped."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "vcpus", metavar="NOW[:MAX]", type=argument(parsing.vcpus, "a number of vCPUs")
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> Any:
        return rows_of(self.client.set_vcpus(args.instance, **args.vcpus))


class AttachDisk(InstanceCommand, ShowBase):
    """Make a disk and plug it in."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "disk",
            metavar="SIZE|KEY=VALUE,...",
            type=argument(parsing.disk, "a disk"),
            help="as for server create --disk",
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> Any:
        with ProgressBar() as bar:
            view = self.client.attach_volume(
                args.instance, Disk.parse(args.disk, prefix="disk."), on_progress=bar
            )
        return rows_of(view)


class DetachDisk(InstanceCommand):
    """Unplug a disk; its file stays unless --delete is given."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("disk", metavar="DISK", help="target name, e.g. vdb")
        parser.add_argument("--delete", action="store_true", help="remove its file")
        return parser

    def take_action(self, args: argparse.Namespace) -> None:
        kept = self.client.detach_volume(args.instance, args.disk, delete=args.delete)
        if kept:
            self.app.stdout.write(f"{kept}\n")


class AttachNic(InstanceCommand, ShowBase):
    """Plug in an interface."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "nic",
            metavar="NETWORK|bridge=NAME|user[,KEY=VALUE...]",
            type=argument(parsing.nic, "a network"),
            help="as for server create --network",
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> Any:
        nic = Nic.parse(args.nic, prefix="nic.")
        return rows_of(self.client.attach_interface(args.instance, nic))


class DetachNic(InstanceCommand):
    """Unplug an interface."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("mac", metavar="MAC")
        return parser

    def take_action(self, args: argparse.Namespace) -> None:
        self.client.detach_interface(args.instance, args.mac)
