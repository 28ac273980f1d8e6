"""Files from one host to another, over TCP: holes are left out, TLS where it is configured.

The receiver knows beforehand which files may come, and where each goes; the sender proves by a
token, which it got over the message bus, that it is meant. On the wire, for each file:

    sender    {"token": "...", "name": "disk", "size": 1073741824}, one line of JSON
    receiver  "ok", one line, or the reason against it, and the end
    sender    pieces: offset (8 bytes), length (4 bytes), data; a length of 0 is the end
    receiver  "done", one line, once the file is complete and in its place
"""

import contextlib
import hmac
import json
import logging
import os
import secrets
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from typing import BinaryIO

from kvmdriver import exception
from kvmdriver.progress import Progress, ignore
from kvmdriver.storage import private
from kvmdriver.storage.copy import remove_file

LOG = logging.getLogger(__name__)

_PIECE = struct.Struct("!QI")
_CHUNK = 1024 * 1024
_LINE = 4096
_SECONDS = 60.0


def tls_context(directory: str, role: str) -> ssl.SSLContext:
    """TLS with QEMU's certificates; either side must have one of the same authority.

    :param role: ``client`` or ``server``.
    :raises kvmdriver.exception.ConfigurationError: the certificates cannot be used.
    """
    client = role == "client"
    names = [role] if os.path.exists(os.path.join(directory, f"{role}-cert.pem")) else ["server"]
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if client else ssl.PROTOCOL_TLS_SERVER)
        context.load_verify_locations(os.path.join(directory, "ca-cert.pem"))
        context.load_cert_chain(
            os.path.join(directory, f"{names[0]}-cert.pem"),
            os.path.join(directory, f"{names[0]}-key.pem"),
        )
        context.verify_mode = ssl.CERT_REQUIRED
        return context
    except (OSError, ssl.SSLError) as error:
        raise exception.ConfigurationError(
            f"the certificates cannot be used: {error}",
            field="kvm_migration.tls_directory",
            value=directory,
        ) from None


