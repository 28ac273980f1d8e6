"""Downloads of images by http and https, from servers that may be slow, broken or hostile."""

import dataclasses
import hashlib
import http.client
import logging
import os
import re
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

import tenacity

from kvmdriver import exception
from kvmdriver.progress import Progress, ignore
from kvmdriver.storage.copy import write_error
from kvmdriver.storage.guarded_http import (
    Connection,
    CutOff,
    NoConnection,
    Watch,
    reason_of,
    shown,
)
from kvmdriver.storage.image_servers import ImageServers, Target, told
from kvmdriver.storage.space import Reserve

LOG = logging.getLogger(__name__)

_CHUNK = 1024 * 1024
_REDIRECTS = 5
_MOVED = (301, 302, 303, 307, 308)
# RFC 9110, section 15: not now, or not by way of this proxy
_LATER = (429, 502, 503, 504)
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclasses.dataclass(frozen=True)
class Rules:
    """What a download may do.

    :param max_bytes: largest image.
    :param silence: seconds without data after which a transfer is cut off.
    :param connect_timeout: seconds to connect.
    :param min_rate: bytes a second that must come, averaged over ``silence``; 0: any rate.
    :param max_seconds: seconds that a download may take, all attempts together.
    :param attempts: how often it is tried in all.
    """

    servers: ImageServers = ImageServers()
    max_bytes: int = 500 * 1024**3
    silence: float = 30
    connect_timeout: float = 10
    min_rate: int = 0
    max_seconds: float = 4 * 3600
    attempts: int = 5

    @classmethod
    def configured(cls, group: Any) -> "Rules":
        """Return what the group [kvm_storage] says.

        :raises kvmdriver.exception.ConfigurationError: an option is wrong.
        """
        return cls(
            servers=ImageServers.configured(group),
            max_bytes=group.max_image_gib * 1024**3,
            silence=group.download_timeout,
            connect_timeout=group.download_connect_timeout,
            min_rate=group.download_min_rate * 1024,
            max_seconds=group.download_max_seconds,
            attempts=group.download_attempts,
        )


def hash_file(descriptor: int, checksum: str, *, progress: Progress = ignore) -> None:
    """Compare an open file with a checksum such as ``sha256:<hex>``.

    :raises kvmdriver.exception.ImageUnacceptable: it differs.
    """
    algorithm, _, expected = checksum.partition(":")
    digest = hashlib.new(algorithm)
    size, position = os.fstat(descriptor).st_size, 0
    while chunk := os.pread(descriptor, _CHUNK, position):
        digest.update(chunk)
        position += len(chunk)
        progress("verify image", position, size)
    _compare(digest.hexdigest(), expected)


def download(
    url: str,
    checksum: str,
    target: int,
    *,
    rules: Rules,
    reserve: Reserve,
    progress: Progress = ignore,
) -> None:
    """Fetch ``url`` into an open, empty file and compare it with ``checksum``.

    A transfer that is cut off goes on where it ended if the server can do that (RFC 9110,
    section 14), and starts over if not.

    :param progress: called at least once a second; the download ends when it raises.
    :raises kvmdriver.exception.InvalidRequest: the URL is malformed.
    :raises kvmdriver.exception.ImageNotFound: the server may not be used, does not have the image,
        does not answer or is too slow.
    :raises kvmdriver.exception.ImageUnacceptable: too large, or not of that checksum.
    :raises kvmdriver.exception.InsufficientResources: it would take free space that is reserved.
    """
    transfer = _Transfer(url, checksum, target, rules, reserve, progress)

    def worth_another(error: BaseException) -> bool:
        # a server that was never reached is more likely to be misspelled than to be busy
        return isinstance(error, CutOff) and (
            transfer.reached or not isinstance(error, NoConnection)
        )

    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception(worth_another),
        stop=tenacity.stop_after_attempt(rules.attempts),
        wait=tenacity.wait_exponential(multiplier=0.25, max=10),
        sleep=transfer.watch.pause,
        reraise=True,
    )
    try:
        attempts(transfer.attempt)
    except CutOff as error:
        raise _failed(url, f"the download failed: {error}") from None
    transfer.compare()


