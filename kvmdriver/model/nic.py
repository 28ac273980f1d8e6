"""Network interfaces of an instance."""

from typing import Literal, Self

from pydantic import Field, model_validator

from kvmdriver.model.base import Mac, Model, Name

NicModel = Literal["virtio", "e1000", "e1000e", "rtl8139", "igb", "vmxnet3", "ne2k_pci", "pcnet"]


class Nic(Model):
    """One network interface.

    ``type`` network: a libvirt network named by ``source``. bridge: a Linux bridge of the host.
    user: QEMU's built-in NAT, which needs nothing on the host and lets nobody in.
    """

    type: Literal["network", "bridge", "user"] = "network"
    source: Name | None = None
    model: NicModel | None = None
    mac: Mac | None = None
    mtu: int | None = Field(None, ge=68, le=65521)

    @model_validator(mode="after")
    def _source_fits_type(self) -> Self:
        if self.type == "user" and self.source is not None:
            raise ValueError("a nic of type user has no source")
        if self.type != "user" and self.source is None:
            raise ValueError(f"a nic of type {self.type} needs a source")
        if self.type == "bridge" and len(self.source or "") > 15:
            raise ValueError("a bridge's name has at most 15 characters")
        return self
