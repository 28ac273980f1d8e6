"""libvirt's events as nova's lifecycle events.

They are sent from a thread of their own: nova's handler talks to the conductor, which may be slow,
and must hold up neither libvirt's events nor whoever waits for them.
"""

import logging
import queue
import threading
from collections.abc import Callable

from nova.virt import event as nova_event

from kvmdriver.hypervisor.events import Event

LOG = logging.getLogger(__name__)

# After a stop nova compares states and may stop the instance for good; a reboot by libvirt or a
# failed migration brings the guest back within this time (seconds), and the event is dropped.
STOP_DELAY = 15.0

_KINDS = {
    "started": nova_event.EVENT_LIFECYCLE_STARTED,
    "stopped": nova_event.EVENT_LIFECYCLE_STOPPED,
    "crashed": nova_event.EVENT_LIFECYCLE_STOPPED,
    "resumed": nova_event.EVENT_LIFECYCLE_RESUMED,
    "suspended": nova_event.EVENT_LIFECYCLE_PAUSED,
}


class LifecycleEvents:
    """Turns events of the bus into nova's and passes them to ``emit``, stops with a delay."""

    def __init__(
        self, emit: Callable[[nova_event.LifecycleEvent], None], delay: float = STOP_DELAY
    ):
        self._emit = emit
        self._delay = delay
        self._queue: queue.SimpleQueue[nova_event.LifecycleEvent | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._stops: dict[str, threading.Timer] = {}
        self._thread = threading.Thread(target=self._run, name="kvmdriver-lifecycle", daemon=True)
        self._thread.start()

    def on_event(self, event: Event) -> None:
        """Take an event from the bus, without blocking."""
        transition = _KINDS.get(event.kind)
        if transition is None or event.uuid is None:
            return
        lifecycle = nova_event.LifecycleEvent(event.uuid, transition)
        with self._lock:
            waiting = self._stops.pop(event.uuid, None)
            if waiting is not None:
                waiting.cancel()
            if transition == nova_event.EVENT_LIFECYCLE_STOPPED:
                timer = threading.Timer(self._delay, self._send_stop, (event.uuid, lifecycle))
                timer.daemon = True
                self._stops[event.uuid] = timer
                timer.start()
                return
        self._queue.put(lifecycle)

    def _send_stop(self, uuid: str, lifecycle: nova_event.LifecycleEvent) -> None:
        with self._lock:
            self._stops.pop(uuid, None)
        self._queue.put(lifecycle)

    def close(self) -> None:
        with self._lock:
            for timer in self._stops.values():
                timer.cancel()
            self._stops.clear()
        self._queue.put(None)
        self._thread.join(5)

    def _run(self) -> None:
        while (lifecycle := self._queue.get()) is not None:
            try:
                self._emit(lifecycle)
            except Exception:
                LOG.exception("nova could not take %s", lifecycle)
