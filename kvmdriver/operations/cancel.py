"""Cancelling an operation from another thread: the operation undoes itself."""

import contextlib
import threading
from collections.abc import Iterator

from kvmdriver import exception
from kvmdriver.progress import Progress


class _Watched:
    """The progress of one operation. Its report raises once the operation is cancelled."""

    def __init__(self, uuid: str, name: str, progress: Progress, *, goes_with_instance: bool):
        self.uuid = uuid
        self.name = name
        self.goes_with_instance = goes_with_instance
        self.reason: str | None = None
        self._progress = progress

    def __call__(self, stage: str, done: int, total: int | None, unit: str = "bytes") -> None:
        if self.reason is not None:
            raise exception.OperationCancelled(
                f"the operation was cancelled: {self.reason}", instance=self.name
            )
        self._progress(stage, done, total, unit)


class Cancellations:
    """The operations that can be cancelled: those that report progress."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: list[_Watched] = []
        self._ended: str | None = None

    @contextlib.contextmanager
    def watch(
        self, uuid: str, name: str, progress: Progress, *, goes_with_instance: bool = True
    ) -> Iterator[Progress]:
        """Make an operation cancellable through the progress that it reports.

        :param goes_with_instance: the operation is worth nothing without its instance, so a
            deletion of the instance cancels it.
        """
        watched = _Watched(uuid, name, progress, goes_with_instance=goes_with_instance)
        with self._lock:
            watched.reason = self._ended
            self._watched.append(watched)
        try:
            yield watched
        finally:
            with self._lock:
                self._watched.remove(watched)

    def instance(self, name_or_uuid: str) -> str | None:
        """Return the UUID of the instance that an operation is making under this name or UUID."""
        with self._lock:
            return next((w.uuid for w in self._watched if name_or_uuid in (w.uuid, w.name)), None)

    def cancel(self, uuid: str, reason: str) -> None:
        """Cancel the operations on an instance, which raise at their next report of progress.

        :raises: nothing; ``OperationCancelled`` is raised in the operations.
        """
        with self._lock:
            for watched in self._watched:
                if watched.uuid == uuid and watched.goes_with_instance:
                    watched.reason = reason

    def cancel_all(self, reason: str) -> None:
        """Cancel every operation, also those that begin later."""
        with self._lock:
            self._ended = reason
            for watched in self._watched:
                watched.reason = reason
