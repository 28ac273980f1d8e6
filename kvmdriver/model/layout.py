"""Names that follow from an instance's UUID: its files and its hardware addresses.

Everything that an operation creates carries the UUID, so that it can always be found and removed.
The file names are those of Nova's in-tree libvirt driver.
"""

import dataclasses
import hashlib
import os.path

CACHE = "_base"


@dataclasses.dataclass(frozen=True)
class InstanceLayout:
    """Where the files of one instance lie.

    Who makes each file, and who removes it (terminate removes all of them but kept disks):

    ============== ====================== ===============================
    file           made by                removed by
    ============== ====================== ===============================
    disk, disk.vdX create, attach, clone  detach, terminate
    disk.config    create, clone          terminate
    kernel ramdisk create, clone          terminate
    nvram.fd       libvirt at first start terminate (through libvirt)
    console.log    virtlogd or QEMU       terminate
    instance.json  every change           terminate
    ============== ====================== ===============================
    """

    root: str
    uuid: str
    suffix: str = ""
    """Added to the names of kernel and ramdisk: ``.rescue`` while an instance is rescued."""

    @property
    def directory(self) -> str:
        return os.path.join(self.root, self.uuid)

    def disk(self, name: str, *, first: bool = False) -> str:
        """Path of a disk by its target name; the first disk is simply ``disk``."""
        return os.path.join(self.directory, "disk" if first else f"disk.{name}")

    def file(self, name: str) -> str:
        """Path of a file of the instance by its name."""
        return os.path.join(self.directory, name)

    @property
    def config_drive(self) -> str:
        return os.path.join(self.directory, "disk.config")

    @property
    def kernel(self) -> str:
        return os.path.join(self.directory, "kernel" + self.suffix)

    @property
    def ramdisk(self) -> str:
        return os.path.join(self.directory, "ramdisk" + self.suffix)

    @property
    def nvram(self) -> str:
        return os.path.join(self.directory, "nvram.fd")

    @property
    def console_log(self) -> str:
        return os.path.join(self.directory, "console.log")


def mac_address(*parts: object) -> str:
    """Return a MAC address in QEMU's range (52:54:00) that the same parts always give again.

    Redelivery of a request must not give an instance another address.
    """
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])
