"""Power states of all domains: one bulk call, kept until an event says that something changed.

nova asks for the state of every instance, one after the other, in a periodic task; none of these
questions costs a libvirt call while nothing happens.
"""

import threading
import time

from nova.compute import power_state

from kvmdriver import exception
from kvmdriver.hypervisor.events import Event
from kvmdriver.hypervisor.hypervisor import Hypervisor
from kvmdriver.hypervisor.stats import PowerState

# A snapshot is not used for longer even if no event comes: events can get lost with a connection.
_MAX_AGE_SECONDS = 60.0

_CHANGES = {
    "connected",
    "crashed",
    "defined",
    "disconnected",
    "io-error",
    "pmsuspended",
    "resumed",
    "shutdown",
    "started",
    "stopped",
    "suspended",
    "undefined",
}

# Ours -> nova.compute.power_state. A guest on its way down still runs.
NOVA_STATES = {
    "running": power_state.RUNNING,
    "blocked": power_state.PAUSED,
    "paused": power_state.PAUSED,
    "shutting-down": power_state.RUNNING,
    "stopped": power_state.SHUTDOWN,
    "suspended": power_state.SHUTDOWN,
    "crashed": power_state.CRASHED,
}


class PowerStates:
    """A snapshot of all power states, thrown away when an event or an operation changes one."""

    def __init__(self, hypervisor: Hypervisor):
        self._hypervisor = hypervisor
        self._lock = threading.Lock()
        self._version = 0
        self._states: dict[str, PowerState] | None = None
        self._taken = 0.0
        self._vcpus: int | None = None
        hypervisor.events.subscribe(self._on_event)

    def _on_event(self, event: Event) -> None:
        if event.kind in _CHANGES:
            self.forget()

    def forget(self) -> None:
        """Drop what was known, which is no longer true."""
        with self._lock:
            self._version += 1
            self._states = None
            self._vcpus = None

    def vcpus_used(self) -> int:
        """Return the vCPUs of all running guests; counted again after a guest has started or stopped."""
        vcpus = self._vcpus
        if vcpus is None:
            with self._lock:
                version = self._version
            vcpus = self._hypervisor.vcpus_used()
            with self._lock:
                if version == self._version:
                    self._vcpus = vcpus
        return vcpus

    def all(self) -> dict[str, PowerState]:
        """Power state of every domain by UUID."""
        states = self._states
        if states is not None and time.monotonic() - self._taken < _MAX_AGE_SECONDS:
            return states
        with self._lock:
            version = self._version
        taken = time.monotonic()
        states = self._hypervisor.power_states()
        with self._lock:
            # an event that came in the meantime may not be part of what we have read
            if version == self._version:
                self._states, self._taken = states, taken
        return states

    def get(self, uuid: str) -> PowerState:
        """Return the power state of a domain.

        :raises kvmdriver.exception.InstanceNotFound: there is no such domain.
        """
        state = self.all().get(uuid)
        if state is None:
            raise exception.InstanceNotFound(f"there is no domain {uuid}", instance=uuid)
        return state
