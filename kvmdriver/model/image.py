"""Where the first content of a disk, a kernel or a ramdisk comes from."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints

from kvmdriver.model.base import Model, Path, Private, one_line

ImageFormat = Literal["raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx", "iso"]

Checksum = Annotated[
    str,
    StringConstraints(
        pattern=r"^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$",
    ),
]


def _http_url(value: str) -> str:
    # urlsplit drops line breaks and tabs silently, so that they have to be refused before it
    parts = urlsplit(one_line(value))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http:// or https:// URL with a host")
    if parts.username or parts.password:
        raise ValueError("must not carry a user name or password")
    _ = parts.port  # raises ValueError for a port that is none
    return value


class FileImage(Model):
    """An image in a file of the host. Its checksum is checked where one is given."""

    type: Literal["file"] = "file"
    path: Path
    format: ImageFormat | None = None
    checksum: Checksum | None = None


class UrlImage(Model):
    """An image fetched by http or https. The checksum is required: it also names the cached copy."""

    type: Literal["url"] = "url"
    url: Annotated[
        str,
        StringConstraints(max_length=4096),
        AfterValidator(_http_url),
        Private(),  # some carry a password or a signature
    ]
    checksum: Checksum
    format: ImageFormat | None = None


Image = Annotated[FileImage | UrlImage, Field(discriminator="type")]
