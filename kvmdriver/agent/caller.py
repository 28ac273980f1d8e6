"""Calling agents: typed errors, requests that are not done twice, progress on the way."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import oslo_messaging as messaging
from oslo_config import cfg
from oslo_utils import uuidutils

from kvmdriver import exception
from kvmdriver.agent import transport as bus
from kvmdriver.model import ProgressView

OnProgress = Callable[[ProgressView], None]

_PING_SECONDS = 5
_PROGRESS_SECONDS = 0.3
_BUS_RETRIES = 5


class Caller:
    """What calls of the agents' RPC methods are made of.

    Each call names the host whose agent it is for, the one given at construction by default. A
    call waits for its end however long it takes, as long as the agent shows that it is alive; a
    request that got lost with a broker is sent again under the same identifier, so that nothing
    is done twice. Errors are those of the agent (``kvmdriver.exception``), and
    ``AgentUnreachable`` when no agent answers.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        *,
        host: str | None = None,
        transport: messaging.Transport | None = None,
    ):
        self._conf = conf
        self._host = host or conf.kvm_agent.host
        self._transport = transport or bus.rpc_transport(conf)
        self._clients = {
            lane: messaging.get_rpc_client(
                self._transport,
                bus.target(conf, lane=lane),
                version_cap=bus.VERSION,
                retry=_BUS_RETRIES,
            )
            for lane in bus.LANES
        }

    def close(self) -> None:
        """Let go of the message bus."""
        self._transport.cleanup()

    def ask(
        self,
        method: str,
        host: str,
        *,
        timeout: float | None = None,
        lane: bus.Lane = "peers",
        **arguments: Any,
    ) -> Any:
        """Call a method for other agents; ``timeout`` in seconds, as configured when None."""
        return self._call(method, host, _given(arguments), lane, timeout)

    def answers(self, host: str) -> bool:
        """Return whether the agent of a host answers, within five seconds."""
        try:
            self._ping(host)
        except messaging.MessagingTimeout:
            return False
        return True

    def _read(self, method: str, host: str | None, **arguments: Any) -> Any:
        return self._call(method, host or self._host, _given(arguments), "reads")

    def _ping(self, host: str) -> None:
        self._clients["reads"].prepare(server=host, timeout=_PING_SECONDS).call({}, "ping")

    def _change(
        self, method: str, host: str | None, on_progress: OnProgress | None, **arguments: Any
    ) -> Any:
        host = host or self._host
        request_id = uuidutils.generate_uuid()
        arguments = {**_given(arguments), "request_id": request_id}
        with self._watched(request_id, host, on_progress):
            return self._call(method, host, arguments, "changes")

    def _call(
        self,
        method: str,
        host: str,
        arguments: dict[str, Any],
        lane: bus.Lane,
        timeout: float | None = None,
    ) -> Any:
        agent = self._conf.kvm_agent
        prepared = self._clients[lane].prepare(
            server=host,
            timeout=timeout or agent.rpc_timeout,
            call_monitor_timeout=min(timeout or agent.rpc_timeout, agent.call_monitor_timeout),
        )
        try:
            try:
                return prepared.call({}, method, **arguments)
            except messaging.MessagingTimeout:
                # A dead agent, or a message that went down with a broker? In the second case the
                # agent answers, and recognises the request if it did get it.
                self._ping(host)
                return prepared.call({}, method, **arguments)
        except messaging.MessagingTimeout:
            raise exception.AgentUnreachable(
                f"the agent on {host} does not answer", field="host", value=host
            ) from None
        except messaging.MessageDeliveryFailure as error:
            raise exception.AgentUnreachable(
                f"the message bus does not answer: {error}",
                field="transport_url",
                remedy="check that the broker runs and that transport_url is right",
            ) from None
        except messaging.RemoteError as error:
            raise exception.KVMDriverError(
                f"the agent on {host} failed: {error.exc_type}: {error.value}",
                remedy="the agent's log has the details",
            ) from None

    @contextlib.contextmanager
    def _watched(
        self, request_id: str, host: str, on_progress: OnProgress | None
    ) -> Iterator[None]:
        """Ask for the progress of a request every now and then while it is carried out."""
        if on_progress is None:
            yield
            return
        done = threading.Event()

        def watch() -> None:
            asking = self._clients["reads"].prepare(server=host, timeout=_PING_SECONDS)
            while not done.wait(_PROGRESS_SECONDS):
                with contextlib.suppress(Exception):
                    answer = asking.call({}, "get_progress", of=request_id)
                    if answer is not None and not done.is_set():
                        on_progress(ProgressView.model_validate(answer))

        watcher = threading.Thread(target=watch, name="progress", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join(2 * _PING_SECONDS)


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}
