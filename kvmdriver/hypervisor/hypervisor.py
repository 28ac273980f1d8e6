"""The hypervisor of one host: what the layers above ask of libvirt as a whole."""

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import libvirt
from lxml import etree

from kvmdriver import exception
from kvmdriver.hypervisor import stats, xml
from kvmdriver.hypervisor.capabilities import DomainCapabilities, HostCapabilities
from kvmdriver.hypervisor.connection import Connection
from kvmdriver.hypervisor.cpu import HypervisorCpu
from kvmdriver.hypervisor.domain import Domain, status_of
from kvmdriver.hypervisor.events import Event, EventBus
from kvmdriver.hypervisor.record import Record
from kvmdriver.model.base import as_uuid

LOG = logging.getLogger(__name__)

LEASE = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE
AGENT = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT
ARP = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP

# Events after which a domain may have another size.
_RESIZES = frozenset(
    {"defined", "undefined", "metadata-changed", "started", "stopped", "resumed"}
    | {"balloon-changed", "device-added", "device-removed"}
)
# libvirt tells nobody of vCPUs that somebody else has plugged in, nor of a lost event.
_SIZE_SECONDS = 60.0


class Hypervisor:
    """libvirt at one URI, with the caches that events keep true."""

    def __init__(self, connection: Connection):
        self.connection = connection
        self._cache_lock = threading.Lock()
        self._host: HostCapabilities | None = None
        self._domain_capabilities: dict[tuple[str, str | None], DomainCapabilities] = {}
        self._cpus: dict[tuple[str, str], HypervisorCpu] = {}
        self._records: dict[str, Record | None] = {}
        self._record_changes = 0  # what was read before the last one may be out of date
        self._sizes: dict[str, tuple[float, stats.Size]] = {}
        self._size_changes = 0
        self._versions: tuple[int, int] | None = None
        self._hostname: str | None = None
        self.events.subscribe(self._on_event)

    @property
    def events(self) -> EventBus:
        return self.connection.events

    def close(self) -> None:
        self.connection.close()

    def _on_event(self, event: Event) -> None:
        if event.kind in ("connected", "disconnected"):
            # another libvirtd or QEMU may answer next time
            with self._cache_lock:
                self._host = self._versions = None
                self._domain_capabilities.clear()
                self._cpus.clear()
                self._records.clear()
                self._record_changes += 1
                self._sizes.clear()
                self._size_changes += 1
        elif event.kind in ("defined", "undefined", "metadata-changed", "stopped"):
            self._forget_record(event.uuid or "")
        if event.kind in _RESIZES:
            self._forget_size(event.uuid or "")

    def _forget_record(self, uuid: str) -> None:
        with self._cache_lock:
            self._records.pop(uuid, None)
            self._record_changes += 1

    def _forget_size(self, uuid: str) -> None:
        with self._cache_lock:
            self._sizes.pop(uuid, None)
            self._size_changes += 1

    # Domains

    def domain(self, name_or_uuid: str) -> Domain:
        """Find a domain by UUID or by name.

        A text that is a UUID (``as_uuid``) is never looked up as a name: a second request to remove
        an instance would else remove another one that has this UUID for its name. A domain with
        such a name is found by its own UUID.

        :raises kvmdriver.exception.InstanceNotFound: there is none.
        """
        uuid = as_uuid(name_or_uuid)
        method = "lookupByName" if uuid is None else "lookupByUUIDString"
        try:
            found = self.connection.call_fresh(method, uuid or name_or_uuid, instance=name_or_uuid)
        except exception.InstanceNotFound:
            raise exception.InstanceNotFound(
                f"there is no instance {name_or_uuid!r}", instance=name_or_uuid
            ) from None
        return Domain(self.connection, found)

    def find(self, name_or_uuid: str) -> Domain | None:
        try:
            return self.domain(name_or_uuid)
        except exception.InstanceNotFound:
            return None

    def define(self, definition: etree._Element) -> Domain:
        """Define a domain, or redefine the one with the same UUID; libvirt validates the XML."""
        raw = self.connection.call(
            self.connection.raw().defineXMLFlags,
            xml.to_string(definition),
            libvirt.VIR_DOMAIN_DEFINE_VALIDATE,
            instance=definition.findtext("name"),
        )
        domain = Domain(self.connection, raw)
        # libvirt's event will say so too, but later than the caller may ask
        self._forget_record(domain.uuid)
        return domain

    def summaries(self) -> list[stats.DomainSummary]:
        """State and size of all domains, in a number of calls that does not grow with them.

        No guest is asked, so one that hangs is listed like the others. States are as of now; the
        size of a domain is read once and again after an event that may have changed it.
        """
        rows = self._states()
        sizes = self._sizes_of(domain for domain, _values in rows)
        silent = self.connection.guests.unanswered()
        return [
            stats.summary(
                domain,
                stats.power_state(domain, values).status,
                sizes[uuid],
                unresponsive=uuid in silent,
            )
            for domain, values in rows
            if (uuid := domain.UUIDString()) in sizes
        ]

    def power_states(self) -> dict[str, stats.PowerState]:
        """Power state of every domain by UUID, in one call."""
        return {d.UUIDString(): stats.power_state(d, values) for d, values in self._states()}

    def disk_serials(self) -> dict[str, set[str]]:
        """Return the serial numbers of the disks of every domain, by the domain's UUID.

        The definitions come from libvirtd, which asks no QEMU for them.
        """
        return {
            domain.uuid: {node.text or "" for node in root.iterfind("devices/disk/serial")}
            for domain, root in self._definitions()
        }

    def disk_files(self) -> dict[str, set[tuple[str, str]]]:
        """Return serial number and path of every disk that is a file, by the domain's UUID."""
        return {
            domain.uuid: {
                (disk.findtext("serial") or "", path)
                for disk in root.iterfind("devices/disk")
                if (path := xml.attribute(disk, "source", "file"))
            }
            for domain, root in self._definitions()
        }

    def used_by_others(self, uuid: str | None, directory: str) -> dict[str, str]:
        """Files in a directory that other domains name, whatever for, and who does.

        :param uuid: the domain to which the directory belongs; None if it belongs to no domain.
        :returns: names of domains by path.
        """
        found: dict[str, str] = {}
        for inactive in (False, True):
            for domain, root in self._definitions(inactive=inactive):
                if domain.uuid != uuid:
                    found |= dict.fromkeys(_paths_below(root, directory), domain.name)
        return {path: name for path, name in found.items() if os.path.lexists(path)}

    def _definitions(self, *, inactive: bool = False) -> Iterator[tuple[Domain, etree._Element]]:
        """Yield every domain with its definition, which libvirtd has without a question to any QEMU.

        :param inactive: only the running domains, with their definitions for the next start.
        """
        which = libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE if inactive else 0
        for raw in self.connection.call_fresh("listAllDomains", which):
            domain = Domain(self.connection, raw)
            with contextlib.suppress(exception.InstanceNotFound):
                yield domain, domain.xml(inactive=inactive)

    def vcpus_used(self) -> int:
        """Return the vCPUs of all running domains, from what libvirt knows without asking a QEMU."""
        return sum(entry.vcpus for entry in self.summaries() if entry.active)

    def summary(self, domain: Domain) -> stats.DomainSummary:
        """State and size of one domain, as of now, without asking its QEMU."""
        raw = self.connection.raw()

        def read() -> stats.DomainSummary:
            found = raw.lookupByUUIDString(domain.uuid)
            status = status_of(*found.state())
            return stats.summary(
                found,
                status,
                stats.size_of(found),
                unresponsive=domain.uuid in self.connection.guests.unanswered(),
            )

        return self.connection.call(read, instance=domain.name)

    def _states(self) -> list[tuple[libvirt.virDomain, dict[str, Any]]]:
        # the group STATE is the one that asks no QEMU (qemuDomainGetStatsWorkers)
        rows: list[tuple[libvirt.virDomain, dict[str, Any]]] = self.connection.call_fresh(
            "getAllDomainStats", libvirt.VIR_DOMAIN_STATS_STATE, 0
        )
        return rows

    def _sizes_of(self, domains: Iterable[libvirt.virDomain]) -> dict[str, stats.Size]:
        """Sizes by UUID, without those of domains that have just gone."""
        found: dict[str, stats.Size] = {}
        missing = []
        now = time.monotonic()
        with self._cache_lock:
            changes = self._size_changes
            for domain in domains:
                uuid = domain.UUIDString()
                taken, size = self._sizes.get(uuid, (0.0, None))
                if size is not None and now - taken < _SIZE_SECONDS:
                    found[uuid] = size
                else:
                    missing.append(domain)
        if not missing:
            return found
        read = self.connection.call(lambda: dict(_read_sizes(missing)))
        with self._cache_lock:
            if self._size_changes == changes:
                self._sizes.update({uuid: (now, size) for uuid, size in read.items()})
        return found | read

    def all_stats(self, domain: Domain) -> dict[str, Any]:
        """Return all statistics of one domain, by libvirt's names (virConnectGetAllDomainStats)."""
        return self._stats_of(domain, 0)

    def _stats_of(self, domain: Domain, kinds: int) -> dict[str, Any]:
        rows = self.connection.call_guest(
            domain.uuid,
            lambda raw: raw.connect().domainListGetStats([raw], kinds, 0),
            instance=domain.name,
        )
        if not rows:
            raise exception.InstanceNotFound("the instance has just gone", instance=domain.name)
        return dict(rows[0][1])

    def vcpu_time(self, domain: Domain) -> float:
        """Return how long the vCPUs of a guest have run in this QEMU, all of them together, in ms."""
        values = self._stats_of(domain, libvirt.VIR_DOMAIN_STATS_VCPU)
        spent = [value for name, value in values.items() if re.fullmatch(r"vcpu\.\d+\.time", name)]
        return float(sum(spent)) / 1e6

    def dirty_rate(self, domain: Domain) -> float | None:
        """MiB/s of memory that a guest changes, once it has been measured."""
        rows = self._stats_of(domain, libvirt.VIR_DOMAIN_STATS_DIRTYRATE)
        measured = rows.get("dirtyrate.calc_status") == libvirt.VIR_DOMAIN_DIRTYRATE_MEASURED
        return float(rows["dirtyrate.megabytes_per_second"]) if measured else None

    def record(self, uuid: str) -> Record | None:
        """Return the driver's record of a domain, from a cache that libvirt's events keep true."""
        with self._cache_lock:
            if uuid in self._records:
                return self._records[uuid]
            changes = self._record_changes
        try:
            record = self.domain(uuid).record()
        except exception.InstanceNotFound:
            return None  # perhaps it has just gone
        with self._cache_lock:
            if self._record_changes == changes:
                self._records[uuid] = record
        return record

    def save(self, domain: Domain, record: Record, *, timeout: float | None = None) -> None:
        """Keep a record with its domain.

        :param timeout: seconds; libvirt waits for a running guest that hangs.
        """
        domain.set_record(record, timeout=timeout)
        with self._cache_lock:
            self._records[domain.uuid] = record
            self._record_changes += 1
        # what the operation has changed may have come without an event: vCPUs do
        self._forget_size(domain.uuid)

    def is_unresponsive(self, domain: Domain) -> bool:
        """Return whether the QEMU of a domain owes an answer to somebody who has stopped to wait for it."""
        return domain.uuid in self.connection.guests.unanswered()

    def give_up_calls(self, uuid: str, older_than: float) -> int:
        """End the waits for a guest that have lasted so many seconds: it is to be removed.

        :returns: how many there were.
        """
        return self.connection.guests.give_up(uuid, older_than)

    def flagged(self) -> tuple[set[str], set[str]]:
        """UUIDs of all domains with saved memory, and of all that start with the host."""
        raw = self.connection.raw()

        def uuids(flag: int) -> set[str]:
            return {domain.UUIDString() for domain in raw.listAllDomains(flag)}

        return self.connection.call(
            lambda: (
                uuids(libvirt.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE),
                uuids(libvirt.VIR_CONNECT_LIST_DOMAINS_AUTOSTART),
            )
        )

    # The host

    def host_capabilities(self) -> HostCapabilities:
        host = self._host
        if host is None:
            host = HostCapabilities.parse(self.connection.call_fresh("getCapabilities"))
            self._host = host
        return host

    def domain_capabilities(self, virt_type: str, machine: str | None) -> DomainCapabilities:
        """Return what a guest of this virtualization and machine type can have.

        :raises kvmdriver.exception.KVMDriverError: libvirt knows no such combination.
        """
        key = (virt_type, machine)
        found = self._domain_capabilities.get(key)
        if found is None:
            text = self.connection.call_fresh(
                "getDomainCapabilities",
                None,
                self.host_capabilities().architecture,
                machine,
                virt_type,
                0,
            )
            found = DomainCapabilities.parse(text)
            self._domain_capabilities[key] = found
        return found

    def cpu(self, capabilities: DomainCapabilities) -> HypervisorCpu:
        """Return what guests of a kind can have as their CPU; remembered while libvirtd lives."""
        key = (capabilities.virt_type, capabilities.machine)
        found = self._cpus.get(key)
        if found is None:
            architecture = self.host_capabilities().architecture
            found = HypervisorCpu(self.connection, architecture, capabilities)
            self._cpus[key] = found
        return found

    def version_numbers(self) -> tuple[int, int]:
        """Version of QEMU and of libvirt as libvirt's numbers (major * 1000000 + ...)."""
        if self._versions is None:
            self._versions = (
                int(self.connection.call_fresh("getVersion")),
                int(self.connection.call_fresh("getLibVersion")),
            )
        return self._versions

    def hostname(self) -> str:
        """Return the host's name as libvirt gives it: what nova knows the node by."""
        if self._hostname is None:
            self._hostname = str(self.connection.call_fresh("getHostname"))
        return self._hostname

    def online_cpus(self) -> set[int]:
        """Numbers of the host's CPUs that are online."""
        _count, present, _online = self.connection.call_fresh("getCPUMap")
        return {number for number, online in enumerate(present) if online}

    def cpu_stats(self) -> tuple[dict[str, int], int]:
        """CPU time of the host in ns by kind, and its frequency in MHz."""
        times = self.connection.call_fresh("getCPUStats", -1, 0)
        return dict(times), int(self.connection.call_fresh("getInfo")[3])

    def versions(self) -> tuple[str, str]:
        """Version of QEMU and of libvirt, as dotted numbers."""

        def dotted(number: int) -> str:
            return f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}"

        qemu, libvirtd = self.version_numbers()
        return dotted(qemu), dotted(libvirtd)

    def cpus(self) -> int:
        """Return the number of the host's CPUs that are online."""
        return int(self.connection.call_fresh("getInfo")[2])

    def is_alive(self) -> bool:
        """Return whether libvirt answers now."""
        try:
            self.connection.call_fresh("getLibVersion", timeout=5)
        except exception.HypervisorUnavailable:
            return False
        return True

    # Networks

    def networks(self) -> dict[str, bool]:
        """Return libvirt's networks by name; the value tells whether the network is active.

        The embedded driver has none.
        """
        if self.connection.embedded:
            return {}
        raw = self.connection.raw()
        return self.connection.call(
            lambda: {net.name(): bool(net.isActive()) for net in raw.listAllNetworks(0)}
        )

    def leases(self, network: str) -> dict[str, list[str]]:
        """DHCP leases of a libvirt network that have not expired: MAC -> addresses."""
        raw = self.connection.raw()
        found: dict[str, list[str]] = {}
        now = time.time()
        for lease in self.connection.call(lambda: raw.networkLookupByName(network).DHCPLeases()):
            if lease["expirytime"] == 0 or lease["expirytime"] > now:
                found.setdefault((lease["mac"] or "").lower(), []).append(lease["ipaddr"])
        return found


def _read_sizes(domains: Iterable[libvirt.virDomain]) -> Iterator[tuple[str, stats.Size]]:
    for domain in domains:
        try:
            yield domain.UUIDString(), stats.size_of(domain)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise


def _paths_below(root: etree._Element, directory: str) -> set[str]:
    """Return every path below a directory that a definition names: disks, kernels, logs, sockets..."""
    return {
        word
        for element in root.iter(etree.Element)
        for word in (*element.attrib.values(), element.text or "")
        if word.startswith(directory + os.sep)
    }
