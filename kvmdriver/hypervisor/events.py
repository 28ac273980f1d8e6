"""libvirt's event loop, and the way of an event from it to whoever waits for it.

Three threads are involved. libvirt's loop runs in one of its own, started and proven running
before a connection is opened; its callbacks only queue. A dispatcher takes events off the queue
and hands them to subscribers, which must not block. Whoever waits for an event waits in its own
thread, on an ``Expectation``.
"""

import dataclasses
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

import libvirt

from kvmdriver import exception
from kvmdriver.hypervisor import garbage

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Event:
    """Something that happened to a domain; ``uuid`` is None for the connection itself.

    ``kind`` is one of: defined, undefined, started, suspended, resumed, stopped, shutdown,
    pmsuspended, crashed, rebooted, agent-connected, agent-disconnected, device-added,
    device-removed, device-removal-failed, block-job, io-error, watchdog, balloon-changed,
    metadata-changed, connected, disconnected. ``detail`` is what libvirt adds: a reason, a
    device's alias, a disk.
    """

    uuid: str | None
    kind: str
    detail: Any = None


_LIFECYCLE = {
    libvirt.VIR_DOMAIN_EVENT_DEFINED: "defined",
    libvirt.VIR_DOMAIN_EVENT_UNDEFINED: "undefined",
    libvirt.VIR_DOMAIN_EVENT_STARTED: "started",
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: "suspended",
    libvirt.VIR_DOMAIN_EVENT_RESUMED: "resumed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED: "stopped",
    libvirt.VIR_DOMAIN_EVENT_SHUTDOWN: "shutdown",
    libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED: "pmsuspended",
    libvirt.VIR_DOMAIN_EVENT_CRASHED: "crashed",
}

# Details of lifecycle events that tell a migration from other reasons (virDomainEvent*DetailType).
SUSPENDED_FOR_MIGRATION = libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED
RESUMED_AFTER_MIGRATION = libvirt.VIR_DOMAIN_EVENT_RESUMED_MIGRATED

_BLOCK_JOB = {
    libvirt.VIR_DOMAIN_BLOCK_JOB_COMPLETED: "completed",
    libvirt.VIR_DOMAIN_BLOCK_JOB_FAILED: "failed",
    libvirt.VIR_DOMAIN_BLOCK_JOB_CANCELED: "canceled",
    libvirt.VIR_DOMAIN_BLOCK_JOB_READY: "ready",
}


