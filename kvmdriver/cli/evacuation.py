"""``kvmdriver server evacuate``."""

import argparse
import os
from typing import Any

from kvmdriver import exception
from kvmdriver.cli.base import ListBase, ProgressBar
from kvmdriver.model.evacuation import Description


class Evacuate(ListBase):
    """Bring instances of a host that has died back on this one (or on that of --host).

    Where hosts share their instances_path, nothing but what was in memory is lost.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("source", metavar="DEAD_HOST", help="name of its agent")
        parser.add_argument(
            "instances",
            metavar="INSTANCE",
            nargs="*",
            help="default: all whose directories are here",
        )
        parser.add_argument(
            "--list", action="store_true", help="only tell which instances could be brought back"
        )
        parser.add_argument(
            "--fenced",
            action="store_true",
            help="you have made sure that the host is off and stays off until this is done",
        )
        parser.add_argument(
            "--description",
            metavar="FILE",
            help="instance.json of the instance, from a backup of its directory, for hosts "
            "that do not share it",
        )
        parser.add_argument(
            "--rebuild",
            action="store_true",
            help="with --description: make its disks afresh, from their images or blank",
        )
        parser.add_argument("--no-start", action="store_true", help="leave them switched off")
        return parser

    def take_action(self, args: argparse.Namespace) -> Any:
        if args.list:
            left = self.client.left_instances(args.source)
            return ("Name", "UUID", "Autostart"), [(i.name, i.uuid, i.autostart) for i in left]
        given = None if args.description is None else _read(args.description)
        names = args.instances
        if not names:
            left = self.client.left_instances(args.source)
            names = [i.uuid for i in left] if given is None else [given.instance.uuid]
        rows: list[tuple[str, ...]] = []
        for name in names:
            try:
                with ProgressBar() as bar:
                    view = self.client.evacuate(
                        name,
                        args.source,
                        fenced=args.fenced,
                        description=given,
                        rebuild=args.rebuild,
                        start=not args.no_start,
                        on_progress=bar,
                    )
                rows.append((view.name, view.uuid, view.status, ""))
            except exception.KVMDriverError as error:
                if len(names) == 1:
                    raise
                self.failed = True  # the others are still brought back
                rows.append((name, "", "", error.describe()))
        return ("Name", "UUID", "Status", "Error"), rows


def _read(path: str) -> Description:
    try:
        with open(os.path.expanduser(path), "rb") as file:
            return Description.from_json(file.read())
    except OSError as error:
        raise exception.InvalidRequest(
            f"cannot be read: {error.strerror}", field="--description", value=path
        ) from None
