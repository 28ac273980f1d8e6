"""``kvmdriver cpu ...``: which CPUs guests can have here, and in a whole cluster."""

import argparse
import os
from typing import Any

from kvmdriver import exception
from kvmdriver.cli.base import Base, ListBase, ShowBase, Texts, rows_of
from kvmdriver.driver import cpu_of_file, cpu_of_uri

_SOURCES = (
    "a file with a <cpu>, or with what virsh capabilities or virsh domcapabilities print; a "
    "libvirt URI; or the name of a host whose agent is asked"
)


class CpuCommand(Base):
    """Reads CPUs from where they are."""

    def definition_of(self, source: str) -> str:
        """Return the XML of a CPU."""
        if os.path.exists(source):
            return cpu_of_file(source)
        if "://" in source:
            return cpu_of_uri(self.conf, source)
        if not self.connection.over_bus:
            raise exception.InvalidRequest(
                f"{source} is no file, and without a message bus no agent can be asked",
                field="HOST",
                value=source,
                remedy="name a file or a libvirt URI, or set [DEFAULT] transport_url",
            )
        definition = self.client.get_cpu(host=source).definition
        if definition is None:
            raise exception.Unsupported(
                f"libvirt on {source} knows no host-model", field="HOST", value=source
            )
        return definition


class ShowCpu(ShowBase):
    """Show what guests can have as their CPU on this host: flags, modes, nested virtualization."""

    def take_action(self, args: argparse.Namespace) -> Any:
        view = self.client.get_cpu()
        unusable = tuple(model.name for model in view.models if not model.usable)
        usable = tuple(model.name for model in view.models if model.usable)
        rows = dict(zip(*rows_of(view, models=Texts(usable)), strict=True))
        del rows["definition"]  # pages of XML, for cpu baseline to read
        rows["unusable_models"] = Texts(unusable)
        return tuple(rows), tuple(rows.values())


class ListCpuModels(ListBase):
    """List CPU models; those that cannot be used with the flags that they lack here."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--usable", action="store_true", help="only those that can be used")
        return parser

    def take_action(self, args: argparse.Namespace) -> Any:
        models = [m for m in self.client.get_cpu().models if m.usable or not args.usable]
        return ("Name", "Vendor", "Usable", "Missing"), [
            (m.name, m.vendor, m.usable, Texts(m.missing)) for m in models
        ]


class BaselineCpu(CpuCommand):
    """Compute one CPU for all hosts of a cluster; guests with it can migrate to each of them."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("sources", nargs="+", metavar="HOST", help=_SOURCES)
        parser.add_argument(
            "--migratable",
            action=argparse.BooleanOptionalAction,
            default=True,
            help="without flags that keep guests from migrating, such as invtsc (default: yes)",
        )
        parser.add_argument("--output", metavar="FILE", help="write it there, for baseline_file")
        return parser

    def take_action(self, args: argparse.Namespace) -> None:
        cpus = [self.definition_of(source) for source in args.sources]
        found = self.client.baseline_cpu(cpus, migratable=args.migratable)
        if args.output is None:
            self.app.stdout.write(found)
            return
        try:
            with open(args.output, "x") as file:
                file.write(found)
        except OSError as error:
            raise exception.InvalidRequest(
                f"cannot write the CPU: {error}",
                field="--output",
                value=args.output,
                remedy="name a file that does not exist yet",
            ) from None
        self.say(
            f"Copy {args.output} to every host, and set there: [kvm_cpu] mode = baseline, "
            f"baseline_file = PATH"
        )


class CompareServer(Base):
    """Tell whether a host can give the CPU that a running instance has, before it is moved."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("instance", metavar="NAME", help="name or UUID of the instance")
        parser.add_argument("destination", metavar="HOST", help="host whose agent is asked")
        return parser

    def take_action(self, args: argparse.Namespace) -> None:
        self.client.require_cpu_of(args.instance, args.destination)
        self.say(f"{args.destination} can give the CPU of {args.instance}.")


class CompareCpu(CpuCommand, ShowBase):
    """Tell whether guests with another host's CPU could run on this one."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--with", dest="source", required=True, metavar="HOST|FILE", help=_SOURCES
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> Any:
        return rows_of(self.client.compare_cpu(self.definition_of(args.source)))
