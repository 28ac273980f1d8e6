"""What a destination keeps in memory while instances arrive: ports, and receivers of files."""

import socket
import threading

from kvmdriver import exception
from kvmdriver.model import FileReceiver
from kvmdriver.storage.stream import Receiver


def parse_ports(text: str) -> range | None:
    """Parse [kvm_migration] ports; None where the option is empty.

    :raises kvmdriver.exception.ConfigurationError: it is not a range of ports.
    """
    if not text:
        return None
    first, _, last = text.partition("-")
    try:
        found = range(int(first), int(last or first) + 1)
    except ValueError:
        found = range(0)
    if not found or found[0] < 1 or found[-1] > 65535:
        raise exception.ConfigurationError(
            "is not a range of TCP ports",
            field="kvm_migration.ports",
            value=text,
            remedy="give it as FIRST-LAST, e.g. 49152-49215",
        )
    return found


class Arrivals:
    """Ports and receivers, by migration. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ports: dict[int, str] = {}
        self._receivers: dict[str, tuple[Receiver, FileReceiver]] = {}

    def take_port(self, migration: str, ports: range | None, address: str) -> int | None:
        """Reserve a port for a migration; None where libvirt is to choose.

        :raises kvmdriver.exception.InsufficientResources: all are in use.
        """
        if ports is None:
            return None
        with self._lock:
            for port in ports:
                if port not in self._ports and _is_free(address, port):
                    self._ports[port] = migration
                    return port
        raise exception.InsufficientResources(
            "all ports for migrations are in use",
            field="kvm_migration.ports",
            value=f"{ports[0]}-{ports[-1]}",
            remedy="give more ports, or move fewer instances at once",
        )

    def receive(
        self, migration: str, receiver: Receiver, address: str, port: int | None
    ) -> FileReceiver:
        """Receive files for a migration from now on."""
        number = receiver.open(address, port or 0)
        found = FileReceiver(address=address, port=number, token=receiver.token)
        with self._lock:
            self._receivers[migration] = (receiver, found)
        return found

    def receiver(self, migration: str) -> FileReceiver | None:
        """Return the receiver of a migration's files; None if there is none, or none any more."""
        with self._lock:
            found = self._receivers.get(migration)
        return found[1] if found else None

    def end(self, migration: str) -> None:
        """Release everything that a migration has reserved here."""
        with self._lock:
            ended = self._receivers.pop(migration, None)
            for port in [port for port, owner in self._ports.items() if owner == migration]:
                del self._ports[port]
        if ended is not None:
            ended[0].close()

    def __len__(self) -> int:
        return len(self._receivers) + len(self._ports)


def _is_free(address: str, port: int) -> bool:
    try:
        with socket.create_server((address, port)):
            return True
    except OSError:
        return False
