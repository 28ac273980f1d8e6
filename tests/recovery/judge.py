"""What must hold on a host whenever nothing is under way, whatever was killed before.

``Judge.look`` reads libvirt, the files and the processes of a host, asks no agent, and tells what
is broken; what it has seen can be compared with what was seen at another time.
"""

import contextlib
import hashlib
import os
import re
import subprocess
import tempfile
from typing import Any

import libvirt
from lxml import etree

from kvmdriver.hypervisor.domain import record_in
from kvmdriver.hypervisor.record import Record
from kvmdriver.model import Instance
from kvmdriver.model.base import is_uuid
from kvmdriver.model.layout import CACHE, InstanceLayout
from kvmdriver.storage import description

_STATES = {
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_BLOCKED: "running",
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_SHUTDOWN: "shutting down",
}


class Seen:
    """A host at one moment."""

    def __init__(self) -> None:
        self.broken: list[str] = []
        """What must not be, in words."""
        self.instances: dict[str, dict[str, Any]] = {}
        """What can be told of each instance, by UUID, equal if and only if nothing has changed."""
        self.unowned: dict[str, str] = {}
        """Files that no instance has, with the digests of their content."""

    def state(self) -> dict[str, Any]:
        """All that tells "done" from "not done"."""
        return {"instances": self.instances, "files": self.unowned}


class Judge:
    """Looks at the host whose instances are below ``root``.

    :param others: further directories in which disks and snapshots may be.
    :param content: read the disks too, and tell what they contain by a digest.
    """

    def __init__(self, root: str, others: tuple[str, ...] = (), *, content: bool = True):
        self._root = root
        self._others = others
        self._content = content
        self._digests: dict[tuple[int, int, int], str] = {}

    def look(self, ignore: frozenset[str] = frozenset()) -> Seen:
        """What there is now; the instances of those UUIDs are left out, but for their processes."""
        seen = Seen()
        owned: set[str] = set()
        taps: set[str] = set()
        active: set[str] = set()
        connection = libvirt.open("qemu:///system")
        try:
            known = set()
            for domain in connection.listAllDomains():
                uuid = domain.UUIDString()
                known.add(uuid)
                if domain.isActive():
                    active.add(uuid)
                    live = _xml(domain)
                    taps |= {str(name) for name in live.xpath("devices/interface/target/@dev")}
                if uuid not in ignore:
                    self._look_at(domain, seen, owned)
        finally:
            connection.close()
        for uuid in sorted(_qemus() - active):
            seen.broken.append(f"a QEMU of {uuid} is left, which libvirt does not have running")
        for tap in sorted(_taps() - taps):
            seen.broken.append(f"the TAP {tap} is left, which no running guest has")
        self._look_at_files(seen, owned, known, ignore)
        return seen

    # One instance

    def _look_at(self, domain: libvirt.virDomain, seen: Seen, owned: set[str]) -> None:
        uuid = domain.UUIDString()
        persistent = _xml(domain, inactive=True)
        record = record_in(persistent)
        if record is None:
            seen.broken.append(f"the domain {domain.name()} has no record")
            return
        wrong = seen.broken
        instance = record.instance
        name = instance.name
        if record.task is not None:
            wrong.append(f"{name}: the task {record.task.name} is left in the record")
        recorded = _of_record(instance)
        layout = InstanceLayout(self._root, uuid)
        definitions = {"libvirt's definition": persistent}
        if domain.isActive():
            definitions["the running guest"] = _xml(domain)
        for where, root in definitions.items():
            found = _of_xml(root, layout)
            found["autostart"] = bool(domain.autostart())
            if root is not persistent:
                # how far the balloon is, is the guest's affair
                found["memory"][0] = recorded["memory"][0]
            for what, value in recorded.items():
                if found[what] != value:
                    wrong.append(f"{name}: {what} is {found[what]} in {where}, {value} recorded")
            if root.find("devices/disk/mirror") is not None:
                wrong.append(f"{name}: a block job is left")
        if domain.isActive() and record_in(definitions["the running guest"]) != record:
            wrong.append(f"{name}: the running guest's record is not the persistent one")
        files = self._files_of(instance, layout)
        for path in sorted(files):
            if not os.path.exists(path):
                wrong.append(f"{name}: {path} is missing")
        owned |= files | {
            path
            for path in _walk(layout.directory)
            if re.fullmatch(r"console\.log(\.\d+)?|nvram\.fd|instance\.json", path.name)
        }
        self._look_at_description(layout, record, wrong)
        seen.instances[uuid] = {
            **recorded,
            "status": _status(domain),
            "files": {os.path.relpath(path, self._root): self._digest(path) for path in files},
        }

    @staticmethod
    def _files_of(instance: Instance, layout: InstanceLayout) -> set[str]:
        files = {
            disk.file.path
            for disk in instance.disks
            if disk.file is not None and disk.device == "disk"
        }
        for path, there in (
            (layout.config_drive, instance.config_drive),
            (layout.kernel, instance.boot.kernel),
            (layout.ramdisk, instance.boot.initrd),
        ):
            if there is not None:
                files.add(path)
        return files

    @staticmethod
    def _look_at_description(layout: InstanceLayout, record: Record, wrong: list[str]) -> None:
        described = description.read(layout.directory)
        if described is None:
            wrong.append(f"{record.instance.name}: {description.NAME} is missing")
        elif described.instance.record_json() != record.instance.record_json():
            wrong.append(f"{record.instance.name}: {description.NAME} tells another instance")
        elif described.autostart != record.instance.autostart:
            wrong.append(f"{record.instance.name}: {description.NAME} tells another autostart")

    # Files

    def _look_at_files(
        self, seen: Seen, owned: set[str], known: set[str], ignore: frozenset[str]
    ) -> None:
        cache = os.path.join(self._root, CACHE)
        for directory in (self._root, *self._others):
            for path in _walk(directory):
                text = str(path)
                of = os.path.relpath(text, self._root).partition("/")[0]
                if of in ignore or text in owned:
                    continue
                if path.name.endswith((".part", ".claim")):
                    seen.broken.append(f"{text} is left half-made")
                elif not text.startswith(f"{cache}/"):
                    seen.unowned[os.path.relpath(text, self._root)] = self._digest(text)
        for entry in os.scandir(self._root) if os.path.isdir(self._root) else ():
            if is_uuid(entry.name) and entry.name not in known and not os.listdir(entry.path):
                seen.broken.append(f"the directory {entry.path} is left, and it is empty")

    def _digest(self, path: str) -> str:
        """What a file contains, as a guest sees it that has it for a disk."""
        if not os.path.exists(path):
            return "missing"
        if not self._content:
            return "not read"
        with open(path, "rb") as file:
            kind = "qcow2" if file.read(4) == b"QFI\xfb" else "raw"
        if path.endswith(".config"):
            # it tells the time at which it was made
            return "a config drive" if os.path.getsize(path) else "empty"
        status = os.stat(path)
        # what has not been written to since is not read again
        key = (status.st_ino, status.st_mtime_ns, status.st_size)
        if key not in self._digests:
            self._digests[key] = _digest_of(path, kind)
        return self._digests[key]


