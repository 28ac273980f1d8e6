"""Whose turn it is to download: a few at a time, some in line, and no more than that."""

import contextlib
import threading
from collections.abc import Iterator

from kvmdriver import exception
from kvmdriver.progress import Progress

# How often a download in line tells that it waits, in seconds; it can be cancelled then.
_TELL_SECONDS = 1.0


class Downloads:
    """Places for downloads. One image is downloaded once, also when several wait for it.

    Each download has a thread that works on a request; the limits keep threads for other requests.

    :param at_once: number of downloads at the same time.
    :param in_line: number of requests that wait for one of these, or for the same image.
    """

    def __init__(self, at_once: int = 4, in_line: int = 16):
        self._at_once = at_once
        self._in_line = in_line
        self._condition = threading.Condition()
        self._under_way: set[str] = set()
        self._waiting = 0

    @contextlib.contextmanager
    def turn(self, name: str, progress: Progress) -> Iterator[None]:
        """Wait until the image of that name may be downloaded.

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
            if not self._waiting and self._take(name):
                return True
            if self._waiting >= self._in_line:
                raise exception.HostBusy(
                    f"{len(self._under_way)} images are being downloaded and {self._waiting} "
                    "requests wait for their turn",
                    remedy="ask again later, or raise [kvm_agent] waiting_downloads",
                )
            self._waiting += 1
            return False

    def _wait(self, name: str, progress: Progress) -> None:
        taken = False
        try:
            while not taken:
                progress("wait for other downloads", 0, None, "steps")
                with self._condition:
                    taken = self._condition.wait_for(lambda: self._take(name), _TELL_SECONDS)
        finally:
            with self._condition:
                self._waiting -= 1

    def _take(self, name: str) -> bool:
        if name in self._under_way or len(self._under_way) >= self._at_once:
            return False
        self._under_way.add(name)
        return True
