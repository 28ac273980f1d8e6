"""One lock for each instance: one operation at a time changes it."""

import contextlib
import threading
import time
from collections.abc import Iterator

from kvmdriver import exception


class InstanceLocks:
    """Locks by UUID, made when needed and gone when nobody holds or wants them."""

    def __init__(self, timeout: float = 60):
        self._timeout = timeout
        self._guard = threading.Lock()
        self._locks: dict[str, tuple[threading.Lock, int]] = {}

    @contextlib.contextmanager
    def hold(self, *uuids: str) -> Iterator[None]:
        """Hold the locks of these instances, always taken in the same order. Not reentrant.

        :raises kvmdriver.exception.InstanceBusy: one was not free in time.
        """
        deadline = time.monotonic() + self._timeout
        with contextlib.ExitStack() as stack:
            for uuid in sorted(set(uuids)):
                stack.enter_context(self._hold_one(uuid, deadline))
            yield

    def __len__(self) -> int:
        return len(self._locks)

    @contextlib.contextmanager
    def _hold_one(self, uuid: str, deadline: float) -> Iterator[None]:
        with self._guard:
            lock, users = self._locks.get(uuid, (threading.Lock(), 0))
            self._locks[uuid] = (lock, users + 1)
        try:
            if not lock.acquire(timeout=max(0, deadline - time.monotonic())):
                raise exception.InstanceBusy(
                    f"another operation has kept the instance for more than {self._timeout:g} s",
                    instance=uuid,
                )
            try:
                yield
            finally:
                lock.release()
        finally:
            with self._guard:
                lock, users = self._locks[uuid]
                if users == 1:
                    del self._locks[uuid]
                else:
                    self._locks[uuid] = (lock, users - 1)
