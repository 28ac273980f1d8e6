"""A thin, complete wrapper of one libvirt domain. No policy: that is in operations/."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import libvirt
import libvirt_qemu
from lxml import etree

from kvmdriver import exception
from kvmdriver.hypervisor import lost, xml
from kvmdriver.hypervisor.connection import Connection, PendingCall
from kvmdriver.hypervisor.migration import JobProgress, MigrationSettings, Presence, presence
from kvmdriver.hypervisor.record import NAMESPACE, PREFIX, Record
from kvmdriver.model import Status

T = TypeVar("T")

# Saving and restoring take as long as the guest is large.
_SLOW = 10

# MiB/s; QEMU keeps the limit in bytes as a signed 64-bit number, libvirt multiplies.
_UNLIMITED = 2**63 // (1024 * 1024) - 1

_STATUS: dict[int, Status] = {
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_BLOCKED: "running",
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_SHUTDOWN: "shutting-down",
    libvirt.VIR_DOMAIN_SHUTOFF: "stopped",
    libvirt.VIR_DOMAIN_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "paused",
}


def status_of(state: int, reason: int) -> Status:
    """Our word for a libvirt state and its reason (virDomainState, virDomain*Reason)."""
    if state == libvirt.VIR_DOMAIN_PAUSED and reason == libvirt.VIR_DOMAIN_PAUSED_IOERROR:
        return "blocked"
    if state == libvirt.VIR_DOMAIN_SHUTOFF:
        if reason == libvirt.VIR_DOMAIN_SHUTOFF_SAVED:
            return "suspended"
        if reason == libvirt.VIR_DOMAIN_SHUTOFF_CRASHED:
            return "crashed"
    return _STATUS.get(state, "stopped")


class Domain:
    """One domain. Every method is one libvirt call with a deadline and translated errors."""

    def __init__(self, connection: Connection, raw: libvirt.virDomain):
        self._connection = connection
        self._raw = raw
        self.uuid: str = raw.UUIDString()
        self.name: str = raw.name()

    def _call(self, function: Callable[..., T], *args: Any) -> T:
        """Make a call that libvirt answers from its own memory, in whatever state the guest is."""
        return self._connection.call(function, *args, instance=self.name)

    def _ask(self, method: str, *args: Any, **how: Any) -> Any:
        """Make a call that waits for the guest's QEMU, or for libvirt's job on it.

        Seen with libvirt 9.0 and a QEMU that was stopped with SIGSTOP: every method that is not
        called through ``_call`` hangs then, or may hang behind another one.
        """
        return self._connection.call_guest(
            self.uuid, lambda raw: getattr(raw, method)(*args), instance=self.name, **how
        )

    def _ask_slowly(self, method: str, *args: Any) -> Any:
        return self._ask(method, *args, timeout=_SLOW * self._connection.call_timeout)

    def _ask_agent(self, method: str, *args: Any) -> Any:
        return self._ask(method, *args, agent=True)

    def status(self) -> Status:
        state, reason = self._call(self._raw.state)
        status = status_of(state, reason)
        # After a restart of libvirtd the reason is no longer known; the image is what counts.
        if status == "stopped" and self.has_managed_save():
            return "suspended"
        return status

    def is_active(self) -> bool:
        return bool(self._call(self._raw.isActive))

    def started_as(self) -> int:
        """Return the number of this run of the domain, another one after each start; -1 while it is off."""
        return int(self._raw.ID())

    def was_cut_off(self) -> bool:
        """Return whether the domain is off although its guest neither shut down by itself nor was saved.

        A libvirtd that is started while a QEMU starts or ends does not know who ended that: it
        names itself, a failure or a crash, or no reason at all (virDomainShutoffReason).
        """
        state, reason = self._call(self._raw.state)
        return state == libvirt.VIR_DOMAIN_SHUTOFF and reason in (
            libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED,
            libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN,
            libvirt.VIR_DOMAIN_SHUTOFF_DAEMON,
            libvirt.VIR_DOMAIN_SHUTOFF_FAILED,
            libvirt.VIR_DOMAIN_SHUTOFF_CRASHED,
        )

    # Power

    def start(self, *, paused: bool = False) -> None:
        flags = libvirt.VIR_DOMAIN_START_PAUSED if paused else 0
        self._ask_slowly("createWithFlags", flags)

    def press_power_button(self) -> None:
        self._ask("shutdownFlags", libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)

    def destroy(self) -> None:
        """Switch off at once. No error when it is off already; a QEMU that libvirt has lost ends, too.

        A QEMU that does not answer is killed: libvirt sends SIGTERM and, 10 s later, SIGKILL
        (virProcessKillPainfully). Whatever waits for it ends then.
        """
        try:
            self._ask("destroy", ends=True)
        except exception.InvalidState:
            if self.is_active():
                raise
            lost.end(self.name, self.uuid)

    def is_lost(self) -> bool:
        """Return whether the domain's QEMU runs while libvirt has the domain switched off."""
        return not self.is_active() and lost.find(self.name, self.uuid) is not None

    def require_not_lost(self) -> None:
        """Make sure that no QEMU runs while libvirt has the domain switched off.

        :raises kvmdriver.exception.InvalidState: one does.
        """
        if not self.is_active():
            lost.require_none(self.name, self.uuid)

    def reboot(self) -> None:
        """Have libvirt press the power button, and start the guest again when it is down."""
        self._ask("reboot", libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN)

    def pause(self) -> None:
        self._ask("suspend")

    def unpause(self) -> None:
        self._ask("resume")

    def managed_save(self) -> None:
        """Write the guest's memory to disk and switch it off; the next start restores it."""
        self._ask_slowly("managedSave", 0)

    def has_managed_save(self) -> bool:
        return bool(self._call(self._raw.hasManagedSaveImage, 0))

    def remove_managed_save(self) -> None:
        """Throw saved memory away; the next start boots. No error when there is none."""
        if self.has_managed_save():
            self._call(self._raw.managedSaveRemove, 0)

    def undefine(self, *, keep_nvram: bool = False) -> None:
        """Forget the domain, with its saved memory, NVRAM, snapshots and checkpoints' metadata."""
        self._ask(
            "undefineFlags",
            libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
            | (
                libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
                if keep_nvram
                else libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
            ),
        )

    def set_autostart(self, on: bool) -> None:
        self._ask("setAutostart", int(on))

    def autostart(self) -> bool:
        return bool(self._call(self._raw.autostart))

    def rename(self, name: str) -> None:
        self._ask("rename", name, 0)
        self.name = name

    # Definition and metadata

    def xml(self, *, inactive: bool = False, secure: bool = False) -> etree._Element:
        flags = (libvirt.VIR_DOMAIN_XML_INACTIVE if inactive else 0) | (
            libvirt.VIR_DOMAIN_XML_SECURE if secure else 0
        )
        return xml.parse(self._call(self._raw.XMLDesc, flags))

    def record(self) -> Record | None:
        """Return what the driver noted of the instance; None when the domain is not one of ours.

        virt-clone copies the metadata of a domain. The record in such a copy is that of the original.
        """
        record = record_in(self.xml(inactive=True))
        return record if record is not None and record.instance.uuid == self.uuid else None

    def running_record(self) -> Record | None:
        """Return the record in the running definition, which a migration takes along."""
        return record_in(self.xml())

    def set_record(self, record: Record, *, timeout: float | None = None) -> None:
        """Replace the record, in the running and in the persistent definition alike.

        :param timeout: seconds; libvirt waits for a running guest that hangs.
        """
        flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG
        if self.is_active():
            flags |= libvirt.VIR_DOMAIN_AFFECT_LIVE
        text = etree.tostring(record.to_element(bare=True), encoding="unicode")
        self._ask(
            "setMetadata",
            libvirt.VIR_DOMAIN_METADATA_ELEMENT,
            text,
            PREFIX,
            NAMESPACE,
            flags,
            timeout=timeout,
        )

    # Devices and sizes. ``flags`` tells apart the running and the persistent definition.

    def attach(self, device: etree._Element, *, live: bool, config: bool) -> None:
        self._ask("attachDeviceFlags", xml.to_string(device), _affect(live, config))

    def detach(self, device: etree._Element, *, live: bool, config: bool) -> None:
        self._ask("detachDeviceFlags", xml.to_string(device), _affect(live, config))

    def detach_alias(self, alias: str) -> None:
        """Ask the guest to release a device; the event device-removed comes when it has."""
        self._ask("detachDeviceAlias", alias, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def set_memory(self, mib: int, *, live: bool, config: bool) -> None:
        self._ask("setMemoryFlags", mib * 1024, _affect(live, config))

    def set_vcpus(self, count: int, *, live: bool, config: bool) -> None:
        self._ask("setVcpusFlags", count, _affect(live, config))

    def set_maximum_memory(self, mib: int) -> None:
        """Change what the guest can have at most, from its next start on."""
        flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG | libvirt.VIR_DOMAIN_MEM_MAXIMUM
        self._ask("setMemoryFlags", mib * 1024, flags)

    def set_maximum_vcpus(self, count: int) -> None:
        """Change how many vCPUs the guest can have at most, from its next start on."""
        flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG | libvirt.VIR_DOMAIN_VCPU_MAXIMUM
        self._ask("setVcpusFlags", count, flags)

    def bring_vcpus_online(self, count: int) -> None:
        """Have the guest agent switch on vCPUs 0 to ``count`` - 1."""
        if count > 1:
            self._ask_agent("setGuestVcpus", f"1-{count - 1}", 1, 0)

    # What the guest does

    def addresses(self, source: int) -> dict[str, Any]:
        if source == libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT:
            return self._ask_agent("interfaceAddresses", source, 0) or {}
        return self._call(self._raw.interfaceAddresses, source, 0) or {}

    def set_time(self, seconds: float) -> None:
        """Have the guest agent set the clock to seconds since 1970 (UTC)."""
        self._ask_agent(
            "setTime",
            {"seconds": int(seconds), "nseconds": int(seconds % 1 * 1e9)},
            0,
        )

    def set_user_password(self, user: str, password: str) -> None:
        """Have the guest agent change a password."""
        self._ask_agent("setUserPassword", user, password, 0)

    def inject_nmi(self) -> None:
        """Make the guest crash, so that it writes a dump."""
        self._ask("injectNMI", 0)

    def resize_block(self, disk: str, size: int) -> None:
        """Tell a running guest a disk's new size in bytes."""
        self._ask("blockResize", disk, size, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)

    def freeze(self) -> None:
        self._ask_agent("fsFreeze")

    def thaw(self) -> None:
        self._ask_agent("fsThaw")

    def block_info(self, path: str) -> tuple[int, int, int]:
        """Capacity, allocation and physical size in bytes."""
        capacity, allocation, physical = self._ask("blockInfo", path, 0)
        return capacity, allocation, physical

    # Block jobs

    def copy_disk(self, disk: str, destination: etree._Element) -> None:
        """Start a full copy of a disk into an existing image, while the guest runs."""
        flags = (
            libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB | libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT
        )
        self._ask("blockCopy", disk, xml.to_string(destination), {}, flags)

    def block_job(self, disk: str) -> tuple[int, int] | None:
        """Bytes done and to do of a disk's block job; None when there is none."""
        info = self._ask("blockJobInfo", disk, 0)
        return (info["cur"], info["end"]) if info else None

    def file_in_use(self, alias: str) -> str | None:
        """Return the file that the QEMU has for a disk, whatever libvirt believes (QMP, query-block).

        :param alias: the alias of the disk in the running definition.
        """
        answer = self._connection.call_guest(
            self.uuid,
            lambda raw: libvirt_qemu.qemuMonitorCommand(raw, '{"execute": "query-block"}', 0),
            instance=self.name,
        )
        for device in json.loads(answer)["return"]:
            # the path of the device in QEMU's tree, or the last part of it
            if alias and alias in device.get("qdev", "").split("/"):
                file: str | None = device.get("inserted", {}).get("file")
                return file
        return None

    def end_block_job(self, disk: str) -> None:
        self._ask("blockJobAbort", disk, 0)

    def pivot(self, disk: str) -> None:
        """End a copy that is complete; the guest goes on with the copy."""
        self._ask("blockJobAbort", disk, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)

    # Migration

    def migratable_xml(self) -> etree._Element:
        """Return the running definition as another host must be able to run it, secrets included."""
        flags = libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE
        return xml.parse(self._call(self._raw.XMLDesc, flags))

    def start_migration(self, settings: MigrationSettings) -> PendingCall:
        """Have libvirt move the guest; it goes on even if nobody waits for the answer."""
        uri, parameters, flags = settings.uri, settings.parameters(), settings.flags()
        return self._connection.begin(
            self.uuid,
            lambda raw: raw.migrateToURI3(uri, parameters, flags),
            instance=self.name,
        )

    def migration_progress(self) -> JobProgress | None:
        """Return how far the migration is that is under way; None when there is none."""
        return JobProgress.from_stats(self._ask("jobStats", 0))

    def has_incoming_job(self) -> bool:
        """Return whether the guest's memory still comes in from another host."""
        stats = self._ask("jobStats", 0)
        incoming = libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN
        return bool(stats.get("type", 0)) and stats.get("operation") == incoming

    def last_migration(self) -> JobProgress | None:
        """Return what the migration that has just ended has taken; kept until the next job."""
        flags = (
            libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED
        )
        return JobProgress.from_stats(self._ask("jobStats", flags))

    def presence(self) -> Presence:
        """Return where the domain is in the course of a migration."""
        return presence(*self._call(self._raw.state))

    def abort_job(self) -> None:
        """Give the migration up; the guest goes on here. Not possible after post-copy began."""
        self._ask("abortJob")

    def wake_cancelled_migration(self) -> None:
        """Wake a QEMU that was told to cancel when it was about to wait before the switch-over.

        The cancellation is not heard by the thread that begins to wait at that moment: the guest
        stays paused, the migration "cancelling", whatever is done to libvirt's job. QEMU takes
        the word to go on only while it is in the status that the word names, so this does nothing
        to any other migration. Source: QEMU, migration/migration.c, migration_maybe_pause,
        migrate_fd_cancel and qmp_migrate_continue.
        """
        command = '{"execute": "migrate-continue", "arguments": {"state": "cancelling"}}'
        self._connection.call_guest(
            self.uuid,
            lambda raw: libvirt_qemu.qemuMonitorCommand(raw, command, 0),
            instance=self.name,
        )

    def set_migration_downtime(self, milliseconds: int) -> None:
        self._ask("migrateSetMaxDowntime", milliseconds, 0)

    def set_migration_bandwidth(self, mib: int) -> None:
        """MiB/s; 0 lifts the limit."""
        # libvirt takes 0 for nothing at all
        self._ask("migrateSetMaxSpeed", mib or _UNLIMITED, 0)

    def start_post_copy(self) -> None:
        self._ask("migrateStartPostCopy", 0)

    def start_dirty_rate(self, seconds: int) -> None:
        """Measure how fast the guest changes its memory, for 1 to 60 seconds."""
        self._ask("startDirtyRateCalc", seconds, 0)

    # Streams

    def screenshot(self) -> bytes:
        """Return the picture on the first screen, in the format of the hypervisor (PPM or PNG)."""
        return self._connection.call_guest(self.uuid, _read_screenshot, instance=self.name)

    def open_console(self) -> "libvirt.virStream":
        """Return a non-blocking stream to the first serial port. Another client of the port loses it."""
        return self._call(self._open_console)

    def _open_console(self) -> "libvirt.virStream":
        stream = self._raw.connect().newStream(libvirt.VIR_STREAM_NONBLOCK)
        self._raw.openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
        return stream


def _read_screenshot(raw: libvirt.virDomain) -> bytes:
    stream = raw.connect().newStream(0)
    chunks: list[bytes] = []
    try:
        raw.screenshot(stream, 0)
        stream.recvAll(lambda _stream, data, _opaque: chunks.append(data), None)
        stream.finish()
    except libvirt.libvirtError:
        stream.abort()
        raise
    return b"".join(chunks)


def _affect(live: bool, config: bool) -> int:
    return (libvirt.VIR_DOMAIN_AFFECT_LIVE if live else 0) | (
        libvirt.VIR_DOMAIN_AFFECT_CONFIG if config else 0
    )


def record_in(root: etree._Element) -> Record | None:
    """Return the driver's record in a domain's XML; None when there is none or it is not readable."""
    element = root.find(f"metadata/{{{NAMESPACE}}}instance")
    if element is None:
        return None
    try:
        return Record.from_element(element)
    except ValueError:
        return None
