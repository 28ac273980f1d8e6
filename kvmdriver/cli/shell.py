"""The application behind ``kvmdriver``: options, configuration, and the client of commands."""

import argparse
import logging

import pbr.version
from cliff import app, command, commandmanager
from oslo_config import cfg

from kvmdriver import conf as options
from kvmdriver import exception
from kvmdriver.agent.client import ComputeAPI
from kvmdriver.agent.local import LocalAgent, has_transport, use_embedded
from kvmdriver.cli import terminal


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
        self._conf: cfg.ConfigOpts | None = None
        self._client: ComputeAPI | None = None
        self._local: LocalAgent | None = None

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
    def conf(self) -> cfg.ConfigOpts:
        """The configuration, read when it is first needed."""
        if self._conf is None:
            conf = options.register_opts(cfg.ConfigOpts())
            try:
                self._read_files_into(conf)
            except cfg.ConfigFilesNotFoundError as error:
                raise exception.ConfigurationError(
                    f"cannot read {', '.join(error.config_files)}", field="--config-file"
                ) from None
            except cfg.Error as error:
                raise exception.ConfigurationError(
                    f"the configuration is wrong: {error}"
                ) from None
            if self.options.embedded:
                use_embedded(conf)
            self._conf = conf
        return self._conf

    def _read_files_into(self, conf: cfg.ConfigOpts) -> None:
        files = self.options.config_file
        conf([], project="kvmdriver", prog="kvmdriver", default_config_files=files)

    @property
    def client(self) -> ComputeAPI:
        """The agent's client; an agent is started in this process where no bus is configured."""
        if self._client is None:
            if has_transport(self.conf):
                self._client = ComputeAPI(self.conf, host=self.options.host)
            else:
                # oslo.privsep looks for [kvm_privsep] here, and passes the files on to its helper
                self._read_files_into(cfg.CONF)
                self._local = LocalAgent(self.conf)
                self._client = self._local.client
        return self._client

    @property
    def has_libvirt(self) -> bool:
        """Whether an agent, and with it libvirt's threads, runs in this process."""
        return self._local is not None

    def clean_up(self, cmd: command.Command, result: int, err: BaseException | None) -> None:
        if self._client is not None and not self.has_libvirt:
            self._client.close()
        super().clean_up(cmd, result, err)
