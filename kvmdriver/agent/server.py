"""The agent's core: a driver, an RPC server and notifications. Used by the service and in-process."""

import logging
import threading
from typing import cast

import oslo_messaging as messaging
from oslo_config import cfg

from kvmdriver import exception, plugins
from kvmdriver.agent import transport as bus
from kvmdriver.agent.caller import Caller
from kvmdriver.agent.endpoint import Endpoint
from kvmdriver.agent.migration import NoPeers, Peers
from kvmdriver.agent.notifications import Notifier
from kvmdriver.driver import KVMDriver
from kvmdriver.hypervisor.events import Event

LOG = logging.getLogger(__name__)

NAMESPACE = "kvmdriver.compute_drivers"
_RETRY_SECONDS = 2.0
_MEND_SECONDS = 30.0
_RECOVER_SECONDS = 3.0
_RETURN_SECONDS = 10.0


def load_driver(conf: cfg.ConfigOpts) -> KVMDriver:
    """The compute driver that is configured.

    :raises kvmdriver.exception.ConfigurationError: none is installed under that name.
    """
    cls = plugins.load(NAMESPACE, conf.kvm_agent.compute_driver, field="kvm_agent.compute_driver")
    return cast(KVMDriver, cls(conf))


class AgentServer:
    """Serves requests from ``start`` to ``stop``.

    Without libvirt it serves as well: every request then says that libvirt does not answer, and
    the connection is made and the host reconciled as soon as it does.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        transport: messaging.Transport,
        notifier: Notifier,
        *,
        alone: bool = False,
    ):
        self.driver = load_driver(conf)
        self._notifier = notifier
        self._neighbours = NoPeers() if alone else Peers(Caller(conf, transport=transport))
        self._stopping = threading.Event()
        self._server = messaging.get_rpc_server(
            transport,
            bus.target(conf, conf.kvm_agent.host),
            [Endpoint(self.driver, notifier, self._neighbours)],
            access_policy=messaging.DefaultRPCAccessPolicy,
        )
        self._workers = conf.kvm_agent.workers
        self._keeper = threading.Thread(target=self._keep, name="libvirt-keeper", daemon=True)
        self._mover = threading.Thread(target=self._recover, name="migrations", daemon=True)

    def start(self) -> None:
        self.driver.events.subscribe(self._notifier.on_event)
        self.driver.events.subscribe(self._on_event)
        self.driver.subscribe_to_migrations(self._notifier.on_migration)
        if not self._prepare():
            self.driver.attention.set()
        self._server.start(override_pool_size=self._workers)
        self._keeper.start()
        self._mover.start()

    def stop(self, *, wait: bool = True) -> None:
        """Take no more requests, let those under way end, let go of libvirt.

        :param wait: False when nothing can be under way: the caller was the only client.
        """
        if wait:
            self._server.stop()
            self._server.wait()
        self._stopping.set()
        self.driver.attention.set()
        self.driver.migration_activity.set()
        self._keeper.join(_RETRY_SECONDS * 2)
        self._mover.join(_RETRY_SECONDS * 2)
        self.driver.close()
        self._notifier.close()

    def _on_event(self, event: Event) -> None:
        if event.kind == "disconnected":
            self.driver.attention.set()

    def _keep(self) -> None:
        """Reconnect after a loss, so that events come again, and mend what operations have left.

        What is left and cannot be mended, as a guest does not answer, is tried every now and then.
        """
        attention = self.driver.attention
        while not self._stopping.is_set():
            attention.wait(_MEND_SECONDS if self.driver.has_unmended() else None)
            attention.clear()
            while not self._stopping.is_set() and not self._prepare_again():
                self._stopping.wait(_RETRY_SECONDS)

    def _prepare_again(self) -> bool:
        try:
            return self._prepare()
        except Exception:
            # the keeper lives on: libvirt may be lost again
            LOG.exception("the host could not be reconciled")
            return True

    def _prepare(self) -> bool:
        try:
            self.driver.init_host()
        except exception.HypervisorUnavailable as error:
            LOG.error("libvirt cannot be used yet: %s", error)
            return False
        LOG.debug("libvirt is connected")
        return True

    def _recover(self) -> None:
        """End migrations that were cut off, again and again as long as there are any.

        Idle while no instance comes or goes, and nothing is left of one that did; only hosts whose
        instances were brought back here are asked every now and then whether they have returned.
        """
        activity = self.driver.migration_activity
        away = 0
        while not self._stopping.is_set():
            activity.wait(_RETURN_SECONDS if away else None)
            activity.clear()
            self._stopping.wait(_RECOVER_SECONDS)
            if self._stopping.is_set():
                return
            try:
                left = self.driver.recover_migrations(self._neighbours)
                away = self.driver.tell_evacuated(self._neighbours)
            except Exception:
                LOG.exception("migrations cannot be recovered yet")
                left = 1
            if left:
                activity.set()
