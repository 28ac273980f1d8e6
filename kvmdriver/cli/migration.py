"""``kvmdriver server migrate`` and ``kvmdriver server migration ...``."""

import argparse
import os
import time
from typing import Any

from tqdm import tqdm

from kvmdriver import exception
from kvmdriver.cli import terminal
from kvmdriver.cli.base import Base, InstanceCommand, ListBase, ProgressBar, ShowBase, rows_of
from kvmdriver.model import MigrationOptions, MigrationView
from kvmdriver.model.migration import ENDED

_LOOK_SECONDS = 0.5
_COLUMNS = (
    "Instance", "Kind", "From", "To", "State", "Left MiB", "MiB/s", "Dirty MiB/s", "Estimate s", "ID"
)  # fmt: skip


def _add_options(parser: argparse.ArgumentParser, *names: str) -> None:
    """Options of [kvm_migration] that one migration can have its own values of."""
    known: dict[str, dict[str, Any]] = {
        "bandwidth": {"type": int, "metavar": "MIB/S", "help": "0 lifts the limit"},
        "downtime": {"type": int, "metavar": "MS", "help": "pause that is tried first"},
        "max-downtime": {"type": int, "metavar": "MS", "help": "longest pause"},
        "completion-timeout": {"type": int, "metavar": "S", "help": "seconds for each GiB"},
        "timeout-action": {"choices": ("abort", "post-copy", "pause")},
        "auto-converge": {"action": argparse.BooleanOptionalAction},
        "post-copy": {"action": argparse.BooleanOptionalAction},
    }
    for name in names:
        parser.add_argument(f"--{name}", **known[name])


def _options(args: argparse.Namespace) -> MigrationOptions:
    values = {name: getattr(args, name, None) for name in MigrationOptions.model_fields}
    return MigrationOptions.parse({k: v for k, v in values.items() if v is not None})


class Migrate(InstanceCommand, ShowBase):
    """Move an instance to another host, while it runs or stopped, or see whether it could."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("destination", metavar="HOST", help="name of the other host's agent")
        parser.add_argument(
            "--check", action="store_true", help="only tell what speaks against it"
        )
        parser.add_argument(
            "--cold", action="store_true", help="move a stopped instance; it stays stopped"
        )
        parser.add_argument(
            "--full-copy",
            action="store_true",
            help="copy local disks with what is in their images, so that they need none there",
        )
        _add_options(
            parser,
            "bandwidth",
            "downtime",
            "max-downtime",
            "completion-timeout",
            "timeout-action",
            "auto-converge",
            "post-copy",
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> Any:
        if args.check:
            found = self.client.check_migration(
                args.instance,
                args.destination,
                kind="cold" if args.cold else "live",
                options=_options(args),
            )
            self.failed = not found.possible
            return rows_of(found)
        with ProgressBar() as bar:
            if args.cold:
                view = self.client.cold_migration(args.instance, args.destination, on_progress=bar)
            else:
                view = self.client.live_migration(
                    args.instance, args.destination, options=_options(args), on_progress=bar
                )
        return rows_of(view)


class ListMigrations(ListBase):
    """List migrations to and from a host."""

    def take_action(self, args: argparse.Namespace) -> Any:
        return _COLUMNS, [_row(view) for view in self.client.list_migrations()]


def _row(view: MigrationView) -> tuple[Any, ...]:
    left = [part for part in (view.memory_left, view.disk_left) if part is not None]
    return (
        view.instance,
        view.kind,
        view.source,
        view.destination,
        view.state,
        round(sum(left), 1) if left else "",
        view.rate or "",
        view.dirty_rate or "",
        "" if view.estimate is None else view.estimate,
        view.id,
    )


class ShowMigration(InstanceCommand, ShowBase):
    """Show the latest migration of an instance: how far it is, and what was decided and why."""

    def take_action(self, args: argparse.Namespace) -> Any:
        return rows_of(self.client.get_migration(args.instance))


class WatchMigration(InstanceCommand):
    """Follow a migration until it ends; 1 when it does not succeed."""

    def take_action(self, args: argparse.Namespace) -> int:
        seen = 0
        with tqdm(unit="MiB", disable=None, file=terminal.progress(), desc=args.instance) as bar:
            while True:
                view = self.client.get_migration(args.instance)
                for decision in view.decisions[seen:]:
                    self.say(decision)
                seen = len(view.decisions)
                _show(bar, view)
                if view.state in ENDED:
                    break
                time.sleep(_LOOK_SECONDS)
        self.app.stdout.write(f"{view.state}\n")
        if view.state != "completed":
            raise exception.MigrationFailed(
                view.error or f"the migration has {view.state}", instance=view.instance
            )
        return 0


def _show(bar: "tqdm[Any]", view: MigrationView) -> None:
    total = (view.memory_total or 0) + (view.disk_total or 0)
    left = (view.memory_left or 0) + (view.disk_left or 0)
    bar.total = round(total, 1) or None
    bar.n = round(total - left, 1)
    estimate = "?" if view.estimate is None else f"{view.estimate:.0f} s"
    bar.set_postfix_str(
        f"{view.state}, {view.rate or 0} MiB/s, dirty {view.dirty_rate or 0} MiB/s, {estimate} left"
    )


class AbortMigration(InstanceCommand):
    """Give a migration up; the instance stays where it is."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--force",
            action="store_true",
            help="end a migration that was cut off: the other host is gone for good, without the guest",
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> None:
        self.client.live_migration_abort(args.instance, force=args.force)


class ForceCompleteMigration(InstanceCommand):
    """Bring a migration to its end: by post-copy where that is permitted, else by a pause."""

    def take_action(self, args: argparse.Namespace) -> None:
        self.client.live_migration_force_complete(args.instance)


class SetMigration(InstanceCommand, Base):
    """Change what a running migration may do."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        _add_options(parser, "bandwidth", "downtime", "max-downtime", "timeout-action")
        return parser

    def take_action(self, args: argparse.Namespace) -> None:
        self.client.set_migration(args.instance, _options(args))


class MoveDisk(InstanceCommand, ShowBase):
    """Move a disk to another directory of its host, or to another format, while the guest runs."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("disk", metavar="DISK", help="target name, e.g. vda")
        parser.add_argument("--directory", metavar="PATH", help="default: where it is")
        parser.add_argument("--disk-format", choices=("qcow2", "raw"), help="default: as it is")
        return parser

    def take_action(self, args: argparse.Namespace) -> Any:
        directory = None if args.directory is None else os.path.abspath(args.directory)
        with ProgressBar() as bar:
            view = self.client.move_disk(
                args.instance,
                args.disk,
                directory=directory,
                disk_format=args.disk_format,
                on_progress=bar,
            )
        return rows_of(view)
