"""The agent's core: a driver, an RPC server and notifications. Used by the service and in-process."""

import concurrent.futures
import contextlib
import logging
import threading
import time
from typing import Any, cast

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
_CLOSE_SECONDS = 2.0
# Requests are served after so many seconds also when the host has not been reconciled by then: a
# guest or a libvirtd that hangs must not keep the agent from answering.
_PREPARE_SECONDS = 15.0
# What a cancelled request has to undo itself, in seconds.
_UNDO_SECONDS = 5.0


class _OneLane(messaging.DefaultRPCAccessPolicy):
    """A topic takes what is meant for it, and nothing that would keep its workers for long."""

    lanes: tuple[bus.Lane, ...] = ()

    def is_allowed(self, endpoint: object, method: str) -> bool:
        lane = getattr(getattr(endpoint, method, None), "lane", None)
        return bool(super().is_allowed(endpoint, method)) and lane in self.lanes


class _Reads(_OneLane):
    lanes = ("reads",)


class _Peers(_OneLane):
    lanes = ("peers",)


class _Changes(_OneLane):
    """Also takes questions, for schedulers that know no other topic.

    Requests of other agents are refused here: with permissions on the broker that tell the topics
    apart, a client that may change instances cannot speak as an agent.
    """

    lanes = ("changes", "reads")


POLICIES: dict[bus.Lane, type[_OneLane]] = {
    "changes": _Changes,
    "reads": _Reads,
    "peers": _Peers,
}


def load_driver(conf: cfg.ConfigOpts) -> KVMDriver:
    """Return the compute driver that is configured.

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
        self._first: concurrent.futures.Future[bool] = concurrent.futures.Future()
        endpoint = Endpoint(self.driver, notifier, self._neighbours)
        agent = conf.kvm_agent
        # Downloads and those that wait for one come on top, so that they never have all threads.
        self._workers = {
            "changes": agent.workers + agent.downloads + agent.waiting_downloads,
            "reads": agent.read_workers,
            "peers": agent.peer_workers,
        }
        self._servers = {
            lane: messaging.get_rpc_server(
                transport,
                bus.target(conf, agent.host, lane),
                [endpoint],
                access_policy=POLICIES[lane],
            )
            for lane in bus.LANES
        }
        self._grace = agent.shutdown_grace
        self._keeper = threading.Thread(target=self._keep, name="libvirt-keeper", daemon=True)
        self._mover = threading.Thread(target=self._recover, name="migrations", daemon=True)

    def start(self) -> None:
        self.driver.events.subscribe(self._notifier.on_event)
        self.driver.events.subscribe(self._on_event)
        self.driver.subscribe_to_migrations(self._notifier.on_migration)
        self._keeper.start()
        with contextlib.suppress(concurrent.futures.TimeoutError):
            self._first.result(_PREPARE_SECONDS)
        for lane, server in self._servers.items():
            server.start(override_pool_size=self._workers[lane])
        self._mover.start()

    def stop(self, *, wait: bool = True) -> None:
        """Take no more requests, have those under way end, and close the connection to libvirt.

        Requests have the configured grace. Then what can be cancelled is cancelled and undoes
        itself; the rest is left to the end of the process, and mended at the next start.

        :param wait: False when nothing can be under way: the caller was the only client.
        """
        if wait:
            self._stop_serving()
        self._stopping.set()
        self.driver.attention.set()
        self.driver.migration_activity.set()
        self._keeper.join(_RETRY_SECONDS)
        self._mover.join(_RETRY_SECONDS)
        self.driver.close()
        self._notifier.close(_CLOSE_SECONDS)

    def _stop_serving(self) -> None:
        def end(server: Any) -> None:
            server.stop()
            server.wait()

        # a server that waits for a hung request is not to be waited for
        ending = [
            threading.Thread(target=end, args=(server,), name=lane, daemon=True)
            for lane, server in self._servers.items()
        ]
        for thread in ending:
            thread.start()
        if not _ended(ending, self._grace):
            self.driver.cancel("the agent is being stopped")
            if not _ended(ending, _UNDO_SECONDS):
                names = [thread.name for thread in ending if thread.is_alive()]
                LOG.warning("requests are cut off: %s", ", ".join(names))

    def _on_event(self, event: Event) -> None:
        if event.kind == "disconnected":
            self.driver.attention.set()

    def _keep(self) -> None:
        """Connect, and after a loss again: events come before anybody asks for something.

        What operations have left is mended as well. What cannot be mended yet, as a guest does not
        answer, is tried every now and then.
        """
        attention = self.driver.attention
        try:
            connected = self._prepare()
        except BaseException as error:  # noqa: B036 the error is for the one who starts the agent
            self._first.set_exception(error)
            return
        self._first.set_result(connected)
        if not connected:
            attention.set()
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


def _ended(threads: list[threading.Thread], seconds: float) -> bool:
    """Return whether all threads have ended, at the latest after so many seconds."""
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)
