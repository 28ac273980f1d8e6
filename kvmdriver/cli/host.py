"""``kvmdriver host ...`` and ``kvmdriver os ...``."""

import argparse
from typing import Any

from kvmdriver.cli.base import Base, ListBase, ShowBase, rows_of
from kvmdriver.driver import KVMDriver, guests_with_kvm
from kvmdriver.host.nested import NestedHost

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


class CheckHost(ListBase):
    """Check everything that a host of virtual machines needs; what is wrong, and what mends it.

    The exit status is 2 when a check fails, 0 otherwise.
    """

    def run(self, parsed_args: argparse.Namespace) -> int:
        self._failed = False
        return super().run(parsed_args) or (2 if self._failed else 0)

    def take_action(self, args: argparse.Namespace) -> Any:
        if self.connection.over_bus:
            lines = self.client.check_host()
        else:
            # also where no agent could start
            driver = KVMDriver(self.conf)
            try:
                lines = driver.check_host()
            finally:
                driver.close()
        self._failed = any(line.result == "fail" for line in lines)
        return ("Check", "Result", "Found", "Remedy"), [
            (line.name, line.result, line.found, line.remedy) for line in lines
        ]


class NestedBase(Base):
    """About nested virtualization of this machine."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--sysroot",
            default="/",
            metavar="DIRECTORY",
            help="where the host's root directory lies; its own sbin/modprobe is run (default: /)",
        )
        return parser

    def require_this_host(self) -> None:
        self.connection.require_this_host(
            "the command reads and sets the kernel's KVM module",
            "run it on that host; what guests have there is told by cpu show",
        )


class ShowNested(NestedBase, ShowBase):
    """Show nested virtualization on this host: the CPU, the module and its parameters."""

    def take_action(self, args: argparse.Namespace) -> Any:
        self.require_this_host()
        view = NestedHost(args.sysroot).view()
        parameters = " ".join(f"{name}={value}" for name, value in view.parameters.items())
        return rows_of(view, parameters=parameters)


class _SwitchNested(NestedBase):
    on: bool

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--dry-run", action="store_true", help="say every step, do nothing")
        return parser

    def take_action(self, args: argparse.Namespace) -> None:
        self.require_this_host()
        host = NestedHost(args.sysroot)
        group = self.conf.kvm_nested
        options = {"kvm_intel": group.kvm_intel_options, "kvm_amd": group.kvm_amd_options}
        running = guests_with_kvm(self.conf) if args.sysroot == "/" else ()
        steps = host.steps(self.on, options, running)
        if not steps:
            self.say("Nothing has to be done.")
        elif args.dry_run:
            for step in steps:
                self.app.stdout.write(step.text + "\n")
        else:
            host.apply(steps, self.say)
            self.say("Done. Restart libvirtd, so that it asks QEMU again: its answers are cached.")


class EnableNested(_SwitchNested):
    """Switch nested virtualization on: now, and for every boot. No guest may run with KVM."""

    on = True


class DisableNested(_SwitchNested):
    """Switch nested virtualization off: now, and for every boot. No guest may run with KVM."""

    on = False
