"""What an instance finds on its config drive (OpenStack metadata format, volume ``config-2``)."""

import ipaddress
import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from kvmdriver.model.base import Model, Private, Secret, one_line

Hostname = Annotated[
    str,
    StringConstraints(
        max_length=253,
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
        r"(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$",
    ),
]


def _public_key(value: str) -> str:
    # A file of a key ends with a newline. str.strip without arguments also takes off control
    # characters of which sshd and cloud-init know nothing.
    value = one_line(value.strip(" \t\n"))
    parts = value.split(" ", 2)
    if len(parts) < 2:
        raise ValueError("must be one line: a key type, the key, and optionally a comment")
    if not parts[0].startswith(("ssh-", "ecdsa-", "sk-")):
        raise ValueError("must be a public key in OpenSSH format")
    return value


def _address(value: str) -> str:
    try:
        return str(ipaddress.ip_interface(value))
    except ValueError:
        raise ValueError("must be an address with prefix length, e.g. 192.0.2.10/24") from None


def _ip(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError("must be an IP address, e.g. 192.0.2.1") from None


IpAddress = Annotated[str, StringConstraints(max_length=64), AfterValidator(_ip)]


def hostname_from(name: str) -> str:
    """Return a host name (RFC 1123) as near to an instance's name as possible."""
    labels = re.sub(r"[^A-Za-z0-9.-]", "-", name).split(".")
    return ".".join(filter(None, (label.strip("-") for label in labels)))


class StaticAddress(Model):
    """A fixed address for one of the instance's interfaces, by position (0 is the first)."""

    nic: int = Field(0, ge=0, le=63)
    address: Annotated[str, StringConstraints(max_length=64), AfterValidator(_address)]
    gateway: IpAddress | None = None
    dns: tuple[IpAddress, ...] = Field((), max_length=8)


class ConfigDrive(Model):
    """Content of the config drive; interfaces without a static address use DHCP."""

    hostname: Hostname | None = None
    ssh_keys: tuple[
        Annotated[
            str, StringConstraints(max_length=16384), AfterValidator(_public_key), Private()
        ],
        ...,
    ] = Field((), max_length=64)
    user_data: Annotated[str, StringConstraints(max_length=1024 * 1024), Private()] | None = None
    admin_password: Annotated[Secret, Field(min_length=1, max_length=255), Private()] | None = None
    addresses: tuple[StaticAddress, ...] = Field((), max_length=64)

    @model_validator(mode="after")
    def _one_address_a_nic(self) -> Self:
        nics = [address.nic for address in self.addresses]
        if len(nics) != len(set(nics)):
            raise ValueError("addresses has two entries for one nic")
        return self
