"""Listening sockets whose connections cost nothing before their first line is known to be right.

One thread waits for all connections of an acceptor. What a connection may do before its line is
complete is bounded: how many there are at a time, how long each may take for the TLS handshake and
the line together, and how long the line may be.
"""

import collections
import contextlib
import dataclasses
import errno
import logging
import os
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable

LOG = logging.getLogger(__name__)

# Called with a connection that does not block, its first line without the end, and what came
# behind it. The answer is why the connection is refused, or None where the function has taken it.
OnLine = Callable[[socket.socket, bytes, bytes], str | None]

# Seconds between two lines of the log about refused connections.
_QUIET = 10.0
# Seconds without accepting anything after the process has run out of descriptors.
_EXHAUSTED = 0.1


@dataclasses.dataclass(eq=False)
class Listener:
    """One port of an acceptor; ``expires`` is a point in time (time.monotonic), or None."""

    socket: socket.socket
    port: int
    on_line: OnLine
    tls: ssl.SSLContext | None
    expires: float | None
    on_expiry: Callable[[], None] | None
    closed: bool = False

    def close(self) -> None:
        """Take no more connections, and drop those whose line is not complete."""
        self.closed = True
        # wakes the acceptor's thread, which frees the descriptor; the port is free at once
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


@dataclasses.dataclass(eq=False)
class _Visitor:
    """A connection whose first line is not complete."""

    socket: socket.socket
    listener: Listener
    host: str
    deadline: float
    greeted: bool
    received: bytes = b""


