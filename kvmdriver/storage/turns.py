"""Whose turn it is to fetch or to unpack an image: a few at a time, some in line, and no more."""

import contextlib
import threading
from collections.abc import Iterator

from kvmdriver import exception
from kvmdriver.progress import Progress

# How often a request in line tells that it waits, in seconds; it can be cancelled then.
_TELL_SECONDS = 1.0


class Turns:
    """Places for work on images. Each image is worked on once, also when several wait for it.

    Each request that works or waits has a thread; the limits keep threads for other requests.

    :param at_once: number of images that are worked on at the same time; None for any.
    :param in_line: number of requests that wait, for a place or for an image; None for any.
    """

    def __init__(self, at_once: int | None = None, in_line: int | None = None):
        self._at_once = at_once
        self._in_line = in_line
        self._condition = threading.Condition()
        self._under_way: set[str] = set()
        self._waiting = 0

    @contextlib.contextmanager
    def turn(self, name: str, progress: Progress) -> Iterator[None]:
        """Wait until nobody works on the image of that name and there is a place.

        :raises kvmdriver.exception.HostBusy: too many wait already.
        """
        if not self._begin(name):
            self._wait(name, progress)
        try:
            yield
        finally:
            with self._condition:
                self._under_way.discard(name)
                self._condition.notify_all()

    def _begin(self, name: str) -> bool:
        """Take a place now, or one in the line."""
        with self._condition:
            if self._take(name):
                return True
            if self._in_line is not None and self._waiting >= self._in_line:
                raise exception.HostBusy(
                    f"{len(self._under_way)} images are being fetched and {self._waiting} "
                    "requests wait for their turn",
                    remedy="ask again later, or raise [kvm_agent] waiting_downloads",
                )
            self._waiting += 1
            return False

    def _wait(self, name: str, progress: Progress) -> None:
        taken = False
        try:
            while not taken:
                progress("wait for other images", 0, None, "steps")
                with self._condition:
                    taken = self._condition.wait_for(lambda: self._take(name), _TELL_SECONDS)
        finally:
            with self._condition:
                self._waiting -= 1

    def _take(self, name: str) -> bool:
        full = self._at_once is not None and len(self._under_way) >= self._at_once
        if full or name in self._under_way:
            return False
        self._under_way.add(name)
        return True
