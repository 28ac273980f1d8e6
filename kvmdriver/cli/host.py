"""``kvmdriver host ...`` and ``kvmdriver os ...``."""

import argparse
from typing import Any

from kvmdriver.cli.base import ListBase, ShowBase, rows_of

_COLUMNS = ("ID", "Name", "Version", "Family", "Released", "End of life")


class ShowHost(ShowBase):
    """Show the host: what it has, and what is in use."""

    def take_action(self, args: argparse.Namespace) -> Any:
        return rows_of(self.client.get_host())


class ListOs(ListBase):
    """List operating systems for server create --os."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "text", nargs="?", default="", help="only those whose id or name contains this"
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> Any:
        return _COLUMNS, [
            (
                view.short_id,
                view.name,
                view.version or "",
                view.family or "",
                view.released or "",
                view.end_of_life or "",
            )
            for view in self.client.list_systems(args.text)
        ]
