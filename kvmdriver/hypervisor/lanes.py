"""Connections for the calls that a guest may keep waiting.

libvirtd reads no more of a connection once five of its requests are under way
(``max_client_requests`` in libvirtd.conf), keepalive messages included. Five calls that wait for one
hung guest would end a connection that everybody shares.
"""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator

import libvirt

_PER_LANE = 4


@dataclasses.dataclass(eq=False)
class _Lane:
    raw: libvirt.virConnect
    calls: int = 0


class Lanes:
    """Opens connections as calls need them; one without calls is kept, others are closed.

    :param open_one: opens a connection, in the calling thread.
    """

    def __init__(self, open_one: Callable[[], libvirt.virConnect]):
        self._open = open_one
        self._lock = threading.Lock()
        self._lanes: list[_Lane] = []

    @contextlib.contextmanager
    def take(self) -> Iterator[libvirt.virConnect]:
        """Return a connection for one call, to be used in the thread that may hang."""
        with self._lock:
            lane = next((one for one in self._lanes if one.calls < _PER_LANE), None)
            if lane is not None:
                lane.calls += 1
        if lane is None:
            lane = _Lane(self._open(), calls=1)
            with self._lock:
                self._lanes.append(lane)
        try:
            yield lane.raw
        finally:
            self._give_back(lane)

    def forget(self) -> None:
        """Open other connections from now on: libvirtd is gone."""
        with self._lock:
            self._lanes.clear()

    def _give_back(self, lane: _Lane) -> None:
        with self._lock:
            lane.calls -= 1
            free = [one for one in self._lanes if not one.calls]
            spare = lane.calls == 0 and (lane not in self._lanes or len(free) > 1)
            if not spare and lane.raw.isAlive():
                return
            if lane in self._lanes:
                self._lanes.remove(lane)
        if not lane.calls:
            with contextlib.suppress(libvirt.libvirtError):
                lane.raw.close()
