"""Calls that need an answer of one guest's QEMU, and how few of them may wait for it.

libvirt waits for a QEMU that is stopped or stands on dead storage without any limit, and each call
that waits takes one of libvirtd's workers (``max_workers``, 20) and one of the five requests that
libvirtd reads of a connection before it reads no more (``max_client_requests``; see
https://libvirt.org/kbase/daemons.html and libvirtd.conf). So these calls are counted.
"""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator

from kvmdriver import exception

# A guest is asked one thing by the operation that has its lock and one by somebody who looks.
_PER_GUEST = 2
# Fewer than libvirtd has workers, so that some are left for everything else.
_ALL = 16
# How long a new call waits for an earlier one that is late and may come back any moment.
_PATIENCE = 2.0
# A call that is this late will not come back.
_LOST_AFTER = 10.0


@dataclasses.dataclass(eq=False)
class GuestCall:
    """One call under way. ``late``: since when its caller has stopped to wait (monotonic)."""

    guest: str
    began: float
    late: float | None = None
    given_up: bool = False
    wake: threading.Event = dataclasses.field(default_factory=threading.Event)


def agent_of(guest: str) -> str:
    """Return the name under which calls of a guest's agent are counted: QEMU may answer without it."""
    return f"{guest} agent"


class GuestCalls:
    """Who waits for which guest. A guest is named by its UUID, its agent by ``agent_of`` that."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._calls: dict[str, list[GuestCall]] = {}

    def enter(self, guest: str, seconds: float, instance: str | None = None) -> GuestCall:
        """Begin a call, within so many seconds.

        :raises kvmdriver.exception.InstanceUnresponsive: earlier calls wait for this guest.
        :raises kvmdriver.exception.HostBusy: too many calls wait for other guests.
        """
        now = time.monotonic()
        deadline = now + seconds
        with self._condition:
            while True:
                calls = self._calls.get(guest, [])
                late = [call.late for call in calls if call.late is not None]
                full = sum(map(len, self._calls.values())) >= _ALL
                if not late and len(calls) < _PER_GUEST and not full:
                    call = GuestCall(guest, time.monotonic())
                    self._calls.setdefault(guest, []).append(call)
                    return call
                limit = deadline
                if late:
                    lost = now - min(late) > _LOST_AFTER
                    limit = now if lost else min(deadline, now + _PATIENCE)
                left = limit - time.monotonic()
                if left <= 0:
                    if late or len(calls) >= _PER_GUEST:
                        raise unresponsive(instance)
                    raise exception.HostBusy(
                        "too many guests do not answer, and libvirt waits for them",
                        instance=instance,
                        remedy="look at their QEMU processes and their storage",
                    )
                self._condition.wait(left)

    @contextlib.contextmanager
    def without_limit(self, guest: str) -> Iterator[None]:
        """Begin a call that ends the guest's QEMU; nothing waits for that QEMU afterwards."""
        yield
        with self._condition:
            for name in (guest, agent_of(guest)):
                for call in self._calls.pop(name, []):
                    call.wake.set()
            self._condition.notify_all()

    def leave(self, call: GuestCall) -> None:
        """End a call that has returned."""
        with self._condition:
            calls = self._calls.get(call.guest, [])
            if call in calls:
                calls.remove(call)
                if not calls:
                    del self._calls[call.guest]
                self._condition.notify_all()
        call.wake.set()

    def is_late(self, call: GuestCall) -> None:
        """Nobody waits for the call any more, which may still return."""
        with self._condition:
            call.late = time.monotonic()

    def give_up(self, guest: str, older_than: float) -> int:
        """End the waits for calls of a guest that were begun so many seconds ago.

        :returns: how many callers go on without an answer.
        """
        now, ended = time.monotonic(), 0
        with self._condition:
            for name in (guest, agent_of(guest)):
                for call in self._calls.get(name, []):
                    if call.late is None and now - call.began >= older_than:
                        call.late, call.given_up = now, True
                        call.wake.set()
                        ended += 1
        return ended

    def unanswered(self) -> set[str]:
        """Return the guests that owe an answer to somebody who has stopped to wait for it."""
        with self._condition:
            return {
                guest
                for guest, calls in self._calls.items()
                if any(call.late is not None for call in calls)
            }

    def forget(self) -> None:
        """Forget all calls: libvirtd is gone, and with it whatever waited there."""
        with self._condition:
            for calls in self._calls.values():
                for call in calls:
                    call.wake.set()
            self._calls.clear()
            self._condition.notify_all()


def unresponsive(instance: str | None, seconds: float | None = None) -> exception.KVMDriverError:
    """Return the error about a guest whose QEMU does not answer, within so many seconds if given."""
    within = "" if seconds is None else f" within {seconds:g} s"
    return exception.InstanceUnresponsive(
        f"the guest's QEMU does not answer{within}", instance=instance
    )
