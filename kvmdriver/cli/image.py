"""``kvmdriver image cache ...``: the images that a host keeps for its instances."""

import argparse
from typing import Any

from kvmdriver.cli.base import Base, ListBase, Texts

_COLUMNS = ("Name", "Size MiB", "On disk MiB", "Last used", "Used by")


class ListImageCache(ListBase):
    """List the images that the host keeps, those first that were not used for the longest time.

    An image is kept unpacked, under a name made from its checksum and format or, where none was
    given, from its file. Disks in format qcow2 hold only what differs from it, so it stays as long
    as there is one.
    """

    def take_action(self, args: argparse.Namespace) -> Any:
        return _COLUMNS, [
            (view.name, view.size_mib, view.disk_mib, view.last_used, Texts(view.used_by))
            for view in self.client.list_cached_images()
        ]


class PruneImageCache(Base):
    """Remove images that the host keeps; one that is needed later is fetched again.

    The names of what was removed are printed. An image in use is refused.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "name", metavar="NAME", nargs="*", help="as in: kvmdriver image cache list"
        )
        parser.add_argument(
            "--unused", action="store_true", help="all images that no instance uses"
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> None:
        for name in self.client.prune_image_cache(args.name, unused=args.unused):
            self.app.stdout.write(f"{name}\n")
