"""The application behind ``kvmdriver``: options, configuration, and the client of commands."""

import argparse
import logging

import pbr.version
from cliff import app, command, commandmanager

from kvmdriver.agent.client import ComputeAPI
from kvmdriver.cli import terminal
from kvmdriver.cli.connection import Connection


class Shell(app.App):
    """Runs commands against an agent, or against the libvirt of this host."""

    CONSOLE_MESSAGE_FORMAT = "%(message)s"

    def __init__(self) -> None:
        super().__init__(
            description="Virtual machines on KVM/QEMU: with [DEFAULT] transport_url configured "
            "through the agent of a host, else on the libvirt of this host.",
            version=pbr.version.VersionInfo("kvmdriver").version_string(),
            command_manager=commandmanager.CommandManager("kvmdriver.cli"),
            deferred_help=True,
            stdout=terminal.output(),
            stderr=terminal.messages(),
        )
        self._connection: Connection | None = None

    def build_option_parser(
        self, description: str | None, version: str | None, argparse_kwargs: object = None
    ) -> argparse.ArgumentParser:
        parser = super().build_option_parser(description, version)
        parser.add_argument(
            "--config-file",
            action="append",
            metavar="FILE",
            help="configuration file; may be given more than once (default: "
            "~/.kvmdriver/kvmdriver.conf and /etc/kvmdriver/kvmdriver.conf)",
        )
        parser.add_argument(
            "--host", metavar="HOST", help="host whose agent is called (default: this host)"
        )
        parser.add_argument(
            "--embedded",
            action="store_true",
            help="run QEMU's driver in this process, for a host without libvirtd: its instances are "
            "apart from those of libvirtd, and it has no virtual networks",
        )
        return parser

    def configure_logging(self) -> None:
        super().configure_logging()
        if self.options.verbose_level < 2 and not self.options.debug:
            logging.getLogger("oslo").setLevel(logging.ERROR)
            logging.getLogger("oslo_messaging").setLevel(logging.ERROR)
            logging.getLogger("kvmdriver.hypervisor").setLevel(logging.ERROR)

    @property
    def connection(self) -> Connection:
        """The agent that the options name."""
        if self._connection is None:
            self._connection = Connection(
                self.options.config_file, self.options.host, embedded=self.options.embedded
            )
        return self._connection

    @property
    def client(self) -> ComputeAPI:
        """The agent's client."""
        return self.connection.client

    @property
    def has_libvirt(self) -> bool:
        """Whether an agent, and with it libvirt's threads, runs in this process."""
        return self._connection is not None and self._connection.has_libvirt

    def clean_up(self, cmd: command.Command, result: int, err: BaseException | None) -> None:
        if self._connection is not None:
            self._connection.close()
        super().clean_up(cmd, result, err)
