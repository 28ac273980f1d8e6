"""Bulk statistics: one libvirt call for all domains, never one for each."""

import dataclasses
from typing import Any

import libvirt

from kvmdriver.hypervisor.domain import status_of
from kvmdriver.model import Status

SUMMARY = (
    libvirt.VIR_DOMAIN_STATS_STATE
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_VCPU
)


@dataclasses.dataclass(frozen=True)
class DomainSummary:
    """State and size of one domain; memory in MiB."""

    uuid: str
    name: str
    status: Status
    memory_mib: int
    memory_maximum_mib: int
    vcpus: int
    vcpus_maximum: int

    @property
    def active(self) -> bool:
        return self.status in ("running", "paused", "blocked", "shutting-down")


@dataclasses.dataclass(frozen=True)
class PowerState:
    """What one domain is doing; ``number`` is libvirt's of this run, -1 while it is off."""

    status: Status
    number: int


def power_state(domain: libvirt.virDomain, stats: dict[str, Any]) -> PowerState:
    """Status of one row of virConnectGetAllDomainStats with VIR_DOMAIN_STATS_STATE."""
    status = status_of(stats.get("state.state", 0), stats.get("state.reason", 0))
    return PowerState(status=status, number=domain.ID())


def summary(domain: libvirt.virDomain, stats: dict[str, Any]) -> DomainSummary:
    """One row of virConnectGetAllDomainStats. Names and UUIDs cost no further call."""
    maximum = stats.get("balloon.maximum", 0) // 1024
    return DomainSummary(
        uuid=domain.UUIDString(),
        name=domain.name(),
        status=status_of(stats.get("state.state", 0), stats.get("state.reason", 0)),
        memory_mib=stats.get("balloon.current", maximum * 1024) // 1024,
        memory_maximum_mib=maximum,
        vcpus=stats.get("vcpu.current", 1),
        vcpus_maximum=stats.get("vcpu.maximum", 1),
    )
