"""One live migration as libvirt does it: its flags, its parameters, and how far it is.

Source: https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainMigrateToURI3 and
https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainGetJobStats.
"""

import dataclasses
from typing import Any, Literal

import libvirt
from lxml import etree

from kvmdriver.hypervisor import xml

_MIB = 1024 * 1024


@dataclasses.dataclass(frozen=True)
class MigrationSettings:
    """How to move a guest; bandwidth in MiB/s, 0 for no limit.

    ``definition`` is what the destination runs. Neither host's persistent definition is touched,
    unless ``hand_over``: then libvirt itself removes it here and makes it there. ``disks`` are
    copied, the others are shared; ``full_copy`` takes what comes from backing files along.
    """

    uri: str
    definition: etree._Element
    address: str | None = None
    port: int | None = None
    disks: tuple[str, ...] = ()
    disk_port: int | None = None
    full_copy: bool = False
    bandwidth: int = 0
    parallel_connections: int = 1
    native_tls: bool = False
    tunnelled: bool = False
    auto_converge: bool = False
    post_copy: bool = False
    hand_over: bool = False

    def flags(self) -> int:
        """Return the virDomainMigrateFlags of the settings."""
        flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER
        for wanted, flag in (
            (self.hand_over, libvirt.VIR_MIGRATE_PERSIST_DEST),
            (self.hand_over, libvirt.VIR_MIGRATE_UNDEFINE_SOURCE),
            (self.tunnelled, libvirt.VIR_MIGRATE_TUNNELLED),
            (self.native_tls, libvirt.VIR_MIGRATE_TLS),
            (self.auto_converge, libvirt.VIR_MIGRATE_AUTO_CONVERGE),
            (self.post_copy, libvirt.VIR_MIGRATE_POSTCOPY),
            (self.parallel_connections > 1, libvirt.VIR_MIGRATE_PARALLEL),
            (self.disks and self.full_copy, libvirt.VIR_MIGRATE_NON_SHARED_DISK),
            (self.disks and not self.full_copy, libvirt.VIR_MIGRATE_NON_SHARED_INC),
        ):
            if wanted:
                flags |= flag
        return flags

    def parameters(self) -> dict[str, Any]:
        """Typed parameters."""
        text = xml.to_string(self.definition)
        found: dict[str, Any] = {libvirt.VIR_MIGRATE_PARAM_DEST_XML: text}
        if self.bandwidth:
            found[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = self.bandwidth
            if self.post_copy:
                found[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH_POSTCOPY] = self.bandwidth
        if self.parallel_connections > 1:
            found[libvirt.VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS] = self.parallel_connections
        if self.disks:
            found[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] = list(self.disks)
            if self.disk_port:
                found[libvirt.VIR_MIGRATE_PARAM_DISKS_PORT] = self.disk_port
        if self.address and not self.tunnelled:
            port = f":{self.port}" if self.port else ""
            host = f"[{self.address}]" if ":" in self.address else self.address
            found[libvirt.VIR_MIGRATE_PARAM_URI] = f"tcp://{host}{port}"
        return found


@dataclasses.dataclass(frozen=True)
class JobProgress:
    """A look at a running migration; sizes in MiB, rates in MiB/s, times in ms."""

    elapsed: int = 0
    memory_total: float = 0
    memory_left: float = 0
    memory_sent: float = 0
    disk_total: float = 0
    disk_left: float = 0
    dirty_rate: float = 0
    iteration: int = 0
    throttle: int = 0
    downtime: int | None = None
    post_copy: bool = False

    @classmethod
    def from_stats(cls, stats: dict[str, Any]) -> "JobProgress | None":
        """Read virDomainGetJobStats; None when no migration leaves the host."""
        outgoing = stats.get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
        if stats.get("type", 0) == libvirt.VIR_DOMAIN_JOB_NONE or not outgoing:
            return None

        def mib(name: str) -> float:
            return stats.get(name, 0) / _MIB

        return cls(
            elapsed=stats.get("time_elapsed", 0),
            memory_total=mib("memory_total"),
            memory_left=mib("memory_remaining"),
            memory_sent=mib("memory_processed"),
            disk_total=mib("disk_total"),
            disk_left=mib("disk_remaining"),
            # pages/s
            dirty_rate=stats.get("memory_dirty_rate", 0)
            * stats.get("memory_page_size", 4096)
            / _MIB,
            iteration=stats.get("memory_iteration", 0),
            throttle=stats.get("auto_converge_throttle", 0),
            # without what libvirt itself adds on the destination, where the hosts' clocks agree
            downtime=stats.get("downtime_net", stats.get("downtime")),
            post_copy=bool(stats.get("memory_postcopy_reqs")),
        )


# Where a domain is in the course of a migration, from its state and the reason for it.
Presence = Literal[
    "off", "off-migrated", "crashed", "on", "moving-in", "handed-over", "post-copy", "lost"
]

_PAUSED: dict[int, Presence] = {
    # paused by libvirt at the switch-over; the destination has not been confirmed
    libvirt.VIR_DOMAIN_PAUSED_MIGRATION: "handed-over",
    # the guest runs there and fetches its memory from here
    libvirt.VIR_DOMAIN_PAUSED_POSTCOPY: "post-copy",
    libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED: "lost",
    libvirt.VIR_DOMAIN_PAUSED_STARTING_UP: "moving-in",
}


def presence(state: int, reason: int) -> Presence:
    """Our word for a libvirt state and its reason, as far as migrations are concerned.

    On the destination ``handed-over`` means that the memory is still arriving.
    """
    if state == libvirt.VIR_DOMAIN_PAUSED:
        return _PAUSED.get(reason, "on")
    if state == libvirt.VIR_DOMAIN_SHUTOFF:
        if reason == libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED:
            return "off-migrated"
        failed = (libvirt.VIR_DOMAIN_SHUTOFF_CRASHED, libvirt.VIR_DOMAIN_SHUTOFF_FAILED)
        return "crashed" if reason in failed else "off"
    if state == libvirt.VIR_DOMAIN_CRASHED:
        return "crashed"
    return "on"
