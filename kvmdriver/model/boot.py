"""How an instance boots."""

from typing import Literal, Self

from pydantic import model_validator

from kvmdriver.model.base import Model, Text
from kvmdriver.model.image import Image


class Boot(Model):
    """Firmware, and a kernel for direct boot.

    Without a kernel the disks are tried first, then CD drives: a blank disk is passed over, so an
    installer on a CD starts the first time and the installed system every time after.
    """

    firmware: Literal["bios", "uefi"] | None = None
    secure_boot: bool = False
    kernel: Image | None = None
    initrd: Image | None = None
    cmdline: Text | None = None

    @model_validator(mode="after")
    def _kernel_parts(self) -> Self:
        if self.kernel is None and (self.initrd is not None or self.cmdline is not None):
            raise ValueError("initrd and cmdline need a kernel")
        if self.secure_boot and self.firmware != "uefi":
            raise ValueError("secure_boot needs firmware uefi")
        return self
