"""What a definition depends on besides the instance itself."""

import dataclasses

from kvmdriver.model.layout import InstanceLayout


@dataclasses.dataclass(frozen=True)
class Platform:
    """Facts about the host that shape a domain's XML; plain values, so that building is pure."""

    layout: InstanceLayout
    architecture: str = "x86_64"
    emulator: str | None = None
    console_listen: str = "127.0.0.1"
    serial_listen: str = "127.0.0.1"
    spice_listen: str = "127.0.0.1"
    spare_pcie_ports: int = 4
    """Free PCIe slots on q35 machines: how many disks and NICs can be plugged in later."""
