"""Files from one host to another, over TCP: holes are left out, TLS where it is configured.

The receiver knows beforehand which files may come, how large each is, and where it goes; the
sender proves by a token, which it got over the message bus, that it is meant. On the wire, for
each file:

    sender    {"token": "...", "name": "disk", "size": 1073741824}, one line of JSON
    receiver  "ok", one line, or the reason against it, and the end
    sender    pieces: offset (8 bytes), length (4 bytes), data; a length of 0 is the end
    receiver  "done", one line, once the file is complete and in its place

Pieces come in the order of their offsets, and do not overlap.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hmac
import json
import logging
import os
import secrets
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, BinaryIO

import pydantic

from kvmdriver import exception
from kvmdriver.acceptor import Acceptor, Listener
from kvmdriver.model.base import Model
from kvmdriver.model.migration import FileName
from kvmdriver.progress import Progress, ignore
from kvmdriver.storage import private
from kvmdriver.storage.copy import write_error

LOG = logging.getLogger(__name__)

_MIB = 1024 * 1024
_PIECE = struct.Struct("!QI")
_CHUNK = _MIB
_LINE = 4096
# Seconds within which the other side of a transfer must send or take something.
_SECONDS = 60.0
# Seconds for the TLS handshake and the header together, and connections that are at that.
_GREETING = 10.0
_STRANGERS = 32
# Seconds for a transfer to end when its receiver is closed.
_ENDING = 10.0
# Bytes that are written before the free space is looked at again.
_STEP = 64 * _MIB


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
            remedy="install the certificates of your authority there, or set native_tls to false",
        ) from None


class Header(Model):
    """What the sender says first."""

    token: Annotated[str, pydantic.StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
    name: FileName
    size: int = pydantic.Field(ge=0, lt=1 << 63)


@dataclasses.dataclass(frozen=True)
class ExpectedFile:
    """A file that may come; sizes in bytes.

    :ivar exact: whether the file must have that size, or may be smaller.
    :ivar accept: looks at the complete file before it gets its name; raises a KVMDriverError
        against it.
    """

    path: str
    size: int
    exact: bool = True
    accept: Callable[[str], None] | None = None


class Receiver:
    """Takes files from ``open`` to ``close``, each of them once.

    :param files: the files that may come, by name.
    :param require: raises a KVMDriverError unless so many MiB can be written.
    """

    def __init__(
        self,
        files: Mapping[str, ExpectedFile],
        tls: ssl.SSLContext | None = None,
        *,
        require: Callable[[int], None] | None = None,
    ):
        self.token = secrets.token_urlsafe(32)
        self._files = dict(files)
        self._tls = tls
        self._require = require
        self._acceptor = Acceptor("file-receiver", limit=_STRANGERS, seconds=_GREETING, line=_LINE)
        self._listener: Listener | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._coming: dict[str, tuple[socket.socket, threading.Thread]] = {}
        self._taken: set[str] = set()

    def open(self, address: str, port: int = 0) -> int:
        """Listen; the port.

        :raises kvmdriver.exception.StorageError: the address is none of this host's, or taken.
        """
        try:
            self._listener = self._acceptor.listen(address, port, self._on_header, tls=self._tls)
        except OSError as error:
            raise exception.StorageError(
                f"cannot receive files at {address}: {error.strerror}",
                field="kvm_migration.inbound_address",
                value=address,
                remedy="set it to an address of this host",
            ) from None
        return self._listener.port

    def close(self) -> None:
        """Take nothing more, and end what is coming."""
        with self._lock:
            self._closed = True
            coming = list(self._coming.values())
        if self._listener is not None:
            self._listener.close()
        for client, _transfer in coming:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for _client, transfer in coming:
            transfer.join(_ENDING)

    def _on_header(self, client: socket.socket, line: bytes, rest: bytes) -> str | None:
        """Take a connection, or say why not, to the sender as well; does not wait."""
        # what follows the header before our answer is not of this protocol
        header = None if rest else _parse(line)
        reason = "not a request" if header is None else self._admit(client, header)
        if reason is not None:
            with contextlib.suppress(OSError):
                client.send(f"{reason}\n".encode())
        return reason

    def _admit(self, client: socket.socket, header: Header) -> str | None:
        """Begin a transfer, or say why not."""
        if not hmac.compare_digest(header.token.encode(), self.token.encode()):
            return "not allowed"
        expected = self._files.get(header.name)
        if expected is None:
            return "no such file is expected"
        if header.size > expected.size or expected.exact and header.size != expected.size:
            return f"{header.size} bytes are not the {expected.size} that were announced"
        with self._lock:
            if self._closed:
                return "no more files are taken"
            if header.name in self._taken:
                return "the file has come already"
            if header.name in self._coming:
                return "the file is coming already"
            transfer = threading.Thread(
                target=self._take, args=(client, header), name="file-transfer", daemon=True
            )
            self._coming[header.name] = (client, transfer)
            transfer.start()
        return None

    def _take(self, client: socket.socket, header: Header) -> None:
        failure = ""
        try:
            client.settimeout(_SECONDS)
            with client.makefile("rb") as stream:
                self._receive(client, stream, header.size, self._files[header.name])
        except exception.KVMDriverError as error:
            failure = error.message
        except (OSError, ValueError) as error:
            failure = str(error) or type(error).__name__
        except Exception as error:
            LOG.exception("file %s", header.name)
            failure = type(error).__name__
        with self._lock:
            del self._coming[header.name]
            if not failure:
                self._taken.add(header.name)
        if failure:
            LOG.warning("file %s did not arrive: %s", header.name, failure)
        with client, contextlib.suppress(OSError):
            client.sendall(f"{failure or 'done'}\n".encode()[-_LINE:])

    def _receive(
        self, client: socket.socket, stream: BinaryIO, size: int, expected: ExpectedFile
    ) -> None:
        with _part_of(expected.path) as (directory, name, target):
            client.sendall(b"ok\n")
            self._write(target, size, stream)
            if expected.accept is not None:
                expected.accept(os.path.join(os.path.dirname(expected.path), name))
            if self._closed:
                raise OSError("the migration has ended")
            with _writing():
                private.publish(target, directory, name, os.path.basename(expected.path))

    def _write(self, target: int, size: int, stream: BinaryIO) -> None:
        position = permitted = 0
        self._require_space(min(size, _STEP))
        with _writing():
            os.truncate(target, size)
        while True:
            offset, length = _PIECE.unpack(_exactly(stream, _PIECE.size))
            if length == 0:
                break
            if offset < position or length > _CHUNK or offset + length > size:
                raise ValueError("a piece lies outside of the file, or before another one")
            if permitted < length:
                self._require_space(min(size - offset, _STEP))
                permitted = _STEP
            permitted -= length
            data = _exactly(stream, length)
            with _writing():
                if os.pwrite(target, data, offset) != length:
                    raise OSError(errno.ENOSPC, "the file was not written completely")
            position = offset + length
        with _writing():
            os.fsync(target)

    def _require_space(self, size: int) -> None:
        if self._require is not None:
            self._require(-(-size // _MIB))


def _parse(line: bytes) -> Header | None:
    try:
        return Header.model_validate_json(line, strict=True)
    except pydantic.ValidationError:
        return None


@contextlib.contextmanager
def _part_of(path: str) -> Iterator[tuple[int, str, int]]:
    """Yield a new file beside ``path``: directory, name, and descriptor; it is gone afterwards."""
    with _writing():
        directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        name = f".{secrets.token_hex(16)}.part"
        with _writing():
            descriptor = private.create(name, directory=directory)
        try:
            # tells the image cache that the file is not left over
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield directory, name, descriptor
        finally:
            os.close(descriptor)
            private.remove(name, directory)
    finally:
        os.close(directory)


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Failures of the body are our own, unlike those of the connection."""
    try:
        yield
    except OSError as error:
        raise write_error(error, "the file") from None


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
            except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
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
        # it comes from another host, and ends up on an operator's terminal
        text = "".join(c if c.isprintable() else " " for c in answer.decode(errors="replace"))
        reason = text.strip() or "the receiver has gone away"
        raise exception.StorageError(f"{name} was not taken: {reason}")
