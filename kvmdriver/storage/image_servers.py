"""From which servers images may be fetched: schemes, networks and ports."""

import dataclasses
import ipaddress
import logging
import re
import socket
import urllib.parse
from collections.abc import Iterator
from typing import Any

from kvmdriver import exception

LOG = logging.getLogger(__name__)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_PORTS = {"http": 80, "https": 443}

# RFC 1123 and the underscore, which names of services have
_HOST = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")

# What a name may resolve to, and a server of images never is. IANA's registries of special-purpose
# addresses (RFC 6890), and addresses at which clouds answer their guests: with what they tell, a
# caller could act as the host.
_SPECIAL: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",  # this host
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local; 169.254.169.254: metadata of most clouds
        "192.0.0.0/24",  # IETF protocol assignments; 192.0.0.192: metadata of Oracle's cloud
        "100.100.100.200/32",  # metadata of Alibaba's cloud
        "168.63.129.16/32",  # Azure's WireServer
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and the broadcast address
        "::/128",
        "::1/128",
        "fe80::/10",  # link-local
        "fec0::/10",  # site-local, deprecated (RFC 3879)
        "ff00::/8",  # multicast
        "fd00:ec2::/32",  # fd00:ec2::254: metadata of Amazon's cloud
        "fd20:ce::254/128",  # metadata of Google's cloud
        "64:ff9b:1::/48",  # NAT64 of local use (RFC 8215): where the IPv4 address stands is open
    )
)

_MAPPED = ipaddress.ip_network("::ffff:0:0/96")
_COMPATIBLE = ipaddress.ip_network("::/96")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def told(url: str) -> str:
    """Return a URL for errors and logs, without its query, user name and password.

    The query often is a signature that opens the image to everybody.
    """
    place, separator, _query = url.partition("#")[0].partition("?")
    scheme, slashes, rest = place.partition("//")
    host, slash, path = rest.partition("/")
    host = host.rpartition("@")[2]
    return f"{scheme}{slashes}{host}{slash}{path}{separator}{'...' if separator else ''}"


@dataclasses.dataclass(frozen=True)
class Target:
    """A URL taken apart: what to connect to, and what to ask for there."""

    url: str
    scheme: str
    host: str
    port: int
    resource: str
    """Path and query, as they stand in the request line."""


