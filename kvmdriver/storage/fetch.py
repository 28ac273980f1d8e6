"""Downloads of images by http and https."""

import hashlib
import os
from collections.abc import Iterator

import requests

from kvmdriver import exception
from kvmdriver.progress import Progress, ignore
from kvmdriver.storage.copy import write_error

_CHUNK = 1024 * 1024


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
    target: str,
    *,
    max_bytes: int,
    timeout: float,
    progress: Progress = ignore,
) -> None:
    """Fetch ``url`` into the file ``target`` and check it.

    :param timeout: seconds to connect, and seconds without data.
    :raises kvmdriver.exception.ImageNotFound: the server does not have it or does not answer.
    :raises kvmdriver.exception.ImageUnacceptable: too large, cut off, or not of that checksum.
    """
    algorithm, _, expected = checksum.partition(":")
    digest = hashlib.new(algorithm)
    try:
        with requests.get(url, stream=True, timeout=(timeout, timeout)) as response:
            if response.status_code != 200:
                raise exception.ImageNotFound(
                    f"the server answers {response.status_code} {response.reason}",
                    value=url,
                    remedy="check the URL",
                )
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
            if total is not None and total > max_bytes:
                raise _too_large(url, max_bytes)
            done = 0
            with open(target, "wb") as out:
                for chunk in _chunks(response):
                    done += len(chunk)
                    if done > max_bytes:
                        raise _too_large(url, max_bytes)
                    digest.update(chunk)
                    out.write(chunk)
                    progress("download image", done, total)
    except requests.RequestException as error:
        raise exception.ImageNotFound(
            f"the download failed: {error}",
            value=url,
            remedy="check that the host of the agent can reach the URL",
        ) from None
    except OSError as error:
        raise write_error(error, target) from None
    _compare(digest.hexdigest(), expected)


def _chunks(response: requests.Response) -> Iterator[bytes]:
    # raw content: what is encoded for the way must not be unpacked behind the size limit's back
    # read1 gives what has come: a slow server is seen, and its download can be cancelled
    while chunk := response.raw.read1(_CHUNK, decode_content=False):
        yield chunk


def _compare(found: str, expected: str) -> None:
    if found != expected:
        raise exception.ImageUnacceptable(
            "the image's checksum differs: it is not what was asked for, or was cut off",
            field="checksum",
            value=expected,
            remedy=f"the content has {found}",
        )


def _too_large(url: str, max_bytes: int) -> exception.ImageUnacceptable:
    return exception.ImageUnacceptable(
        f"the image is larger than the {max_bytes // 1024 // 1024} MiB allowed",
        value=url,
        remedy="raise [kvm_storage] max_image_gib if you trust the image",
    )
