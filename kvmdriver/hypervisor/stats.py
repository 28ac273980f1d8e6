"""Bulk statistics: one libvirt call for all domains, and none that asks a guest's QEMU."""

import dataclasses
from typing import Any

import libvirt

from kvmdriver.hypervisor.domain import status_of
from kvmdriver.model import Status


@dataclasses.dataclass(frozen=True)
class Size:
    """What a domain has now and can have at most; memory in MiB."""

    memory_mib: int
    memory_maximum_mib: int
    vcpus: int
    vcpus_maximum: int


@dataclasses.dataclass(frozen=True)
class DomainSummary(Size):
    """State and size of one domain.

    ``unresponsive``: a call that was sent to its QEMU has not come back in time.
    """

    uuid: str
    name: str
    status: Status
    unresponsive: bool = False

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


def size_of(domain: libvirt.virDomain) -> Size:
    """Return the size of one domain, from what libvirtd knows of it.

    virDomainGetInfo has the size of the balloon from QEMU's events; the statistics of the groups
    BALLOON, VCPU and CPU_TOTAL ask QEMU and so wait for one that hangs (qemuDomainGetStats*).
    """
    _state, maximum, memory, vcpus, _time = domain.info()
    return Size(
        memory_mib=memory // 1024,
        memory_maximum_mib=maximum // 1024,
        vcpus=vcpus,
        vcpus_maximum=_maximum_vcpus(domain),
    )


def _maximum_vcpus(domain: libvirt.virDomain) -> int:
    live = libvirt.VIR_DOMAIN_AFFECT_CURRENT | libvirt.VIR_DOMAIN_VCPU_MAXIMUM
    return int(domain.vcpusFlags(live))


def summary(
    domain: libvirt.virDomain, status: Status, size: Size, *, unresponsive: bool = False
) -> DomainSummary:
    """State and size put together. Names and UUIDs cost no further call."""
    return DomainSummary(
        uuid=domain.UUIDString(),
        name=domain.name(),
        status=status,
        unresponsive=unresponsive,
        **dataclasses.asdict(size),
    )