class _Transfer:
    """One image on its way into a file, over as many connections as it takes."""

    def __init__(
        self,
        url: str,
        checksum: str,
        target: int,
        rules: Rules,
        reserve: Reserve,
        progress: Progress,
    ):
        self._url = url
        self._algorithm, _, self._expected = checksum.partition(":")
        self._target = target
        self._rules = rules
        self._reserve = reserve
        self._progress = progress
        self._total: int | None = None
        self._validator: str | None = None
        self.reached = False
        self._start_over()
        self.watch = Watch(
            url,
            silence=rules.silence,
            rate=rules.min_rate,
            deadline=time.monotonic() + rules.max_seconds,
            ask=self._tell,
        )

    def attempt(self) -> None:
        """Get the rest of the image.

        :raises kvmdriver.storage.guarded_http.CutOff: not all of it has come.
        """
        try:
            self._get(self._rules.servers.check_url(self._url), _REDIRECTS)
        # ValueError: http.client's for a malformed answer
        except (OSError, http.client.HTTPException, ValueError) as error:
            LOG.debug("%s was cut off after %d bytes: %r", told(self._url), self._done, error)
            raise CutOff(reason_of(error)) from None

    def compare(self) -> None:
        _compare(self._digest.hexdigest(), self._expected)

    def _tell(self) -> None:
        self._progress("download image", self._done, self._total)

    def _start_over(self) -> None:
        self._done = 0
        self._digest = hashlib.new(self._algorithm)
        os.ftruncate(self._target, 0)

    def _get(self, target: Target, redirects: int) -> None:
        headers = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "kvmdriver"}
        if self._done and self._validator is not None:
            headers |= {"Range": f"bytes={self._done}-", "If-Range": self._validator}
        connection = Connection(
            target, self._rules.servers, self.watch, self._rules.connect_timeout
        )
        try:
            answer = connection.ask(headers)
            self.reached = True
            if answer.status not in _MOVED:
                self._receive(answer)
                return
            location = answer.headers.get("Location", "")
        finally:
            connection.close()
        if not redirects:
            raise _failed(self._url, f"the server redirects more than {_REDIRECTS} times")
        self._get(self._redirected(target, location), redirects - 1)

    def _redirected(self, target: Target, location: str) -> Target:
        """Return where a redirect leads: to a place that is checked as the first one was."""
        try:
            # what is not ASCII reaches us as ISO 8859-1, whatever it was
            quoted = urllib.parse.quote(location.encode("latin-1"), safe="/%:@!$&'()*+,;=~?#[]")
            new = self._rules.servers.check_url(urllib.parse.urljoin(target.url, quoted))
        except (ValueError, exception.KVMDriverError) as error:
            raise exception.ImageNotFound(
                f"the server redirects to a place that images may not be fetched from: "
                f"{shown(location)!r}",
                field="url",
                value=told(self._url),
                remedy=getattr(error, "remedy", None) or "use the URL of the image itself",
            ) from None
        if (target.scheme, new.scheme) == ("https", "http"):
            raise _failed(self._url, "the server redirects from https to http")
        return new

    def _receive(self, answer: http.client.HTTPResponse) -> None:
        if answer.status in _LATER:
            raise CutOff(f"the server answers {answer.status} {shown(answer.reason)}".rstrip())
        if answer.status == 416:  # the image has become shorter
            self._start_over()
            raise CutOff("the image has changed on the server")
        if answer.status not in (200, 206):
            raise exception.ImageNotFound(
                f"the server answers {answer.status} {shown(answer.reason)}".rstrip(),
                field="url",
                value=told(self._url),
                remedy="check the URL",
            )
        if answer.status == 206:
            self._continue(answer)
        else:
            self._begin(answer)
        for chunk in _chunks(answer):
            self._keep(chunk)
        if self._total is not None and self._done != self._total:
            raise CutOff(f"{self._done} of {self._total} bytes have come")

    def _begin(self, answer: http.client.HTTPResponse) -> None:
        """Begin with the whole image."""
        self._start_over()
        self._total = _length(answer)
        tag, date = answer.headers.get("ETag", ""), answer.headers.get("Last-Modified")
        # a weak tag says that two versions are alike, not that their bytes are (RFC 9110, 8.8.1)
        self._validator = tag if tag.startswith('"') else date
        if self._total is not None:
            if self._total > self._rules.max_bytes:
                raise _too_large(self._url, self._rules.max_bytes)
            self._reserve.require(self._total)

    def _continue(self, answer: http.client.HTTPResponse) -> None:
        """Go on with the rest of the image, if the server keeps to what was asked for."""
        match = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        start = int(match[1]) if match else None
        total = int(match[3]) if match and match[3] != "*" else self._total
        if start != self._done or not self._done or self._total not in (None, total):
            self._start_over()
            self._validator = None
            raise CutOff("the server sends another part than it was asked for")
        self._total = total

    def _keep(self, chunk: bytes) -> None:
        if self._done + len(chunk) > self._rules.max_bytes:
            raise _too_large(self._url, self._rules.max_bytes)
        self._reserve.require(len(chunk))
        try:
            left = memoryview(chunk)
            while left:
                left = left[os.pwrite(self._target, left, self._done + len(chunk) - len(left)) :]
        except OSError as error:
            raise write_error(error, "the image") from None
        self._digest.update(chunk)
        self._done += len(chunk)
        self._tell()


def _length(answer: http.client.HTTPResponse) -> int | None:
    """Size of the body; None where the server does not know it beforehand."""
    if answer.headers.get("Transfer-Encoding", "").lower() == "chunked":
        return None
    lengths = set(answer.headers.get_all("Content-Length", []))
    if not lengths:
        return None
    text = lengths.pop()
    if lengths or not (text.isascii() and text.isdigit() and len(text) < 20):
        raise CutOff("the server's answer has an odd Content-Length")
    return int(text)


def _chunks(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    # raw content: what is encoded for the way must not be unpacked behind the size limit's back
    while chunk := answer.read1(_CHUNK):
        yield chunk


def _compare(found: str, expected: str) -> None:
    if found != expected:
        # what it is instead is not told: callers could learn what only this host can read
        LOG.debug("an image has the checksum %s, and not %s", found, expected)
        raise exception.ImageUnacceptable(
            "the image's checksum differs: it is not what was asked for, or was cut off",
            field="checksum",
            value=expected,
            remedy="get the checksum from where the image comes from, and check the image there",
        )


def _too_large(url: str, max_bytes: int) -> exception.ImageUnacceptable:
    return exception.ImageUnacceptable(
        f"the image is larger than the {max_bytes // 1024 // 1024} MiB allowed",
        field="url",
        value=told(url),
        remedy="raise [kvm_storage] max_image_gib if you trust the image",
    )


def _failed(url: str, message: str) -> exception.ImageNotFound:
    return exception.ImageNotFound(
        message,
        field="url",
        value=told(url),
        remedy="check the URL, and that the host of the agent can reach it",
    )
