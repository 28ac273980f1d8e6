"""Traits that tell the truth: what a guest on this host gets, by placement's names (os-traits)."""

import os_traits

from kvmdriver.host import cpu as host_cpu
from kvmdriver.host import platform as host_platform
from kvmdriver.nova import cpu_traits, nics
from kvmdriver.nova.node import Node

_VIDEO = ("bochs", "cirrus", "gop", "none", "qxl", "vga", "virtio", "vmvga", "xen")
_BUSES = ("fdc", "ide", "sata", "scsi", "usb", "virtio")


def traits(node: Node, capabilities: dict[str, bool]) -> dict[str, bool]:
    """Every trait that this driver reports, and whether it holds."""
    guest = node.capabilities()
    found = {
        **capabilities,
        **cpu_traits.cpu_traits(
            cpu_traits.flags(host_cpu.chooser(node.conf, node.hypervisor, guest))
        ),
        **nics.traits_of_models(set(nics.MODELS)),
        "HW_CPU_HYPERTHREADING": node.hypervisor.host_capabilities().cpu.threads > 1,
        "HW_ARCH_X86_64": node.hypervisor.host_capabilities().architecture == "x86_64",
        "COMPUTE_ADDRESS_SPACE_PASSTHROUGH": host_platform.has_address_bits(node.hypervisor),
        "COMPUTE_ADDRESS_SPACE_EMULATED": host_platform.has_address_bits(node.hypervisor),
        "COMPUTE_NET_VIRTIO_PACKED": node.hypervisor.version_numbers()[1] >= 6003000,
    }
    for bus in _BUSES:
        found[f"COMPUTE_STORAGE_BUS_{bus.upper()}"] = bus in guest.disk_buses
    for model in _VIDEO:
        found[f"COMPUTE_GRAPHICS_MODEL_{model.upper()}"] = model in guest.video_models
    valid, _ = os_traits.check_traits(found)
    return {trait: found[trait] for trait in valid}
