"""Where commands find their agent: a configuration, and the client that is made from it."""

from collections.abc import Sequence

from oslo_config import cfg

from kvmdriver import conf as options
from kvmdriver import exception
from kvmdriver.agent.client import ComputeAPI
from kvmdriver.agent.local import LocalAgent, has_transport, use_embedded


class Connection:
    """The agent that one invocation of the command line talks to. Nothing is read before it is needed.

    :param config_files: paths of configuration files; None for those in their usual places.
    :param host: name of the host whose agent is called; None for this one.
    :param embedded: run QEMU's driver in this process, for a host without libvirtd.
    :param option: name of the option that names configuration files, for messages.
    """

    def __init__(
        self,
        config_files: Sequence[str] | None = None,
        host: str | None = None,
        *,
        embedded: bool = False,
        option: str = "--config-file",
    ):
        self._config_files = config_files
        self._host = host
        self._embedded = embedded
        self._option = option
        self._conf: cfg.ConfigOpts | None = None
        self._client: ComputeAPI | None = None
        self._local: LocalAgent | None = None

    @property
    def conf(self) -> cfg.ConfigOpts:
        """The configuration.

        :raises kvmdriver.exception.ConfigurationError: a file cannot be read, or an option is wrong.
        """
        if self._conf is None:
            conf = options.register_opts(cfg.ConfigOpts())
            try:
                self._read_files_into(conf)
            except cfg.ConfigFilesNotFoundError as error:
                raise exception.ConfigurationError(
                    f"cannot read {', '.join(error.config_files)}", field=self._option
                ) from None
            except cfg.Error as error:
                raise exception.ConfigurationError(
                    f"the configuration is wrong: {error}"
                ) from None
            if self._embedded:
                use_embedded(conf)
            self._conf = conf
        return self._conf

    def _read_files_into(self, conf: cfg.ConfigOpts) -> None:
        files = None if self._config_files is None else list(self._config_files)
        conf([], project="kvmdriver", prog="kvmdriver", default_config_files=files)

    @property
    def is_elsewhere(self) -> bool:
        """Whether another host than this one is named."""
        return self._host not in (None, self.conf.kvm_agent.host)

    @property
    def over_bus(self) -> bool:
        """Whether an agent on the message bus answers, and not one in this process.

        :raises kvmdriver.exception.ConfigurationError: another host is named, and there is no bus.
        """
        if has_transport(self.conf):
            return True
        if self.is_elsewhere:
            raise exception.ConfigurationError(
                f"no message bus is configured, so the agent of {self._host} cannot be called",
                field="--host",
                value=self._host,
                remedy="set [DEFAULT] transport_url, or leave --host out",
            )
        return False

    def require_this_host(self, what: str, remedy: str) -> None:
        """Require that no other host is named for what is done on this machine only.

        :param what: what the command does, as the beginning of the message.
        :param remedy: what to do instead.
        :raises kvmdriver.exception.Unsupported: another host is named.
        """
        if self.is_elsewhere:
            raise exception.Unsupported(
                f"{what} of this machine only, which is {self.conf.kvm_agent.host}",
                field="--host",
                value=self._host,
                remedy=remedy,
            )

    @property
    def client(self) -> ComputeAPI:
        """The agent's client; an agent is started in this process where no bus is configured."""
        if self._client is None:
            if self.over_bus:
                client = ComputeAPI(self.conf, host=self._host)
                self._require_own_queues()
                self._client = client
            else:
                # oslo.privsep looks for [kvm_privsep] here, and passes the files on to its helper
                self._read_files_into(cfg.CONF)
                self._local = LocalAgent(self.conf)
                self._client = self._local.client
        return self._client

    def _require_own_queues(self) -> None:
        """Refuse the agent's own configuration: queues for answers would have the agent's names.

        :raises kvmdriver.exception.ConfigurationError: it gives queues fixed names.
        """
        # known only where the bus is RabbitMQ
        group = "oslo_messaging_rabbit"
        if group in self.conf and self.conf[group].use_queue_manager:
            raise exception.ConfigurationError(
                "this is the configuration of an agent, not of a client",
                field=f"{group}.use_queue_manager",
                value=True,
                remedy="give the command line a user of the bus and a file as etc/rabbitmq/client.conf; "
                f"name the file with {self._option}, or make it ~/.kvmdriver/kvmdriver.conf",
            )

    @property
    def has_libvirt(self) -> bool:
        """Whether an agent, and with it libvirt's threads, runs in this process."""
        return self._local is not None

    def close(self) -> None:
        """Leave the message bus. An agent in this process stays until the process ends."""
        if self._client is not None and not self.has_libvirt:
            self._client.close()
            self._client = None
