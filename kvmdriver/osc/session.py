"""What a command of kvmdriver needs of the application around it, on top of OpenStackClient."""

import argparse
import logging
from typing import Any, cast

from keystoneauth1 import exceptions as keystoneauth_exceptions
from openstack import connection as sdk
from openstack import exceptions as sdk_exceptions
from osc_lib import exceptions as osc_exceptions

from kvmdriver import exception
from kvmdriver.agent.client import ComputeAPI
from kvmdriver.cli import terminal
from kvmdriver.cli.base import Base
from kvmdriver.cli.connection import Connection
from kvmdriver.osc.nova_api import NovaAPI


class Session:
    """Stands between OpenStackClient's application and one command.

    Everything that the command prints goes through ``terminal.Screen``, as in ``kvmdriver``.
    """

    connection: Connection
    client: ComputeAPI | NovaAPI

    def __init__(self, app: Any):
        self._app = app
        # until the arguments are known
        self.connection = Connection()
        self.stdout = terminal.Screen(app.stdout)
        self.stderr = terminal.Screen(app.stderr)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)

    def connect(self, host: str | None) -> None:
        """Name the host whose agent is called over the bus, None for this one."""
        files = self._app.options.kvm_config_file
        self.connection = Connection(files, host, option="--kvm-config-file")

    def use_bus(self) -> None:
        """Call agents.

        :raises kvmdriver.exception.ConfigurationError: there is no message bus. The hypervisor of
            this machine is nothing that ``openstack`` should look at unasked.
        """
        if not self.connection.over_bus:
            raise exception.ConfigurationError(
                "no message bus is configured, so no agent can be called",
                field="transport_url",
                remedy="set [DEFAULT] transport_url in ~/.kvmdriver/kvmdriver.conf or in the file of "
                "--kvm-config-file; or run the command on the host itself with kvmdriver instead "
                "of openstack kvm",
            )
        self.client = self.connection.client

    def use_nova(self) -> None:
        """Call Nova's API with the credentials that ``openstack`` has been given.

        :raises kvmdriver.exception.ConfigurationError: there are none, or Keystone refuses them.
        """
        try:
            region = self._app.cloud_config.get_one(
                cloud=self._app.options.cloud, argparse=self._app.options, validate=True
            )
            connection = sdk.Connection(config=region)
            connection.authorize()
        except (
            sdk_exceptions.SDKException,
            osc_exceptions.CommandError,
            keystoneauth_exceptions.ClientException,
        ) as error:
            raise exception.ConfigurationError(
                f"Nova's API cannot be used: {error}",
                field="--os-cloud",
                remedy="give openstack the credentials of an administrator; or name the host of an "
                "agent with --host",
            ) from None
        self.client = NovaAPI(connection.compute)

    def close(self) -> None:
        """Leave the message bus."""
        self.connection.close()


class OscCommand(Base):
    """Has a command of kvmdriver run in OpenStackClient; comes before it among the bases."""

    # Keystone is asked only where Nova is
    auth_required = False
    app: Any

    def __init__(
        self, app: Any, app_args: argparse.Namespace | None, cmd_name: str | None = None
    ) -> None:
        super().__init__(cast(Any, Session(app)), app_args, cmd_name)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--host", dest="agent_host", metavar="HOST", help=self.host_help)
        return parser

    host_help = "host whose agent is called over the message bus (default: this host)"

    def prepare(self, host: str | None) -> None:
        """Choose what answers: the agent on the bus."""
        self.app.use_bus()

    def run(self, parsed_args: argparse.Namespace) -> int:
        if self.app_args is None or self.app_args.verbose_level < 2:
            for name in ("oslo", "oslo_messaging"):
                logging.getLogger(name).setLevel(logging.ERROR)
        self.app.connect(parsed_args.agent_host)
        try:
            self.prepare(parsed_args.agent_host)
            return super().run(parsed_args)
        except exception.KVMDriverError as error:
            self.tell(error)
            return 1
        finally:
            self.app.close()


class ServerCommand(OscCommand):
    """About an instance of an agent, or with no host named about a server of Nova's."""

    host_help = (
        "host whose agent is called over the message bus about an instance of its own (default: "
        "Nova's API is asked about a server, with the credentials of an administrator)"
    )

    def prepare(self, host: str | None) -> None:
        if host is None:
            self.app.use_nova()
        else:
            self.app.use_bus()


class HereCommand(OscCommand):
    """About the machine on which it runs: refuses any other."""

    host_help = "refused unless this machine has that name: nobody is called"

    def prepare(self, host: str | None) -> None:
        pass
