"""Operating systems as libosinfo knows them: what hardware suits them, what they need.

libosinfo's bindings belong to the distribution (python3-gi, gir1.2-libosinfo-1.0): they are loaded
when first needed, and an instance without an os_variant needs none of this.
"""

import dataclasses
import difflib
import threading
from typing import Any

from kvmdriver import exception
from kvmdriver.model import OsView

_MIB = 1024 * 1024

_INSTALL = (
    "install libosinfo's bindings: apt-get install python3-gi gir1.2-libosinfo-1.0 osinfo-db "
    "(dnf install python3-gobject-base libosinfo osinfo-db), "
    "and use a Python environment that sees the system's packages"
)


@dataclasses.dataclass(frozen=True)
class OsDefaults:
    """Hardware for an operating system; memory and disk in MiB, None where libosinfo is silent."""

    short_id: str | None = None
    disk_bus: str = "virtio"
    cdrom_bus: str | None = None
    nic_model: str = "virtio"
    video: str = "vga"
    clock: str = "utc"
    rng: bool = True
    windows: bool = False
    minimum_memory_mib: int | None = None
    recommended_memory_mib: int | None = None
    minimum_disk_mib: int | None = None
    recommended_disk_mib: int | None = None
    minimum_vcpus: int | None = None


UNKNOWN_OS = OsDefaults(cdrom_bus="scsi")


class OsDatabase:
    """libosinfo's database, loaded once (about 0.4 s) and then only read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_name: dict[str, Any] | None = None

    def _entries(self) -> dict[str, Any]:
        with self._lock:
            if self._by_name is None:
                self._by_name = _load()
            return self._by_name

    def defaults(self, name: str | None) -> OsDefaults:
        """Hardware for the operating system of that short id or libosinfo URL.

        :raises kvmdriver.exception.InvalidRequest: unknown; the remedy names the nearest ones.
        """
        if name is None:
            return UNKNOWN_OS
        entry = self._entries().get(name)
        if entry is None:
            raise exception.InvalidRequest(
                f"the operating system {name!r} is not known",
                field="os_variant",
                value=name,
                remedy=self._suggest(name),
            )
        return _defaults(entry)

    def search(self, text: str = "") -> list[OsView]:
        """Operating systems whose id or name contains ``text``, by id."""
        wanted = text.lower()
        views = {}
        for entry in self._entries().values():
            short_id, name = entry.get_short_id(), entry.get_name() or ""
            if wanted in short_id.lower() or wanted in name.lower():
                views[short_id] = OsView(
                    short_id=short_id,
                    name=name,
                    version=entry.get_version(),
                    family=entry.get_family(),
                    released=entry.get_release_date_string(),
                    end_of_life=entry.get_eol_date_string(),
                )
        return [views[key] for key in sorted(views)]

    def _suggest(self, name: str) -> str:
        known = [key for key in self._entries() if not key.startswith("http")]
        near = difflib.get_close_matches(name.lower(), known, n=4, cutoff=0.6)
        stem = name.lower().rstrip("0123456789.")
        if stem:
            near += [key for key in sorted(known, reverse=True) if key.startswith(stem)][:4]
        names = ", ".join(dict.fromkeys(near))
        listing = "kvmdriver os list shows all of them"
        return f"did you mean {names}? {listing}" if names else listing


def _load() -> dict[str, Any]:
    try:
        import gi

        gi.require_version("Libosinfo", "1.0")
        from gi.repository import Libosinfo
    except (ImportError, ValueError) as error:
        raise exception.Unsupported(
            f"libosinfo is not available: {error}", field="os_variant", remedy=_INSTALL
        ) from None
    loader = Libosinfo.Loader()
    loader.process_default_path()
    systems = loader.get_db().get_os_list()
    entries = {}
    for position in range(systems.get_length()):
        system = systems.get_nth(position)
        entries[system.get_id()] = system
        entries[system.get_short_id()] = system
    return entries


def _defaults(system: Any) -> OsDefaults:
    found = system.get_all_devices(None)
    devices = {found.get_nth(i).get_name() for i in range(found.get_length())}

    def first(*candidates: tuple[str, str], default: str) -> str:
        return next((ours for theirs, ours in candidates if theirs in devices), default)

    windows = system.get_family() in ("winnt", "win9x", "win16")
    minimum = _resources(system.get_minimum_resources())
    recommended = _resources(system.get_recommended_resources())
    scsi = bool(devices & {"virtio-scsi", "virtio1.0-scsi"})
    return OsDefaults(
        short_id=system.get_short_id(),
        disk_bus=first(("virtio1.0-block", "virtio"), ("virtio-block", "virtio"), default="sata"),
        cdrom_bus="scsi" if scsi else None,
        nic_model=first(
            ("virtio1.0-net", "virtio"),
            ("virtio-net", "virtio"),
            ("e1000e", "e1000e"),
            ("e1000", "e1000"),
            ("rtl8139", "rtl8139"),
            default="e1000",
        ),
        video=first(("virtio1.0-gpu", "virtio"), default="vga"),
        # Windows keeps the hardware clock in local time
        clock="localtime" if windows else "utc",
        windows=windows,
        rng=bool(devices & {"virtio-rng", "virtio1.0-rng"}),
        minimum_memory_mib=minimum.get("memory"),
        recommended_memory_mib=recommended.get("memory") or minimum.get("memory"),
        minimum_disk_mib=minimum.get("disk"),
        recommended_disk_mib=recommended.get("disk") or minimum.get("disk"),
        minimum_vcpus=minimum.get("vcpus"),
    )


def _resources(found: Any) -> dict[str, int]:
    """Resources for x86_64, or else for all architectures; libosinfo counts in bytes, -1 is unset."""
    by_architecture = {}
    for position in range(found.get_length()):
        entry = found.get_nth(position)
        by_architecture[entry.get_architecture()] = entry
    entry = by_architecture.get("x86_64") or by_architecture.get("all")
    if entry is None:
        return {}
    values = {
        "memory": entry.get_ram() // _MIB,
        "disk": entry.get_storage() // _MIB,
        "vcpus": entry.get_n_cpus(),
    }
    return {key: value for key, value in values.items() if value > 0}