def _digest_of(path: str, kind: str) -> str:
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as raw:
        command = ["qemu-img", "convert", "-U", "-f", kind, "-O", "raw", path, raw.name]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return f"unreadable: {done.stderr.strip()}"
        with open(raw.name, "rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    return f"{kind} {digest[:12]}"


class _Path(str):
    """A path that knows its last part."""

    @property
    def name(self) -> str:
        return os.path.basename(self)


def _walk(directory: str) -> list[_Path]:
    return sorted(
        _Path(os.path.join(parent, name))
        for parent, _directories, names in os.walk(directory)
        for name in names
    )


def _xml(domain: libvirt.virDomain, *, inactive: bool = False) -> etree._Element:
    flags = libvirt.VIR_DOMAIN_XML_INACTIVE if inactive else 0
    return etree.fromstring(domain.XMLDesc(flags))


def _status(domain: libvirt.virDomain) -> str:
    if domain.hasManagedSaveImage():
        return "suspended"
    return _STATES.get(domain.state()[0], "stopped")


def _of_record(instance: Instance) -> dict[str, Any]:
    assert instance.memory is not None
    return {
        "name": instance.name,
        "memory": [instance.memory.current_mib, instance.memory.maximum_mib],
        "vcpus": [instance.vcpus.current, instance.vcpus.maximum],
        "disks": sorted(
            (disk.name, disk.file.path, disk.file.format)
            for disk in instance.disks
            if disk.file is not None
        ),
        "nics": sorted(nic.mac or "" for nic in instance.nics),
        "autostart": instance.autostart,
    }


def _of_xml(root: etree._Element, layout: InstanceLayout) -> dict[str, Any]:
    """The same of a domain's XML."""

    def mib(tag: str) -> int:
        return int(root.findtext(tag) or 0) // 1024

    vcpu = root.find("vcpu")
    assert vcpu is not None and vcpu.text
    disks = []
    for node in root.iterfind("devices/disk"):
        path = "".join(map(str, node.xpath("source/@file")))
        if path != layout.config_drive:
            target, kind = node.xpath("target/@dev"), node.xpath("driver/@type")
            disks.append((str(target[0]), path, str(kind[0])))
    return {
        "name": root.findtext("name"),
        "memory": [mib("currentMemory"), mib("memory")],
        "vcpus": [int(vcpu.get("current", vcpu.text)), int(vcpu.text)],
        "disks": sorted(disks),
        "nics": sorted(map(str, root.xpath("devices/interface/mac/@address"))),
    }


def _qemus() -> set[str]:
    """UUIDs of all guests that have a QEMU."""
    return set(qemus_by_uuid())


def qemus_by_uuid() -> dict[str, int]:
    """Process ids of all QEMUs of this laboratory, by the UUID of the guest."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
                # libvirt asks a QEMU without any guest for its capabilities
                if b"-uuid" in words and b"qemu-system" in words[0]:
                    found[words[words.index(b"-uuid") + 1].decode()] = int(entry)
    return found


def processes_of(session: int) -> list[int]:
    """Processes of a session that live (proc(5), fields 3 and 6 of stat)."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat") as stat:
                state, _parent, _group, other = stat.read().rpartition(")")[2].split()[:4]
                if int(other) == session and state != "Z":
                    found.append(int(entry))
    return found


def _taps() -> set[str]:
    """TAPs that libvirt makes for guests (it names them vnet0, vnet1, ...)."""
    return {name for name in os.listdir("/sys/class/net") if name.startswith("vnet")}
