"""Network interfaces of an instance."""

from typing import Literal, Self

from pydantic import Field, model_validator

from kvmdriver.model.base import Mac, Model, Name, Path, ShortText, Text

NicModel = Literal["virtio", "e1000", "e1000e", "rtl8139", "igb", "vmxnet3", "ne2k_pci", "pcnet"]


class NicQos(Model):
    """Limits of one direction in KiB/s, bursts in KiB (https://libvirt.org/formatnetwork.html#quality-of-service)."""

    average: int | None = None
    peak: int | None = None
    burst: int | None = None


class Plug(Model):
    """How the host's end of an interface is made, as the networking layer has decided.

    ethernet: a TAP device ``target``, which is there already when ``managed`` is False. bridge: on
    ``bridge``, with a virtual port where ``port_profile`` is given. vhostuser: the socket ``path``.
    direct: a macvtap device on ``device``. hostdev: the PCI function ``device``. vdpa: ``path``.
    Never taken from a request.
    """

    type: Literal["ethernet", "bridge", "vhostuser", "direct", "hostdev", "hostdev-pci", "vdpa"]
    target: ShortText | None = None
    bridge: ShortText | None = None
    path: Path | None = None
    device: ShortText | None = None
    mode: ShortText | None = None
    vlan: int | None = Field(None, ge=0, le=4095)
    managed: bool | None = None
    port_profile: ShortText | None = None
    port_parameters: tuple[tuple[Text, Text], ...] = Field((), max_length=64)
    driver: Literal["vhost", "qemu"] | None = None
    queues: int | None = Field(None, ge=1)
    rx_queue_size: int | None = None
    tx_queue_size: int | None = None
    packed: bool = False
    inbound: NicQos | None = None
    outbound: NicQos | None = None
    trusted: bool | None = None


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
    plug: Plug | None = None

    @model_validator(mode="after")
    def _source_fits_type(self) -> Self:
        if self.plug is not None:
            return self
        if self.type == "user" and self.source is not None:
            raise ValueError("a nic of type user has no source")
        if self.type != "user" and self.source is None:
            raise ValueError(f"a nic of type {self.type} needs a source")
        if self.type == "bridge" and len(self.source or "") > 15:
            raise ValueError("a bridge's name has at most 15 characters")
        return self
