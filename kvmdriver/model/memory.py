"""Guest memory."""

from typing import Literal, Self

from pydantic import Field, model_validator

from kvmdriver.model.base import Model

DIMM_MIB = 128  # QEMU plugs x86 memory in blocks of the kernel's section size
MIN_MEMORY_MIB = 32
MAX_MEMORY_MIB = 16 * 1024 * 1024


class Memory(Model):
    """Memory of the guest, in MiB, now and at most.

    With ``growth`` balloon the guest boots with ``maximum`` and its balloon driver gives back what
    is above ``current``: small and quick, and it needs the guest's cooperation. With ``growth``
    hotplug the guest boots with ``current``, and memory modules are plugged in up to ``maximum``
    (https://libvirt.org/formatdomain.html#memory-devices).
    """

    current_mib: int = Field(ge=MIN_MEMORY_MIB, le=MAX_MEMORY_MIB)
    # the default is not validated: 0 cannot be asked for
    maximum_mib: int = Field(
        0,
        ge=MIN_MEMORY_MIB,
        le=MAX_MEMORY_MIB,
        description="the same as current_mib when absent",
    )
    growth: Literal["balloon", "hotplug"] = "balloon"

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.maximum_mib == 0:
            object.__setattr__(self, "maximum_mib", self.current_mib)
        if self.maximum_mib < self.current_mib:
            raise ValueError(
                f"memory.current_mib ({self.current_mib}) is more than "
                f"memory.maximum_mib ({self.maximum_mib})"
            )
        if self.growth == "hotplug" and (self.maximum_mib - self.current_mib) % DIMM_MIB:
            raise ValueError(
                f"with growth hotplug, maximum_mib minus current_mib must be a multiple of {DIMM_MIB}"
            )
        return self
