"""The agent in-process: for a command line on the host itself, without a broker."""

import os

from oslo_config import cfg

from kvmdriver import exception
from kvmdriver.agent import transport as bus
from kvmdriver.agent.client import ComputeAPI
from kvmdriver.agent.notifications import Notifier
from kvmdriver.agent.server import AgentServer
from kvmdriver.hypervisor import embed

FAKE = "fake://"


def has_transport(conf: cfg.ConfigOpts) -> bool:
    """Return whether a message bus is configured, and so an agent to be called over it."""
    bus.register_messaging_opts(conf)
    bus.rpc_transport(conf, FAKE)  # makes transport_url known to conf
    return bool(conf.transport_url) and conf.transport_url not in ("rabbit://", FAKE)


def use_embedded(conf: cfg.ConfigOpts) -> None:
    """Have the QEMU driver run in this process, with its state beside the directory of instances.

    :raises kvmdriver.exception.ConfigurationError: a message bus is configured, and with it an agent
        that has its own hypervisor; or the directory's path is too long.
    :raises kvmdriver.exception.HypervisorUnavailable: the directory cannot be made.
    """
    if has_transport(conf):
        raise exception.ConfigurationError(
            "the agent on the message bus has a hypervisor of its own",
            field="--embedded",
            remedy="leave --embedded out, or [DEFAULT] transport_url",
        )
    root = os.path.join(os.path.dirname(conf.kvm_storage.instances_path), "embed")
    conf.set_override("uri", embed.prepare(root), "kvm")


class LocalAgent:
    """An agent and its client in one process, over an in-memory bus.

    The user who runs this process may read and write files anyway, so all directories are open to
    the agent.

    :raises kvmdriver.exception.HypervisorUnavailable: libvirt at ``[kvm] uri`` does not answer. No
        other hypervisor takes its place: its answers would be about other instances.
    """

    def __init__(self, conf: cfg.ConfigOpts):
        conf.set_override("image_directories", ["/"], "kvm_storage")
        conf.set_override("notification_topic", "", "kvm_agent")
        transport = bus.rpc_transport(conf, FAKE)
        self._server = AgentServer(conf, transport, Notifier(conf), alone=True)
        # errors of the first connection are the caller's to see
        try:
            self._server.driver.init_host()
        except exception.HypervisorUnavailable as error:
            if "/embed" not in conf.kvm.uri:
                error.remedy = f"{error.remedy}; on a host without libvirtd: kvmdriver --embedded"
            raise
        self._server.start()
        self.client = ComputeAPI(conf, transport=transport)

    def close(self) -> None:
        self._server.stop(wait=False)
