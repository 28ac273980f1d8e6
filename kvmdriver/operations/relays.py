"""Serial consoles as sockets: a bounded number, of which only those in use cost a thread."""

import contextlib
import hmac
import logging
import secrets
import select
import socket
import threading

from kvmdriver import exception
from kvmdriver.acceptor import Acceptor, Listener
from kvmdriver.hypervisor.console import ConsoleStream
from kvmdriver.hypervisor.domain import Domain

LOG = logging.getLogger(__name__)

_CHUNK = 16384
_TOKEN_BYTES = 32
# Seconds for a client to send its token, and clients that are at that.
_GREETING = 10.0
_STRANGERS = 32
# Seconds of silence after which a client is asked whether it is still there, and between questions.
_IDLE, _AGAIN, _TIMES = 60, 10, 3


class Relays:
    """Consoles that wait for their client, one port each, and consoles in use. Thread-safe."""

    def __init__(self) -> None:
        self._acceptor = Acceptor(
            "console", limit=_STRANGERS, seconds=_GREETING, line=2 * _TOKEN_BYTES + 2
        )
        self._lock = threading.Lock()
        self._waiting: dict[str, Listener] = {}
        self._open = 0

    def __len__(self) -> int:
        return len(self._waiting) + self._open

    def open(self, domain: Domain, address: str, *, seconds: float, most: int) -> tuple[int, str]:
        """Wait for one client of a console; return port and token.

        :param seconds: after which the port is closed if the client has not come.
        :param most: consoles that may be open or waited for at a time.
        :raises kvmdriver.exception.InstanceBusy: another client of it is waited for.
        :raises kvmdriver.exception.InsufficientResources: there are so many already.
        :raises kvmdriver.exception.ConfigurationError: the address is none of this host's.
        """
        uuid, token = domain.uuid, secrets.token_hex(_TOKEN_BYTES)

        def on_line(client: socket.socket, line: bytes, rest: bytes) -> str | None:
            if not hmac.compare_digest(line.strip(), token.encode()):
                return f"it does not know the token of the console of {domain.name}"
            with self._lock:
                listener = self._waiting.pop(uuid, None)
                if listener is None:
                    return "the console has been taken"
                listener.close()
                self._open += 1
            threading.Thread(
                target=self._serve,
                args=(client, domain, rest),
                name=f"console-{domain.name}",
                daemon=True,
            ).start()
            return None

        with self._lock:
            if uuid in self._waiting:
                raise exception.InstanceBusy(
                    "a client that has asked for the serial console has not connected yet",
                    instance=domain.name,
                    remedy=f"connect with what it was given, or ask again after {seconds:.0f} s",
                )
            if len(self) >= most:
                raise exception.InsufficientResources(
                    f"{most} serial consoles are open or waited for",
                    field="kvm_console.max_consoles",
                    value=most,
                    instance=domain.name,
                    remedy="end one that is not needed, or raise [kvm_console] max_consoles",
                )
            try:
                listener = self._acceptor.listen(
                    address,
                    0,
                    on_line,
                    seconds=seconds,
                    on_expiry=lambda: self._expire(uuid, domain.name),
                )
            except OSError as error:
                raise exception.ConfigurationError(
                    f"no console can be opened at {address}: {error.strerror}",
                    field="kvm_console.listen",
                    value=address,
                    remedy="set it to an address of this host",
                ) from None
            self._waiting[uuid] = listener
        return listener.port, token

    def _expire(self, uuid: str, name: str) -> None:
        with self._lock:
            self._waiting.pop(uuid, None)
        LOG.info("nobody has connected to the console of %s", name)

    def _serve(self, client: socket.socket, domain: Domain, typed: bytes) -> None:
        try:
            with client:
                _notice_absence(client)
                with contextlib.closing(ConsoleStream(domain)) as stream:
                    relay(client, stream, typed)
        except (OSError, exception.KVMDriverError) as error:
            LOG.info("the console of %s has ended: %s", domain.name, error)
        finally:
            with self._lock:
                self._open -= 1


def _notice_absence(client: socket.socket) -> None:
    """Have the kernel end the connection of a client that has vanished (tcp(7))."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _AGAIN)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _TIMES)


def relay(client: socket.socket, stream: ConsoleStream, typed: bytes = b"") -> None:
    """Pass bytes both ways until one side ends.

    Neither side is read while the other has not taken what came before, so that little is kept. A
    client that leaves is noticed also while its guest takes nothing.

    :param client: a socket that does not block.
    :param typed: what the client has sent already.
    """
    to_guest, to_client = typed, b""
    poll = select.poll()
    poll.register(stream.wakeup, select.POLLIN)
    while True:
        if to_guest:
            to_guest = to_guest[stream.send(to_guest) :]
        stream.wait_for(reading=not to_client, writing=bool(to_guest))
        poll.register(
            client,
            select.POLLRDHUP
            | (0 if to_guest else select.POLLIN)
            | (select.POLLOUT if to_client else 0),
        )
        ready = dict(poll.poll())
        at_client = ready.get(client.fileno(), 0)
        if at_client & select.POLLIN:
            data = client.recv(_CHUNK)
            if not data:
                return
            to_guest = data
        elif at_client & ~select.POLLOUT:
            return
        if to_client:
            with contextlib.suppress(BlockingIOError):
                to_client = to_client[client.send(to_client) :]
        if stream.wakeup in ready:
            stream.woken()
        if not to_client:
            received = stream.receive(_CHUNK)
            if received is None:
                return
            to_client = received
