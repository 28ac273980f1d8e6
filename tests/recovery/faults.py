"""Faults that hit a migration at a chosen moment, and what they leave."""

import contextlib
import dataclasses
import os
import signal
import threading
from collections.abc import Callable
from typing import Literal

import libvirt

from kvmdriver.hypervisor.events import LOOP
from tests import namespace
from tests.multihost.laboratory import Host

Victim = Literal["agent", "libvirtd", "QEMU", "link"]
Side = Literal["source", "destination"]
State = Literal["prepare", "run", "switch-over", "finish"]

VICTIMS: tuple[Victim, ...] = ("agent", "libvirtd", "QEMU")
SIDES: tuple[Side, ...] = ("source", "destination")
STATES: tuple[State, ...] = ("prepare", "run", "switch-over", "finish")


@dataclasses.dataclass(frozen=True)
class Fault:
    """What is killed, where, and when. A link has two ends and is cut at one of them."""

    state: State
    victim: Victim
    side: Side

    @property
    def name(self) -> str:
        place = "" if self.victim == "link" else f" of the {self.side}"
        return f"{self.victim}{place} in {self.state}"


def all_faults() -> list[Fault]:
    found = []
    for state in STATES:
        for victim in VICTIMS:
            for side in SIDES:
                if state == "prepare" and victim == "QEMU" and side == "destination":
                    continue  # there is none yet
                if state == "finish" and victim == "QEMU" and side == "source":
                    continue  # there is none any more
                found.append(Fault(state, victim, side))
        found.append(Fault(state, "link", "source"))
    return found


class Trigger:
    """Calls a function at the moment at which libvirt tells of an event on a host."""

    def __init__(self, host: Host, uuid: str, kind: int, detail: int, act: Callable[[], None]):
        LOOP.ensure_running()
        self.happened = threading.Event()
        self._uuid, self._kind, self._detail, self._act = uuid, kind, detail, act
        self._connection = libvirt.open(host.uri)
        self._callback = self._connection.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_event, None
        )

    def _on_event(
        self, _connection: object, domain: libvirt.virDomain, kind: int, detail: int, _o: object
    ) -> None:
        wanted = (self._uuid, self._kind, self._detail)
        if (domain.UUIDString(), kind, detail) == wanted and not self.happened.is_set():
            # in libvirt's own thread: a switch-over takes no longer than a few milliseconds
            self._act()
            self.happened.set()

    def close(self) -> None:
        with contextlib.suppress(libvirt.libvirtError):
            self._connection.domainEventDeregisterAny(self._callback)
        with contextlib.suppress(libvirt.libvirtError):
            self._connection.close()


def pids(host: Host, pattern: str) -> list[int]:
    """Processes of a host by their command lines, numbered as the runner sees them."""
    found = []
    with open(f"/proc/{host.pid}/ns/pid") as handle:
        space = os.fstat(handle.fileno()).st_ino
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{entry}/cmdline") as file:
                command = file.read().replace("\0", " ")
            if pattern in command and os.stat(f"/proc/{entry}/ns/pid").st_ino == space:
                found.append(int(entry))
    return found


def killer(host: Host, victim: Victim, uuid: str) -> Callable[[], None]:
    """A function that kills at once; what must be found out for that is found out now."""
    if victim == "link":
        return host.cut
    pattern = {
        "agent": "kvmdriver-agent",
        "libvirtd": "libvirtd -d",
        "QEMU": f"-uuid {uuid}",
    }[victim]
    victims = pids(host, pattern)
    if not victims:
        raise AssertionError(f"there is no {victim} on {host.name}")

    def kill() -> None:
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    return kill


def repair(host: Host, victim: Victim) -> None:
    """Start again what was killed."""
    if victim == "agent":
        host.kill_agent()
        host.start_agent()
    elif victim == "libvirtd":
        host.forget_connection()
        if not pids(host, "libvirtd -d"):
            host.start_libvirtd()
    elif victim == "link":
        host.heal()


def wait_for_qemu(host: Host, uuid: str) -> None:
    namespace.wait_for(lambda: bool(pids(host, f"-uuid {uuid}")), 60, 0.05)
