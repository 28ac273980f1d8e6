"""A guest's serial port as a stream that can be waited for together with a socket."""

import contextlib
import os
from typing import Any

import libvirt

from kvmdriver import exception
from kvmdriver.hypervisor.domain import Domain

_READABLE = libvirt.VIR_STREAM_EVENT_READABLE
_WRITABLE = libvirt.VIR_STREAM_EVENT_WRITABLE
_ENDED = libvirt.VIR_STREAM_EVENT_ERROR | libvirt.VIR_STREAM_EVENT_HANGUP
_WOULD_BLOCK = -2


class ConsoleStream:
    """Reads and writes never block; ``wakeup`` becomes readable when there is something to do."""

    def __init__(self, domain: Domain):
        self._stream = domain.open_console()
        self._ended = False
        self.wakeup, self._signal = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._waits_for = _READABLE | _ENDED
        self._stream.eventAddCallback(self._waits_for, self._on_event, None)

    def _on_event(self, _stream: Any, events: int, _opaque: Any) -> None:
        # libvirt's event thread: set the signal, do nothing else. It comes back until data has
        # been read; a full pipe means that the signal is set already.
        if events & _ENDED:
            self._ended = True
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._signal, b"!")

    def wait_for(self, *, reading: bool, writing: bool) -> None:
        """Wake on data of the guest, or when the guest takes data again; its end always wakes."""
        wanted = _ENDED | (_READABLE if reading else 0) | (_WRITABLE if writing else 0)
        if wanted != self._waits_for:
            self._waits_for = wanted
            with contextlib.suppress(libvirt.libvirtError):  # it has ended, which was told
                self._stream.eventUpdateCallback(wanted)

    def woken(self) -> None:
        """Take the signal: the next event sets it again."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.wakeup, 4096)

    def receive(self, size: int) -> bytes | None:
        """Return what the guest has written, possibly nothing; None when the stream has ended."""
        try:
            data = self._stream.recv(size)
        except libvirt.libvirtError:
            return None
        if data == _WOULD_BLOCK:
            return None if self._ended else b""
        return data or None

    def send(self, data: bytes) -> int:
        """Type into the guest; how many bytes it has taken, possibly none.

        :raises kvmdriver.exception.InvalidState: the stream has ended.
        """
        try:
            count = self._stream.send(data)
        except libvirt.libvirtError as error:
            raise exception.InvalidState(f"the console has ended: {error}") from None
        return 0 if count == _WOULD_BLOCK else int(count)

    def close(self) -> None:
        with contextlib.suppress(libvirt.libvirtError):
            self._stream.eventRemoveCallback()
        with contextlib.suppress(libvirt.libvirtError):
            self._stream.abort()
        os.close(self.wakeup)
        os.close(self._signal)