class Receiver:
    """Takes files from ``open`` to ``close``.

    :param files: where each file goes, by name; what comes under other names is refused.
    """

    def __init__(self, files: dict[str, str], tls: ssl.SSLContext | None = None):
        self.token = secrets.token_urlsafe(32)
        self._files = files
        self._tls = tls
        self._listener: socket.socket | None = None

    def open(self, address: str, port: int = 0) -> int:
        """Listen; the port.

        :raises kvmdriver.exception.StorageError: the address is none of this host's, or taken.
        """
        try:
            listener = socket.create_server((address, port))
        except OSError as error:
            raise exception.StorageError(
                f"cannot receive files at {address}: {error.strerror}",
                field="kvm_migration.inbound_address",
                value=address,
                remedy="set it to an address of this host",
            ) from None
        self._listener = listener
        threading.Thread(
            target=self._accept, args=(listener,), name="file-receiver", daemon=True
        ).start()
        return int(listener.getsockname()[1])

    def allow(self, name: str, path: str) -> None:
        """Let one more file come."""
        self._files[name] = path

    def close(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                raw, peer = listener.accept()
            except OSError:
                return
            threading.Thread(
                target=self._serve, args=(raw, peer), name="file-receiver", daemon=True
            ).start()

    def _serve(self, raw: socket.socket, peer: object) -> None:
        try:
            raw.settimeout(_SECONDS)
            client = self._tls.wrap_socket(raw, server_side=True) if self._tls else raw
            with client, client.makefile("rb") as stream:
                self._receive(client, stream)
        except (OSError, ValueError) as error:
            LOG.warning("a file from %s did not arrive: %s", peer, error)
        finally:
            raw.close()

    def _receive(self, client: socket.socket, stream: BinaryIO) -> None:
        line = stream.readline(_LINE)
        try:
            header = json.loads(line)
            token, name, size = str(header["token"]), str(header["name"]), int(header["size"])
        except (ValueError, KeyError, TypeError):
            client.sendall(b"not a request\n")
            return
        if not hmac.compare_digest(token.encode(), self.token.encode()) or size < 0:
            client.sendall(b"not allowed\n")
            return
        path = self._files.get(name)
        if path is None:
            client.sendall(b"no such file is expected\n")
            return
        part = f"{path}.{secrets.token_hex(4)}.part"
        try:
            _write(part, size, stream, client)
            os.chmod(part, private.MODE)
            os.rename(part, path)
            client.sendall(b"done\n")
        finally:
            remove_file(part)


def _write(part: str, size: int, stream: BinaryIO, client: socket.socket) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(part, flags, 0o600)
    except OSError as error:
        client.sendall(f"{error.strerror}\n".encode())
        raise
    with os.fdopen(descriptor, "wb", buffering=0) as target:
        client.sendall(b"ok\n")
        target.truncate(size)
        while True:
            offset, length = _PIECE.unpack(_exactly(stream, _PIECE.size))
            if length == 0:
                break
            if length > _CHUNK or offset + length > size:
                raise ValueError("a piece lies outside of the file")
            data = _exactly(stream, length)
            try:
                os.pwrite(target.fileno(), data, offset)
            except OSError as error:
                client.sendall(f"{error.strerror}\n".encode())
                raise
        os.fsync(target.fileno())


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data: bytes = stream.read(count)
    if len(data) != count:
        raise ValueError("the sender has gone away")
    return data


def send(
    source: str | int,
    name: str,
    *,
    address: str,
    port: int,
    token: str,
    tls: ssl.SSLContext | None = None,
    stage: str = "send file",
    progress: Progress = ignore,
) -> None:
    """Send a file, by its path or open, to a ``Receiver``; it is complete there on return.

    :raises kvmdriver.exception.StorageError: it did not arrive.
    """
    try:
        descriptor = (
            os.dup(source)
            if isinstance(source, int)
            else os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        )
    except OSError as error:
        raise exception.StorageError(f"cannot read {source}: {error.strerror}") from None
    try:
        size = os.fstat(descriptor).st_size
        with (
            os.fdopen(descriptor, "rb", buffering=0, closefd=False) as file,
            _connected(address, port, tls) as server,
            server.makefile("rb") as answers,
        ):
            request = {"token": token, "name": name, "size": size}
            server.sendall(json.dumps(request).encode() + b"\n")
            _expect(answers.readline(_LINE), b"ok\n", name)
            done = 0
            try:
                for offset, length in _extents(descriptor, size):
                    server.sendall(_PIECE.pack(offset, length))
                    # looking for holes has moved the position, which sendfile with TLS goes by
                    file.seek(offset)
                    # without a copy in user space where there is no TLS
                    if server.sendfile(file, offset, length) != length:
                        raise OSError("the file has become shorter")
                    done = offset + length
                    progress(stage, done, size)
                server.sendall(_PIECE.pack(0, 0))
            except (BrokenPipeError, ConnectionResetError):
                LOG.debug("%s: the receiver has ended the transfer", name)  # it says why
            _expect(answers.readline(_LINE), b"done\n", name)
            progress(stage, size, size)
    except OSError as error:
        raise exception.StorageError(
            f"could not send {name} to {address}: {error}",
            remedy="check the network between the hosts, and [kvm_migration] ports",
        ) from None
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _connected(address: str, port: int, tls: ssl.SSLContext | None) -> Iterator[socket.socket]:
    with socket.create_connection((address, port), _SECONDS) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is None:
            yield raw
        else:
            with tls.wrap_socket(raw, server_hostname=address) as encrypted:
                yield encrypted


def _extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Pieces of a file that are not holes (lseek(2), SEEK_DATA)."""
    position = 0
    while position < size:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError:
            return  # nothing but a hole follows
        end = min(size, os.lseek(descriptor, start, os.SEEK_HOLE))
        while start < end:
            length = min(_CHUNK, end - start)
            yield start, length
            start += length
        position = max(end, position + 1)


def _expect(answer: bytes, wanted: bytes, name: str) -> None:
    if answer != wanted:
        reason = answer.decode(errors="replace").strip() or "the receiver has gone away"
        raise exception.StorageError(f"{name} was not taken: {reason}")
