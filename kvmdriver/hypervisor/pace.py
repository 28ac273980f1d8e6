"""When calls are sent to libvirtd, so that each of those that may hang gets a worker of its own.

libvirtd starts a worker for a request only if there are exactly as many free workers as requests that
wait (virThreadPoolSendJob: the difference is unsigned). A request that comes while another one waits
for its new worker starts none. If that worker is then kept by a guest that hangs, the second request
waits until the guest answers, and so do all that come later, however few workers there are.
"""

import contextlib
import threading
import time
from collections.abc import Iterator

# Within so many seconds a request that was sent has its worker, on a busy machine as well.
PICKED_UP = 0.05


class Pace:
    """Lets one call that may hang begin at a time, and no other call with it. Thread-safe."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._alone = False
        self._fresh: dict[object, float] = {}

    def join(self) -> object:
        """Begin a call that does not hang, once no other that may hang is just beginning.

        :returns: what ``leave`` takes when the call has ended.
        """
        call = object()
        with self._condition:
            self._condition.wait_for(lambda: not self._alone, PICKED_UP)
            self._fresh[call] = time.monotonic()
        return call

    def leave(self, call: object) -> None:
        """Note that a call has ended."""
        with self._condition:
            del self._fresh[call]
            self._condition.notify_all()

    @contextlib.contextmanager
    def alone(self, seconds: float) -> Iterator[None]:
        """Send, in the body, a call that may hang. Calls of others wait until it has a worker.

        :param seconds: how long the body waits for its turn at most; after that it sends the call
            nevertheless.
        """
        if not self._begin(time.monotonic() + seconds):
            yield
            return
        try:
            yield
        finally:
            with self._condition:
                self._alone = False
                self._condition.notify_all()

    def _begin(self, deadline: float) -> bool:
        with self._condition:
            while self._alone or (wait := self._freshest()) > 0:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._condition.wait(left if self._alone else min(left, wait))
            self._alone = True
            return True

    def _freshest(self) -> float:
        """Seconds until the latest call that has not ended has its worker."""
        now = time.monotonic()
        return max((began + PICKED_UP - now for began in self._fresh.values()), default=0.0)
