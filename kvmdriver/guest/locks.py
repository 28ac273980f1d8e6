"""One lock for each instance, so that one operation at a time changes the instance."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from kvmdriver import exception


class InstanceLocks:
    """Locks by UUID, made when needed and gone when nobody holds or wants them.

    :param timeout: seconds that an operation waits for another one.
    :param waiting: operations that may wait for one instance, None for any number. Each has a
        thread, and those of an instance that hangs must not be all that there are.
    """

    def __init__(self, timeout: float = 60, waiting: int | None = None):
        self._timeout = timeout
        self._waiting = waiting
        self._guard = threading.Lock()
        self._locks: dict[str, tuple[threading.Lock, int]] = {}

    @contextlib.contextmanager
    def hold(self, *uuids: str) -> Iterator[None]:
        """Hold the locks of these instances, always taken in the same order. Not reentrant.

        :raises kvmdriver.exception.InstanceBusy: one was not free in time, or others wait.
        """
        deadline = time.monotonic() + self._timeout
        with contextlib.ExitStack() as stack:
            for uuid in sorted(set(uuids)):
                stack.enter_context(self._hold_one(uuid, deadline))
            yield

    @contextlib.contextmanager
    def hold_to_remove(
        self, uuid: str, interrupt: Callable[[], object], every: float = 1.0
    ) -> Iterator[None]:
        """Hold the lock of an instance that is to be removed.

        :param interrupt: called every so many seconds, while the lock is not free, to have the
            operation that holds it end.
        :raises kvmdriver.exception.InstanceBusy: the lock was not free in time.
        """
        deadline = time.monotonic() + self._timeout
        with self._hold_one(uuid, deadline, interrupt, every):
            yield

    @contextlib.contextmanager
    def hold_at_once(self, uuid: str) -> Iterator[None]:
        """Hold the lock of an instance that nobody works on.

        :raises kvmdriver.exception.InstanceBusy: an operation holds the lock.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._hold_one(uuid, time.monotonic()))
            except exception.InstanceBusy:
                raise exception.InstanceBusy("an operation is under way", instance=uuid) from None
            yield

    def __len__(self) -> int:
        return len(self._locks)

    @contextlib.contextmanager
    def _hold_one(
        self,
        uuid: str,
        deadline: float,
        interrupt: Callable[[], object] | None = None,
        every: float = 1.0,
    ) -> Iterator[None]:
        with self._guard:
            lock, users = self._locks.get(uuid, (threading.Lock(), 0))
            full = self._waiting is not None and users > self._waiting
            if full and interrupt is None:
                raise exception.InstanceBusy(
                    f"{users - 1} other operations wait for the instance already", instance=uuid
                )
            self._locks[uuid] = (lock, users + 1)
        try:
            if not _acquire(lock, deadline, interrupt, every):
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


def _acquire(
    lock: threading.Lock, deadline: float, interrupt: Callable[[], object] | None, every: float
) -> bool:
    if lock.acquire(blocking=False):
        return True
    while (left := deadline - time.monotonic()) > 0:
        if interrupt is not None:
            interrupt()
            left = min(left, every)
        if lock.acquire(timeout=left):
            return True
    return False
