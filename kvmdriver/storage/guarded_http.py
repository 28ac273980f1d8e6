"""One request to a server that may be hostile: every byte that it sends is watched."""

import http.client
import socket
import ssl
import time
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

import certifi

from kvmdriver import exception
from kvmdriver.storage.image_servers import ImageServers, Target, told

# Seconds after which a socket that waits looks up, to see whether the transfer shall go on.
_SLICE = 0.5
# Bytes from the start of an answer to the end of its header; http.client reads 8 KiB at a time.
_HEADER_BYTES = 128 * 1024
# A name may have many addresses. Each that does not answer costs the time to connect.
_ADDRESSES = 4
_SHOWN = 120


class CutOff(Exception):
    """A transfer did not get to its end; trying again may help."""


class NoConnection(CutOff):
    """The server could not be connected to."""


class Watch:
    """Says when a transfer has to end. All times in seconds.

    :param silence: time without data after which it is cut off, and time for a header to come.
    :param rate: bytes a second that must come, averaged over ``silence``; 0 for any rate.
    :param deadline: ``time.monotonic()`` at which it ends in any case.
    :param ask: called every now and then; it may raise to end the transfer.
    """

    def __init__(
        self, url: str, *, silence: float, rate: int, deadline: float, ask: Callable[[], None]
    ):
        self._url = url
        self._silence = silence
        self._rate = rate
        self._deadline = deadline
        self._ask = ask
        self._header_bytes: int | None = None
        self._header_end = 0.0
        self._reset()

    def _reset(self) -> None:
        self._waited = 0.0
        self._silent = 0.0
        self._received = 0

    def expect_header(self) -> None:
        """Expect the header of an answer, which has a size and a time of its own."""
        self._reset()
        self._header_bytes = _HEADER_BYTES
        self._header_end = time.monotonic() + self._silence

    def expect_body(self) -> None:
        self._reset()
        self._header_bytes = None

    def passed(self, seconds: float, count: int) -> None:
        """So long a read has taken, and so many bytes it has got.

        Only what the server lets us wait for counts against it, not the time that our disks take.

        :raises kvmdriver.storage.guarded_http.CutOff: nothing has come for too long.
        :raises kvmdriver.exception.ImageNotFound: the transfer is too slow, or takes too long.
        """
        self._waited += seconds
        self._received += count
        self._silent = 0.0 if count else self._silent + seconds
        self.check()
        if self._header_bytes is not None:
            if self._received > self._header_bytes:
                raise _failed(self._url, "the header of the server's answer is too large")
            if time.monotonic() > self._header_end:
                raise CutOff(f"no answer within {self._silence:g} s")
        elif self._silent >= self._silence:
            raise CutOff(f"no data for {self._silence:g} s")
        elif self._waited >= self._silence:
            if self._received < self._rate * self._waited:
                raise exception.ImageNotFound(
                    f"the server sends less than {self._rate // 1024} KiB/s",
                    field="url",
                    value=told(self._url),
                    remedy="use a faster server, or lower [kvm_storage] download_min_rate",
                )
            self._waited, self._received = 0.0, 0

    def check(self) -> None:
        """End the transfer if its time is over.

        :raises Exception: whatever ``ask`` raises, and ImageNotFound after the deadline.
        """
        self._ask()
        if time.monotonic() > self._deadline:
            raise exception.ImageNotFound(
                "the download takes longer than is allowed",
                field="url",
                value=told(self._url),
                remedy="use a faster server, or raise [kvm_storage] download_max_seconds",
            )

    def pause(self, seconds: float) -> None:
        """Wait between two attempts; ends early by an error, as ``check`` does."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            time.sleep(min(_SLICE, left))


class _Watched:
    """A socket whose reads are watched, also those that http.client makes."""

    watch: Watch

    def recv_into(self, *arguments: Any) -> int:
        while True:
            begun = time.monotonic()
            try:
                count: int = super().recv_into(*arguments)  # type: ignore[misc]
            except TimeoutError:
                count = -1
            self.watch.passed(time.monotonic() - begun, max(count, 0))
            if count >= 0:
                return count


class _Socket(_Watched, socket.socket):
    """A connection in the clear."""


class _TlsSocket(_Watched, ssl.SSLSocket):
    """An encrypted connection."""


class Connection(http.client.HTTPConnection):
    """A connection to one server, at an address that has been checked.

    Nothing of the environment is used: no proxy, no .netrc, no certificates.
    """

    def __init__(
        self, target: Target, servers: ImageServers, watch: Watch, connect_timeout: float
    ):
        self.default_port = 443 if target.scheme == "https" else 80
        super().__init__(target.host, target.port)
        self._target = target
        self._servers = servers
        self._watch = watch
        self._connect_timeout = connect_timeout

    def connect(self) -> None:
        """Connect to the first address that answers.

        :raises kvmdriver.storage.guarded_http.NoConnection: none does.
        """
        reason = "no address"
        try:
            addresses = self._servers.resolve(self._target)
        except OSError as error:
            raise NoConnection(
                f"the server's name cannot be resolved: {reason_of(error)}"
            ) from None
        for family, address in addresses[:_ADDRESSES]:
            self._watch.check()
            connection = _Socket(family, socket.SOCK_STREAM)
            try:
                connection.settimeout(self._connect_timeout)
                connection.connect(address)
                self.sock = self._secured(connection)
                self.sock.settimeout(_SLICE)
                self.sock.watch = self._watch
                return
            except ssl.SSLCertVerificationError as error:
                connection.close()
                raise exception.ImageNotFound(
                    f"the server's certificate is not trusted: {shown(error.verify_message)}",
                    field="url",
                    value=told(self._target.url),
                    remedy="name its authority's certificate in [kvm_storage] image_url_ca_file",
                ) from None
            except OSError as error:
                connection.close()
                reason = reason_of(error)
        raise NoConnection(f"the server cannot be connected to: {reason}")

    def _secured(self, connection: socket.socket) -> Any:
        if self._target.scheme != "https":
            return connection
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.sslsocket_class = _TlsSocket
        path = self._servers.ca_file or certifi.where()
        try:
            context.load_verify_locations(path)
        except OSError as error:
            raise exception.ConfigurationError(
                f"the certificates of authorities cannot be read: {reason_of(error)}",
                field="kvm_storage.image_url_ca_file",
                value=path,
                remedy="name a file of certificates in PEM format",
            ) from None
        return context.wrap_socket(connection, server_hostname=self._target.host.rstrip("."))

    def ask(self, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        """Send the request; the answer's header has been read, its body not."""
        self._watch.expect_header()
        self.request("GET", self._target.resource, headers=dict(headers))
        answer = self.getresponse()
        self._watch.expect_body()
        return answer


def reason_of(error: BaseException) -> str:
    """Return what an error of a connection says, fit for people."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return shown(text) or type(error).__name__


def shown(text: str) -> str:
    """Return what a server has sent, short and without characters that steer a terminal."""
    plain = "".join(
        " " if unicodedata.category(letter)[0] in "CZ" else letter for letter in text[: 2 * _SHOWN]
    )
    return " ".join(plain.split())[:_SHOWN]


def _failed(url: str, message: str) -> exception.ImageNotFound:
    return exception.ImageNotFound(
        message, field="url", value=told(url), remedy="check that the URL is that of an image"
    )
