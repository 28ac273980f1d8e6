"""Whether the libvirtd of another host can be reached, asked before anything depends on it."""

import socket
import urllib.parse

from kvmdriver.model import Problem

_SECONDS = 5.0
# https://libvirt.org/remote.html#transports
_PORTS = {"tls": 16514, "tcp": 16509, "ssh": 22}


def unreachable(uri: str) -> list[Problem]:
    """Return what keeps this host from reaching a libvirt URI, as far as a connection shows it."""
    parts = urllib.parse.urlsplit(uri)
    transport = parts.scheme.partition("+")[2] or "tls"
    port = parts.port or _PORTS.get(transport)
    if port is None or parts.hostname is None:
        return []
    try:
        with socket.create_connection((parts.hostname, port), _SECONDS):
            return []
    except OSError as error:
        return [
            Problem(
                code="hypervisor_unavailable",
                field="kvm_migration.inbound_address",
                message=f"libvirtd cannot be reached at {uri}: {error}",
                remedy=f"have it listen on port {port} (libvirtd.conf: listen_{transport}), "
                "and open the firewall",
            )
        ]
