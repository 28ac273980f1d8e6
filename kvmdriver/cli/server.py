"""``kvmdriver server ...``: looking at instances, removing, copying, naming them."""

import argparse
import os
from typing import Any

from kvmdriver import exception
from kvmdriver.cli.base import (
    Addresses,
    Base,
    InstanceCommand,
    ListBase,
    ProgressBar,
    ShowBase,
    instance_rows,
)
from kvmdriver.model import InstanceView

_COLUMNS = ("Name", "Status", "Memory MiB", "vCPUs", "Addresses", "Autostart", "OS", "UUID")


class ListServers(ListBase):
    """List instances."""

    def take_action(self, args: argparse.Namespace) -> Any:
        return _COLUMNS, [_row(view) for view in self.client.list_instances()]


def _row(view: InstanceView) -> tuple[Any, ...]:
    return (
        view.name,
        view.status,
        view.memory_mib,
        view.vcpus,
        Addresses(view.addresses),
        view.autostart,
        view.os_variant or "",
        view.uuid,
    )


class ShowServer(InstanceCommand, ShowBase):
    """Show an instance with its disks, interfaces and addresses."""

    def take_action(self, args: argparse.Namespace) -> Any:
        return instance_rows(self.client.get_instance(args.instance))


class ServerDiagnostics(InstanceCommand, ShowBase):
    """Show the counters of a running instance."""

    def take_action(self, args: argparse.Namespace) -> Any:
        view = self.client.get_diagnostics(args.instance)
        values = view.model_dump(mode="json")
        return tuple(values), tuple(values.values())


class DeleteServer(Base):
    """Remove instances. One that does not exist is an error, unless --if-exists is given.

    An error does not keep the others from being removed.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("instance", metavar="NAME", nargs="+")
        parser.add_argument("--keep-disks", action="store_true", help="leave the disks' files")
        parser.add_argument(
            "--if-exists", action="store_true", help="an instance that does not exist is no error"
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> None:
        for name in args.instance:
            try:
                kept = self.client.terminate_instance(
                    name, keep_disks=args.keep_disks, if_exists=args.if_exists
                )
            except exception.KVMDriverError as error:
                # a hung guest is one thing, a hypervisor or an agent that is away another
                away = exception.AgentUnreachable | exception.HypervisorUnavailable
                if isinstance(error, away) and not isinstance(error, exception.HypervisorTimeout):
                    raise
                self.tell(error)
                self.failed = True
                continue
            for path in kept:
                self.app.stdout.write(f"{path}\n")


class RenameServer(InstanceCommand):
    """Give a stopped instance another name."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NEW-NAME")
        return parser

    def take_action(self, args: argparse.Namespace) -> None:
        self.client.rename_instance(args.instance, args.name)


class CloneServer(InstanceCommand, ShowBase):
    """Copy a stopped instance: own disks, UUID, name and MAC addresses."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NEW-NAME")
        parser.add_argument("--uuid", help="UUID of the clone (default: a random one)")
        return parser

    def take_action(self, args: argparse.Namespace) -> Any:
        with ProgressBar() as bar:
            view = self.client.clone_instance(
                args.instance, args.name, uuid=args.uuid, on_progress=bar
            )
        return instance_rows(view)


class SnapshotServer(InstanceCommand):
    """Write a disk to a new image file; of a running instance, too."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("path", metavar="FILE", help="on the host of the agent")
        parser.add_argument("--disk", metavar="NAME", help="target name (default: the first disk)")
        parser.add_argument("--format", choices=("qcow2", "raw"), default="qcow2")
        return parser

    def take_action(self, args: argparse.Namespace) -> None:
        with ProgressBar() as bar:
            path = self.client.snapshot_instance(
                args.instance,
                os.path.abspath(args.path),
                disk=args.disk,
                image_format=args.format,
                on_progress=bar,
            )
        self.app.stdout.write(f"{path}\n")


class AutostartServer(InstanceCommand):
    """Have an instance start with the host, or not."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("state", choices=("on", "off"))
        return parser

    def take_action(self, args: argparse.Namespace) -> None:
        self.client.set_autostart(args.instance, args.state == "on")
