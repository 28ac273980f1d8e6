"""The agent in-process: for a command line on the host itself, without a broker."""

import os
import sys

from oslo_config import cfg

from kvmdriver.agent import transport as bus
from kvmdriver.agent.client import ComputeAPI
from kvmdriver.agent.notifications import Notifier
from kvmdriver.agent.server import AgentServer
from kvmdriver.hypervisor import embed

FAKE = "fake://"


def has_transport(conf: cfg.ConfigOpts) -> bool:
    """Whether a message bus is configured, and so an agent to be called over it."""
    bus.register_messaging_opts(conf)
    bus.rpc_transport(conf, FAKE)  # makes transport_url known to conf
    return bool(conf.transport_url) and conf.transport_url not in ("rabbit://", FAKE)


class LocalAgent:
    """An agent and its client in one process, over an in-memory bus.

    Whoever runs this may read and write files as itself, so all directories are open to it. With
    no libvirtd to be found the QEMU driver runs in this process, too.
    """

    def __init__(self, conf: cfg.ConfigOpts, *, quiet: bool = False):
        conf.set_override("image_directories", ["/"], "kvm_storage")
        conf.set_override("notification_topic", "", "kvm_agent")
        if conf.kvm.uri == "qemu:///system" and not embed.libvirtd_answers():
            root = os.path.join(os.path.dirname(conf.kvm_storage.instances_path), "embed")
            conf.set_override("uri", embed.prepare(root), "kvm")
            if not quiet:
                sys.stderr.write(f"No libvirtd answers: using an embedded one, {conf.kvm.uri}\n")
        transport = bus.rpc_transport(conf, FAKE)
        self._server = AgentServer(conf, transport, Notifier(conf), alone=True)
        # errors of the first connection are the caller's to see
        self._server.driver.init_host()
        self._server.start()
        self.client = ComputeAPI(conf, transport=transport)

    def close(self) -> None:
        self._server.stop(wait=False)