class Acceptor:
    """Any number of ports, served by one thread as long as there are any. Thread-safe.

    :param name: of the thread, and in the log.
    :param limit: connections whose line is not complete, at a time. One more makes the oldest of
        the host that has the most of them go, so that nobody keeps others out.
    :param seconds: for the TLS handshake and the line together.
    :param line: longest line in bytes, its end included.
    """

    def __init__(self, name: str, *, limit: int = 32, seconds: float = 10.0, line: int = 4096):
        self._name = name
        self._limit = limit
        self._seconds = seconds
        self._line = line
        self._lock = threading.Lock()
        self._running = False
        self._new: list[Listener] = []
        self._wake = -1
        # these belong to the thread
        self._selector: selectors.BaseSelector
        self._listeners: set[Listener] = set()
        self._visitors: dict[_Visitor, None] = {}
        self._quiet_until = 0.0
        self._unsaid = 0

    def listen(
        self,
        address: str,
        port: int,
        on_line: OnLine,
        *,
        tls: ssl.SSLContext | None = None,
        seconds: float | None = None,
        on_expiry: Callable[[], None] | None = None,
    ) -> Listener:
        """Take connections to a port.

        :param port: 0 leaves the choice to the kernel.
        :param on_line: called in the acceptor's thread; must not wait.
        :param tls: encrypts all connections.
        :param seconds: after which the port is closed and ``on_expiry`` called; None for never.
        :raises OSError: the address is none of this host's, or the port is taken.
        """
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        server = socket.create_server((address, port), family=family)
        server.setblocking(False)
        listener = Listener(
            socket=server,
            port=server.getsockname()[1],
            on_line=on_line,
            tls=tls,
            expires=None if seconds is None else time.monotonic() + seconds,
            on_expiry=on_expiry,
        )
        with self._lock:
            self._new.append(listener)
            if self._running:
                os.eventfd_write(self._wake, 1)
                return listener
            self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._running = True
        threading.Thread(target=self._run, name=self._name, daemon=True).start()
        return listener

    def _run(self) -> None:
        with selectors.DefaultSelector() as self._selector:
            self._selector.register(self._wake, selectors.EVENT_READ)
            while self._goes_on():
                for key, _events in self._selector.select(self._patience()):
                    if isinstance(key.data, Listener):
                        self._accept(key.data)
                    elif isinstance(key.data, _Visitor) and key.data in self._visitors:
                        self._hear(key.data)
                self._clear()

    def _goes_on(self) -> bool:
        """Take in what is new; False when nothing is left to do."""
        with self._lock:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
            for listener in self._new:
                self._selector.register(listener.socket, selectors.EVENT_READ, listener)
                self._listeners.add(listener)
            self._new.clear()
            if self._listeners:
                return True
            self._running = False
            os.close(self._wake)
            return False

    def _patience(self) -> float | None:
        times = [visitor.deadline for visitor in self._visitors]
        times += [found.expires for found in self._listeners if found.expires is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _clear(self) -> None:
        """End what is closed or late."""
        now = time.monotonic()
        for listener in list(self._listeners):
            late = listener.expires is not None and listener.expires <= now
            if late and not listener.closed:
                listener.closed = True
                if listener.on_expiry is not None:
                    listener.on_expiry()
            if listener.closed:
                self._listeners.discard(listener)
                self._selector.unregister(listener.socket)
                listener.socket.close()
        for visitor in list(self._visitors):
            if visitor.listener.closed:
                self._drop(visitor, None)
            elif visitor.deadline <= now:
                self._drop(visitor, f"nothing complete came within {self._seconds:.0f} s")

    def _accept(self, listener: Listener) -> None:
        try:
            raw, peer = listener.socket.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._complain("anybody", error.strerror)
                time.sleep(_EXHAUSTED)  # the listener stays readable: else this would spin
            elif error.errno == errno.EINVAL:
                listener.closed = True  # the kernel's answer after shutdown
            return
        if len(self._visitors) >= self._limit:
            self._drop(self._superfluous(), "too many connections wait")
        try:
            raw.setblocking(False)
            client = raw
            if listener.tls is not None:
                client = listener.tls.wrap_socket(
                    raw, server_side=True, do_handshake_on_connect=False
                )
        except OSError as error:
            raw.close()
            self._complain(peer[0], error)
            return
        visitor = _Visitor(
            socket=client,
            listener=listener,
            host=peer[0],
            deadline=time.monotonic() + self._seconds,
            greeted=listener.tls is None,
        )
        self._visitors[visitor] = None
        self._selector.register(client, selectors.EVENT_READ, visitor)

    def _superfluous(self) -> _Visitor:
        counts = collections.Counter(visitor.host for visitor in self._visitors)
        host = counts.most_common(1)[0][0]
        return next(visitor for visitor in self._visitors if visitor.host == host)

    def _hear(self, visitor: _Visitor) -> None:
        client = visitor.socket
        try:
            if isinstance(client, ssl.SSLSocket) and not visitor.greeted:
                client.do_handshake()
                visitor.greeted = True
            while b"\n" not in visitor.received:
                room = self._line - len(visitor.received)
                if room <= 0:
                    self._drop(visitor, "the first line is too long")
                    return
                data = client.recv(room)
                if not data:
                    self._drop(visitor, "the connection ended before its first line did")
                    return
                visitor.received += data
        except (BlockingIOError, ssl.SSLWantReadError):
            self._selector.modify(client, selectors.EVENT_READ, visitor)
        except ssl.SSLWantWriteError:
            self._selector.modify(client, selectors.EVENT_WRITE, visitor)
        except OSError as error:
            self._drop(visitor, error)
        else:
            self._hand_over(visitor)

    def _hand_over(self, visitor: _Visitor) -> None:
        del self._visitors[visitor]
        self._selector.unregister(visitor.socket)
        line, _, rest = visitor.received.partition(b"\n")
        try:
            reason = visitor.listener.on_line(visitor.socket, line, rest)
        except Exception:
            LOG.exception("%s: a connection from %s", self._name, visitor.host)
            visitor.socket.close()
            return
        if reason is not None:
            self._complain(visitor.host, reason)
            visitor.socket.close()

    def _drop(self, visitor: _Visitor, reason: object) -> None:
        del self._visitors[visitor]
        self._selector.unregister(visitor.socket)
        if reason is not None:
            self._complain(visitor.host, reason)
        visitor.socket.close()

    def _complain(self, host: str, reason: object) -> None:
        """Say that a connection was refused; not more often than the log can be read."""
        now = time.monotonic()
        if now < self._quiet_until:
            self._unsaid += 1
            return
        more = f", and {self._unsaid} before it" if self._unsaid else ""
        LOG.warning("%s: a connection from %s was refused: %s%s", self._name, host, reason, more)
        self._quiet_until, self._unsaid = now + _QUIET, 0