@dataclasses.dataclass(frozen=True)
class ImageServers:
    """Where images may come from.

    :param networks: if there are any, only addresses in these; a special address (loopback,
        link-local, metadata...) only in a network that lies within the special block.
    :param denied: never addresses in these.
    :param ca_file: certificates of the authorities that https servers are checked with.
    """

    schemes: tuple[str, ...] = ("https", "http")
    networks: tuple[Network, ...] = ()
    denied: tuple[Network, ...] = ()
    ports: tuple[range, ...] = (range(80, 81), range(443, 444))
    ca_file: str | None = None

    @classmethod
    def configured(cls, group: Any) -> "ImageServers":
        """Return what the group [kvm_storage] says.

        :raises kvmdriver.exception.ConfigurationError: a network is none.
        """
        return cls(
            schemes=tuple(group.image_url_schemes),
            networks=_networks(group, "image_url_networks"),
            denied=_networks(group, "image_url_denied_networks"),
            ports=tuple(group.image_url_ports),
            ca_file=group.image_url_ca_file,
        )

    def check_url(self, url: str) -> Target:
        """Take a URL apart, and refuse what can be refused without asking anybody.

        :raises kvmdriver.exception.InvalidRequest: the URL is malformed.
        :raises kvmdriver.exception.ImageNotFound: images may not come from there.
        """
        try:
            parts = urllib.parse.urlsplit(url)
            host, port = parts.hostname or "", parts.port
            if not _is_address(host):
                host = host.encode("idna").decode("ascii")
                if not _HOST.fullmatch(host):
                    raise ValueError("the host's name is malformed")
        except ValueError as error:  # UnicodeError is one
            raise exception.InvalidRequest(
                f"the URL is malformed: {error}",
                field="url",
                value=told(url),
                remedy="correct the URL",
            ) from None
        if parts.username or parts.password:
            raise exception.InvalidRequest(
                "the URL carries a user name or password", field="url", remedy="leave them out"
            )
        if parts.scheme not in self.schemes:
            raise _refused(
                url, f"images may not be fetched by {parts.scheme}", "image_url_schemes"
            )
        port = _PORTS.get(parts.scheme, 0) if port is None else port
        if not any(port in ports for ports in self.ports):
            raise _refused(url, f"images may not be fetched from port {port}", "image_url_ports")
        if _is_address(host) and not self.allows(host):
            raise _refused_address(url)
        # what is percent-encoded stays so; everything else that HTTP does not allow becomes it
        path = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
        query = urllib.parse.quote(parts.query, safe="/%:@!$&'()*+,;=~?[]")
        resource = f"{path}?{query}" if query else path
        return Target(url, parts.scheme, host, port, resource)

    def allows(self, text: str) -> bool:
        """Return whether images may come from an address.

        An IPv6 address with an IPv4 address in it must be allowed itself, and so must that one.
        """
        # a zone ("%eth0") says by which interface, not where
        address = ipaddress.ip_address(text.partition("%")[0])
        return all(self._allows(part) for part in (address, *_embedded(address)))

    def _allows(self, address: Address) -> bool:
        if any(address in network for network in self.denied):
            return False
        matching = [network for network in self.networks if address in network]
        special = [block for block in _SPECIAL if address in block]
        if special:
            return any(_within(network, block) for network in matching for block in special)
        mapped = address.version == 6 and address in _MAPPED
        return bool(matching) or not self.networks or mapped

    def resolve(self, target: Target) -> list[tuple[int, tuple[Any, ...]]]:
        """Addresses (family and socket address) of a server that images may come from.

        A connection must go to one of these and not to the name, which the next look-up could give
        another address (DNS rebinding).

        :raises OSError: the name has no address.
        :raises kvmdriver.exception.ImageNotFound: none of its addresses is allowed.
        """
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        allowed: list[tuple[int, tuple[Any, ...]]] = [
            (family, address)
            for family, _type, _protocol, _name, address in found
            if self.allows(str(address[0]))
        ]
        if not allowed:
            LOG.warning(
                "%r was not fetched: its addresses are refused: %s",
                told(target.url),
                ", ".join(sorted({str(entry[4][0]) for entry in found})),
            )
            raise _refused_address(target.url)
        return allowed


def _embedded(address: Address) -> Iterator[Address]:
    """IPv4 addresses to which packets for an IPv6 address may go in the end."""
    if not isinstance(address, ipaddress.IPv6Address):
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    last = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    compatible = address in _COMPATIBLE and int(address) > 1
    # ISATAP (RFC 5214): 0:5efe or 200:5efe before the IPv4 address
    isatap = (int(address) >> 32) & 0xFCFFFFFF == 0x5EFE
    if compatible or isatap or address in _NAT64:
        yield last


def _within(network: Network, block: Network) -> bool:
    return network.version == block.version and network.subnet_of(block)  # type: ignore[arg-type]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _networks(group: Any, option: str) -> tuple[Network, ...]:
    found = []
    for text in getattr(group, option):
        try:
            found.append(ipaddress.ip_network(text))
        except ValueError as error:
            raise exception.ConfigurationError(
                f"an image server's network is wrong: {error}",
                field=f"kvm_storage.{option}",
                value=text,
                remedy="write networks such as 10.20.0.0/16 or 2001:db8::/32",
            ) from None
    return tuple(found)


def _refused(url: str, message: str, option: str) -> exception.ImageNotFound:
    return exception.ImageNotFound(
        message, field="url", value=told(url), remedy=f"allow it in [kvm_storage] {option}"
    )


def _refused_address(url: str) -> exception.ImageNotFound:
    return _refused(
        url, "images may not be fetched from the address of this server", "image_url_networks"
    )
