"""Threads for libvirt calls, which nobody can end from outside.

A thread whose call never returns is lost, and must cost nothing but itself: it does not count as a
free one, and as a daemon it does not keep the process from ending. ``concurrent.futures`` joins its
threads at the end of the process, so its executor cannot be used here.
"""

import concurrent.futures
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_IDLE_SECONDS = 30.0

_Work = tuple["concurrent.futures.Future[Any]", Callable[[], Any]]


class CallThreads:
    """Runs each call at once: in a thread that is free, or else in a new one.

    Callers bound how many calls there are. A thread that has had nothing to do for a while ends.
    """

    def __init__(self, name: str):
        self._name = name
        self._lock = threading.Lock()
        self._free = 0
        self._queue: queue.SimpleQueue[_Work] = queue.SimpleQueue()

    def submit(self, function: Callable[..., T], *args: Any) -> "concurrent.futures.Future[T]":
        """Start a call; the future has its outcome."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        work = (future, lambda: function(*args))
        with self._lock:
            if self._free:
                self._free -= 1
                self._queue.put(work)
                return future
        threading.Thread(target=self._run, args=(work,), name=self._name, daemon=True).start()
        return future

    def _run(self, work: _Work | None) -> None:
        while work is not None:
            future, function = work
            try:
                result = function()
            except BaseException as error:  # noqa: B036 the error is for the one who waits
                future.set_exception(error)
            else:
                future.set_result(result)
            del future, function, work
            work = self._next()

    def _next(self) -> _Work | None:
        with self._lock:
            self._free += 1
        try:
            return self._queue.get(timeout=_IDLE_SECONDS)
        except queue.Empty:
            pass
        with self._lock:
            if self._free:
                self._free -= 1
                return None
        # a call was assigned to this thread in the meantime
        return self._queue.get()
