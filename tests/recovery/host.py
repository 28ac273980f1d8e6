"""The host that tests of killed agents share: a guest that must not notice, files, cleaning up."""

import os
import shutil
import tempfile
from typing import Any

import libvirt

from tests import namespace
from tests.functional.base import guest_file, run
from tests.recovery import judge

UP = "GUEST: up"
BOOT_SECONDS = 90

_REMOVE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
)


class Canary:
    """A guest beside all others that keeps its process, and boots once."""

    uuid = "5b1d0f0a-5c1e-4d0e-9a53-0d6f3c1b2aca"

    def __init__(self, instances: str):
        self._instances = instances
        self._pid: int | None = None

    def request(self) -> dict[str, Any]:
        return {
            "uuid": self.uuid,
            "name": "canary",
            "memory": {"current_mib": 192},
            "disks": [{"image": {"type": "file", "path": guest_file("guest.qcow2")}}],
        }

    def wait_for_boot(self) -> None:
        wait_for_boot(self._instances, self.uuid)
        self._pid = judge.qemus_by_uuid()[self.uuid]

    def broken(self) -> list[str]:
        """What has become of it that must not."""
        wrong = []
        pid = judge.qemus_by_uuid().get(self.uuid)
        if pid is None or pid != self._pid:
            wrong.append(f"the canary's QEMU was process {self._pid} and is {pid}")
        boots = console_of(self._instances, self.uuid).count(UP)
        if boots != 1:
            wrong.append(f"the canary has booted {boots} times")
        return wrong


def console_of(instances: str, uuid: str) -> str:
    """All that has come on a serial console."""
    path = os.path.join(instances, uuid, "console.log")
    if not os.path.exists(path):
        return ""
    with open(path, errors="replace") as console:
        return console.read()


def wait_for_boot(instances: str, uuid: str) -> None:
    namespace.wait_for(lambda: UP in console_of(instances, uuid), BOOT_SECONDS)


def wipe(state: str, spared: str | None = None, cached: set[str] | None = None) -> None:
    """Remove every guest but one, with all files, whatever has become of them.

    :param cached: names in the image cache that stay; all of them when None.
    """
    connection = libvirt.open("qemu:///system")
    try:
        for domain in connection.listAllDomains():
            if domain.UUIDString() != spared:
                if domain.isActive():
                    domain.destroy()
                if domain.isPersistent():
                    domain.undefineFlags(_REMOVE)
    finally:
        connection.close()
    for name, kept in (
        ("instances", {spared, "_base"}),
        ("instances/_base", cached),
        ("disks", set[str]()),
        ("snapshots", set[str]()),
    ):
        directory = os.path.join(state, name)
        os.makedirs(directory, mode=0o755, exist_ok=True)
        for entry in os.scandir(directory):
            if (kept is None and not entry.name.startswith(".")) or entry.name in (kept or ()):
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)


def make_image(path: str) -> None:
    """A small disk image whose content can be told from every other's."""
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as raw:
        raw.write(bytes(range(256)) * 4096)
        raw.truncate(8 << 20)
        raw.flush()
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw.name, path)
