"""Objects of libvirt that Python's garbage collector finds are freed in a thread of their own.

libvirt's Python binding asks for the error of a call after the call has failed. The collector may
run between the two, in the same thread. When it frees an object of libvirt there, libvirt forgets
the error (virDomainFree calls virResetLastError), and "no domain" becomes an error without code and
message. Objects that are freed because nobody refers to them any more do no such harm.
"""

import gc
import queue
import threading
from collections.abc import Callable
from typing import Any

import libvirt

_Destructor = Callable[[Any], None]

_waiting: "queue.SimpleQueue[tuple[_Destructor, Any]]" = queue.SimpleQueue()
# The thread in which the collector runs at the moment.
_collector: int | None = None
_lock = threading.Lock()
_installed = False


def install() -> None:
    """Take over the destructors of libvirt's classes, once for the process."""
    global _installed
    with _lock:
        if _installed:
            return
        threading.Thread(target=_free, name="libvirt-garbage", daemon=True).start()
        gc.callbacks.append(_note)
        for kind in list(vars(libvirt).values()):
            if isinstance(kind, type) and "__del__" in vars(kind):
                kind.__del__ = _destructor(kind.__del__)  # type: ignore[attr-defined]
        _installed = True


def _note(phase: str, _info: dict[str, int]) -> None:
    global _collector
    _collector = threading.get_ident() if phase == "start" else None


def _destructor(original: _Destructor) -> _Destructor:
    def free(self: Any) -> None:
        if _collector == threading.get_ident():
            # the queue may be used by what the collector runs; Python calls this only once
            _waiting.put((original, self))
        else:
            original(self)

    return free


def _free() -> None:
    while True:
        original, found = _waiting.get()
        original(found)
        del original, found