class _EventLoop:
    """libvirt's default event loop in a thread; there can be only one in a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = False

    def ensure_running(self) -> None:
        with self._lock:
            if self._running:
                return
            # Errors come back as exceptions; libvirt's own printing to stderr adds nothing.
            libvirt.registerErrorHandler(lambda _context, _error: None, None)
            garbage.install()
            libvirt.virEventRegisterDefaultImpl()
            turned = threading.Event()

            def prove(timer: int, _opaque: Any) -> None:
                # Not removed but slowed down: a regular timer keeps the loop from sleeping for
                # ever should a wake-up get lost.
                libvirt.virEventUpdateTimeout(timer, 1000)
                turned.set()

            libvirt.virEventAddTimeout(0, prove, None)
            threading.Thread(target=self._run, name="libvirt-events", daemon=True).start()
            if not turned.wait(10):
                raise exception.HypervisorUnavailable("libvirt's event loop does not turn")
            self._running = True

    @staticmethod
    def _run() -> None:
        while True:
            try:
                libvirt.virEventRunDefaultImpl()
            except libvirt.libvirtError:
                LOG.exception("libvirt's event loop stumbled")


LOOP = _EventLoop()


class Expectation:
    """One wait for one event; made before the action that causes the event, so none is missed."""

    def __init__(self, bus: "EventBus", uuid: str, predicate: Callable[[Event], bool]):
        self._bus = bus
        self._uuid = uuid
        self._predicate = predicate
        self._seen = threading.Event()
        self.event: Event | None = None

    def __enter__(self) -> "Expectation":
        self._bus.subscribe(self._offer)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._bus.unsubscribe(self._offer)

    def _offer(self, event: Event) -> None:
        concerned = event.uuid == self._uuid or event.kind == "disconnected"
        if not self._seen.is_set() and concerned and self._predicate(event):
            self.event = event
            self._seen.set()

    def wait(self, seconds: float) -> Event | None:
        """Return the event, or None when it did not come in time."""
        self._seen.wait(seconds)
        return self.event


class EventBus:
    """Takes libvirt's callbacks and hands events to subscribers, in order, in one thread."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._subscribers: tuple[Callable[[Event], None], ...] = ()
        self._thread: threading.Thread | None = None

    def subscribe(self, subscriber: Callable[[Event], None]) -> None:
        """Call ``subscriber`` with every event from now on; it must not block."""
        with self._lock:
            self._subscribers += (subscriber,)

    def unsubscribe(self, subscriber: Callable[[Event], None]) -> None:
        with self._lock:
            self._subscribers = tuple(s for s in self._subscribers if s != subscriber)

    def expect(self, uuid: str, *kinds: str, detail: Any = None) -> Expectation:
        """Return a wait for the next event of a domain that is of one of ``kinds``.

        :param detail: where given, the event's detail must equal it or, being a tuple, start
            with it.
        """

        def matches(event: Event) -> bool:
            if event.kind not in kinds:
                return False
            if detail is None:
                return True
            if isinstance(detail, tuple) and isinstance(event.detail, tuple):
                return event.detail[: len(detail)] == detail
            return bool(event.detail == detail)

        return Expectation(self, uuid, matches)

    def post(self, event: Event) -> None:
        self._queue.put(event)

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._dispatch, name="kvmdriver-events", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(5)
            self._thread = None

    def _dispatch(self) -> None:
        while (event := self._queue.get()) is not None:
            for subscriber in self._subscribers:
                try:
                    subscriber(event)
                except Exception:
                    LOG.exception("a subscriber failed on %s", event)

    # libvirt's callbacks: they run in the loop's thread and may only queue.

    def register(self, connection: libvirt.virConnect) -> None:
        """Ask ``connection`` for every kind of event that the driver knows."""
        for event_id, callback in (
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._simple("rebooted")),
            (libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, self._on_agent),
            (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, self._simple("device-added")),
            (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, self._simple("device-removed")),
            (
                libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED,
                self._simple("device-removal-failed"),
            ),
            (libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, self._on_block_job),
            (libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, self._on_io_error),
            (libvirt.VIR_DOMAIN_EVENT_ID_WATCHDOG, self._simple("watchdog")),
            (libvirt.VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE, self._simple("balloon-changed")),
            (libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, self._simple("metadata-changed")),
        ):
            connection.domainEventRegisterAny(None, event_id, callback, None)

    def _simple(self, kind: str) -> Callable[..., None]:
        def callback(_conn: Any, domain: libvirt.virDomain, *details: Any) -> None:
            detail = details[0] if len(details) > 1 else None
            self.post(Event(domain.UUIDString(), kind, detail))

        return callback

    def _on_lifecycle(
        self, _conn: Any, domain: libvirt.virDomain, event: int, detail: int, _opaque: Any
    ) -> None:
        kind = _LIFECYCLE.get(event)
        if kind:
            self.post(Event(domain.UUIDString(), kind, detail))

    def _on_agent(
        self, _conn: Any, domain: libvirt.virDomain, state: int, reason: int, _opaque: Any
    ) -> None:
        up = state == libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED
        kind = "agent-connected" if up else "agent-disconnected"
        self.post(Event(domain.UUIDString(), kind, reason))

    def _on_block_job(
        self, _conn: Any, domain: libvirt.virDomain, disk: str, _type: int, status: int, _o: Any
    ) -> None:
        outcome = _BLOCK_JOB.get(status, str(status))
        self.post(Event(domain.UUIDString(), "block-job", (disk, outcome)))

    def _on_io_error(
        self,
        _conn: Any,
        domain: libvirt.virDomain,
        _path: str,
        alias: str,
        _action: int,
        reason: str,
        _opaque: Any,
    ) -> None:
        self.post(Event(domain.UUIDString(), "io-error", (alias, reason)))
