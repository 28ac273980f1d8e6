"""The instance: everything that a virtual machine of this driver can have."""

import uuid
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from kvmdriver.model.base import Model, Name, ShortText, Uuid
from kvmdriver.model.boot import Boot
from kvmdriver.model.config_drive import ConfigDrive
from kvmdriver.model.console import Consoles
from kvmdriver.model.cpu import Cpu, Vcpus
from kvmdriver.model.disk import Disk
from kvmdriver.model.memory import Memory
from kvmdriver.model.nic import Nic
from kvmdriver.model.tuning import Tuning

VideoModel = Literal["virtio", "vga", "qxl", "cirrus", "bochs", "none"]
MachineType = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.+-]{0,40}$")]


# The secret fields, by the field that holds them.
SECRETS: dict[str, set[str]] = {
    "consoles": {"vnc_password"},
    "config_drive": {"user_data", "admin_password"},
}


class Watchdog(Model):
    """An i6300esb watchdog, and what happens when the guest stops feeding it."""

    action: Literal["reset", "shutdown", "poweroff", "pause", "none"] = "reset"


class Instance(Model):
    """A virtual machine as it is asked for and, once the driver has chosen the rest, as it is.

    Fields that are None are the driver's to choose, from the operating system (libosinfo), the
    host and the configuration; the chosen values are kept with the instance.
    """

    uuid: Uuid = Field(default_factory=lambda: str(uuid.uuid4()))
    name: Name
    memory: Memory | None = None
    vcpus: Vcpus = Vcpus()
    cpu: Cpu = Cpu()
    virt_type: Literal["kvm", "qemu"] | None = None
    machine: MachineType | None = None
    boot: Boot = Boot()
    disks: tuple[Disk, ...] = Field((), max_length=26)
    nics: tuple[Nic, ...] = Field((), max_length=32)
    consoles: Consoles = Consoles()
    config_drive: ConfigDrive | None = None
    config_drive_bus: Literal["virtio", "scsi", "sata", "ide", "usb"] | None = None
    os_variant: ShortText | None = None
    video: VideoModel | None = None
    clock: Literal["utc", "localtime"] | None = None
    rng: bool | None = None
    guest_agent: bool = True
    watchdog: Watchdog | None = None
    autostart: bool = False
    tuning: Tuning | None = Field(None, description="decisions of Nova, never of a request")

    def record_json(self) -> str:
        """Return the instance as it is kept in the domain's metadata: JSON without anything secret."""
        return self.model_dump_json(exclude_none=True, exclude=SECRETS)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        topology = self.cpu.topology
        if topology is not None:
            product = topology.sockets * topology.cores * topology.threads
            if product != self.vcpus.maximum:
                raise ValueError(
                    f"cpu.topology makes {product} vCPUs, vcpus.maximum is {self.vcpus.maximum}"
                )
        for what, values in (
            ("disks: the name", [disk.name for disk in self.disks if disk.name]),
            ("nics: the mac", [nic.mac for nic in self.nics if nic.mac]),
        ):
            twice = {value for value in values if values.count(value) > 1}
            if twice:
                raise ValueError(f"{what} {sorted(twice)[0]} is used twice")
        return self
