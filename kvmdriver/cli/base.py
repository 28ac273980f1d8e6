"""What commands share: the client, a progress bar, and argument types."""

import argparse
from collections.abc import Callable
from typing import Any, TypeVar, cast

from cliff import columns, command, lister, show
from oslo_config import cfg
from tqdm import tqdm

from kvmdriver import exception
from kvmdriver.agent.client import ComputeAPI
from kvmdriver.cli import terminal
from kvmdriver.cli.connection import Connection
from kvmdriver.model import Address, InstanceView, Model, ProgressView

T = TypeVar("T")


class Base(command.Command):
    """A command that talks to an agent."""

    failed = False
    """Set by a command that prints an answer and has failed: its exit status is 1."""

    @property
    def client(self) -> ComputeAPI:
        return cast(ComputeAPI, getattr(self.app, "client"))  # noqa: B009 known to Shell only

    @property
    def connection(self) -> Connection:
        return cast(Connection, getattr(self.app, "connection"))  # noqa: B009 known to Shell only

    @property
    def conf(self) -> cfg.ConfigOpts:
        return self.connection.conf

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Carry the command out; 1 with the error on standard error when it fails."""
        try:
            return super().run(parsed_args) or int(self.failed)
        except exception.KVMDriverError as error:
            self.tell(error)
            return 1

    def tell(self, error: exception.KVMDriverError) -> None:
        """Show an error."""
        self.app.stderr.write(f"Error: {error.describe()}\n  code: {error.code}\n")

    def say(self, text: str) -> None:
        """Tell the user, unless asked to be quiet. Standard output is kept for results."""
        if self.app_args is None or self.app_args.verbose_level:
            self.app.stderr.write(f"{text}\n")


class InstanceCommand(Base):
    """A command about one instance."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("instance", metavar="NAME", help="name or UUID of the instance")
        return parser


class ShowBase(Base, show.ShowOne):
    """A command that answers with one thing."""


class ListBase(Base, lister.Lister):
    """A command that answers with a table."""


class ProgressBar:
    """Shows the progress of an operation on a terminal; silent elsewhere."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._stage = ""

    def __call__(self, view: ProgressView) -> None:
        if view.stage != self._stage:
            self.close()
            self._stage = view.stage
            in_bytes = view.unit == "bytes"
            self._bar = tqdm(
                total=view.total,
                desc=terminal.printable(view.stage),
                unit="B" if in_bytes else "",
                unit_scale=in_bytes,
                unit_divisor=1024,
                disable=None,
                leave=True,
                file=terminal.progress(),
            )
        if self._bar is not None:
            self._bar.total = view.total
            self._bar.update(view.done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            if self._bar.total is not None:
                self._bar.update(self._bar.total - self._bar.n)
            self._bar.close()
            self._bar = None

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class Addresses(columns.FormattableColumn[tuple[Address, ...]]):
    """Addresses as text for people, as a list for programs."""

    def human_readable(self) -> str:
        return ", ".join(address.ip for address in self._value)

    def machine_readable(self) -> Any:
        return [address.ip for address in self._value]


class Models(columns.FormattableColumn[tuple[Model, ...]]):
    """Models as lines for people, as objects for programs."""

    def human_readable(self) -> str:
        return "\n".join(
            " ".join(
                f"{key}={value}"
                for key, value in model.model_dump(exclude_none=True).items()
                if value != ""
            )
            for model in self._value
        )

    def machine_readable(self) -> Any:
        return [model.model_dump(mode="json") for model in self._value]


class Texts(columns.FormattableColumn[tuple[str, ...]]):
    """A list of words."""

    def human_readable(self) -> str:
        return ", ".join(self._value)

    def machine_readable(self) -> Any:
        return list(self._value)


def rows_of(view: Model, **formatted: Any) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """Names and values of a model, for ShowOne."""
    values: dict[str, Any] = {}
    for name in type(view).model_fields:
        value = getattr(view, name)
        if isinstance(value, tuple) and name not in formatted:
            models = bool(value) and isinstance(value[0], Model)
            value = Models(value) if models else Texts(value)
        values[name] = formatted.get(name, value)
    return tuple(values), tuple(values.values())


class Disks(Models):
    """Disks as lines for people; a size that a hung guest could not tell is unknown."""

    def __init__(self, view: InstanceView):
        super().__init__(view.disks)
        self._unknown = {
            field.split(".")[1] for field in view.unknown if field.startswith("disks.")
        }

    def human_readable(self) -> str:
        lines = super().human_readable().splitlines()
        return "\n".join(
            f"{line} size_mib=unknown" if getattr(disk, "name", None) in self._unknown else line
            for line, disk in zip(lines, self._value, strict=True)
        )


class ShownAddresses(Addresses):
    """Addresses of one instance; says when its agent could not be asked for more."""

    def __init__(self, view: InstanceView):
        super().__init__(view.addresses)
        self._complete = "addresses" not in view.unknown

    def human_readable(self) -> str:
        known = super().human_readable()
        return known if self._complete else f"{known}, others unknown" if known else "unknown"


def instance_rows(view: InstanceView) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    return rows_of(view, addresses=ShownAddresses(view), disks=Disks(view))


def argument(parse: Callable[[str], T], what: str) -> Callable[[str], T]:
    """Return an argparse type whose errors say what is expected."""

    def convert(text: str) -> T:
        try:
            return parse(text)
        except (ValueError, KeyError) as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}: {error}") from None

    convert.__name__ = what
    return convert
