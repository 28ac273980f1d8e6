"""The message bus: how agent and client come by it."""

import oslo_messaging as messaging
from oslo_config import cfg

from kvmdriver import exception

VERSION = "1.0"
NAMESPACE_OF_ERRORS = "kvmdriver.exception"


def register_messaging_opts(conf: cfg.ConfigOpts) -> None:
    """Register those options of oslo.messaging that it expects but only gives to cfg.CONF."""
    from oslo_messaging import opts

    for group, options in opts.list_opts():
        name = group.name if isinstance(group, cfg.OptGroup) else group
        if name == "oslo_messaging_tracing":
            conf.register_opts(options, group=name)


def rpc_transport(conf: cfg.ConfigOpts, url: str | None = None) -> messaging.RPCTransport:
    """The bus for requests.

    :raises kvmdriver.exception.ConfigurationError: the transport_url makes no sense.
    """
    register_messaging_opts(conf)
    try:
        return messaging.get_rpc_transport(
            conf, url=url, allowed_remote_exmods=[NAMESPACE_OF_ERRORS]
        )
    except (messaging.InvalidTransportURL, messaging.DriverLoadFailure) as error:
        raise exception.ConfigurationError(
            f"the message bus cannot be used: {error}",
            field="transport_url",
            remedy="give something like rabbit://user:password@host:5672/",
        ) from None


def target(conf: cfg.ConfigOpts, server: str | None = None) -> messaging.Target:
    """Where requests go: to the agent of host ``server``."""
    return messaging.Target(topic=conf.kvm_agent.topic, server=server, version=VERSION)
