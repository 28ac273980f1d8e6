"""The message bus: how agent and client come by it."""

import contextlib
import importlib
from typing import Any, Literal

import oslo_messaging as messaging
from oslo_config import cfg

from kvmdriver import exception

VERSION = "1.0"
NAMESPACE_OF_ERRORS = "kvmdriver.exception"


def register_messaging_opts(conf: cfg.ConfigOpts) -> None:
    """Make those options of oslo.messaging known to ``conf`` that it reads but forgets to register.

    oslo.messaging 18 registers its tracing and metrics options with cfg.CONF only; its own
    ConfFixture works around that in the same way.
    """
    for package in ("tracing", "metrics"):
        group = f"oslo_messaging_{package}"
        with contextlib.suppress(ImportError):
            module = importlib.import_module(f"oslo_messaging._{package}.client")
            conf.register_opts(getattr(module, group), group=group)


def rpc_transport(conf: cfg.ConfigOpts, url: str | None = None) -> messaging.Transport:
    """Return the bus for requests.

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


Lane = Literal["changes", "reads", "peers"]
LANES: tuple[Lane, ...] = ("changes", "reads", "peers")


def target(conf: cfg.ConfigOpts, server: str | None = None, lane: Lane = "changes") -> Any:
    """Return where requests go: to the agent of host ``server``.

    Each lane has a topic and workers of its own: ``changes`` may take long, ``reads`` are answered
    meanwhile, and ``peers`` is what agents ask of each other to finish their changes.
    """
    # an underscore: with a dot, queue names <topic>.<server> of different lanes could be the same
    topic = conf.kvm_agent.topic if lane == "changes" else f"{conf.kvm_agent.topic}_{lane}"
    return messaging.Target(topic=topic, server=server, version=VERSION)
