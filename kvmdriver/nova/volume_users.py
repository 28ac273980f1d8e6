"""Which servers of this host have a multiattach volume: one at a time.

A host connects a volume once. The first server that is disconnected from a volume with two users
would pull the device from under the other one.
"""

import collections
import contextlib
import threading
from collections.abc import Iterator, Sequence

from kvmdriver.hypervisor.hypervisor import Hypervisor
from kvmdriver.nova import refusals
from kvmdriver.nova.refusals import VolumeDemand


class VolumeUsers:
    """Users of volumes: the domains of this host, and the operations under way.

    An operation reserves its volumes until its domain has them, so that two servers that ask at
    the same time are told apart. The lock is held for one bulk question to libvirt, and never
    while a volume is connected.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reserved: dict[str, collections.Counter[str]] = collections.defaultdict(
            collections.Counter
        )
        self._arriving: dict[str, tuple[str, ...]] = {}

    @contextlib.contextmanager
    def reserved(
        self, hypervisor: Hypervisor, uuid: str, volumes: Sequence[VolumeDemand]
    ) -> Iterator[None]:
        """Reserve the multiattach volumes of a server while the body connects them.

        :raises kvmdriver.exception.Unsupported: another server of this host has one of them.
        """
        ids = _ids(volumes)
        self._reserve(hypervisor, uuid, ids)
        try:
            yield
        finally:
            self._release(uuid, ids)

    def expect(self, hypervisor: Hypervisor, uuid: str, volumes: Sequence[VolumeDemand]) -> None:
        """Reserve the volumes of a server that comes by live migration until ``settle``.

        :raises kvmdriver.exception.Unsupported: another server of this host has one of them.
        """
        self.settle(uuid)
        ids = _ids(volumes)
        self._reserve(hypervisor, uuid, ids)
        self._arriving[uuid] = ids

    def settle(self, uuid: str) -> None:
        """End the reservation of ``expect``: the server has arrived, or stays where it was."""
        self._release(uuid, self._arriving.pop(uuid, ()))

    def check(self, hypervisor: Hypervisor, uuid: str, volumes: Sequence[VolumeDemand]) -> None:
        """Ask whether ``reserved`` would refuse, without a reservation.

        :raises kvmdriver.exception.Unsupported: another server of this host has one of them.
        """
        with self.reserved(hypervisor, uuid, volumes):
            pass

    @contextlib.contextmanager
    def leaving(self, hypervisor: Hypervisor, uuid: str, volume_id: str) -> Iterator[bool]:
        """Whether the host may disconnect a volume that a server is done with.

        The body disconnects it; no other server can reserve the volume meanwhile.
        """
        with self._lock:
            alone = not self._others(hypervisor.disk_serials(), uuid, volume_id)
            if alone:
                self._reserved[volume_id][uuid] += 1
        try:
            yield alone
        finally:
            if alone:
                self._release(uuid, (volume_id,))

    def _reserve(self, hypervisor: Hypervisor, uuid: str, ids: Sequence[str]) -> None:
        if not ids:
            return
        with self._lock:
            serials = hypervisor.disk_serials()
            for volume_id in ids:
                others = self._others(serials, uuid, volume_id)
                # two servers that nova's own driver has started here may both start again
                if others and volume_id not in serials.get(uuid, ()):
                    raise refusals.second_server(volume_id, min(others))
            for volume_id in ids:
                self._reserved[volume_id][uuid] += 1

    def _others(self, serials: dict[str, set[str]], uuid: str, volume_id: str) -> set[str]:
        users = {user for user, found in serials.items() if volume_id in found}
        return (users | set(self._reserved.get(volume_id, ()))) - {uuid}

    def _release(self, uuid: str, ids: Sequence[str]) -> None:
        with self._lock:
            for volume_id in ids:
                users = self._reserved[volume_id]
                users[uuid] -= 1
                if users[uuid] <= 0:
                    del users[uuid]
                if not users:
                    del self._reserved[volume_id]


def _ids(volumes: Sequence[VolumeDemand]) -> tuple[str, ...]:
    return tuple(volume.id for volume in volumes if volume.multiattach)
