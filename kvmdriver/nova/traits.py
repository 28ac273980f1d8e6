"""Traits that tell the truth: what a guest on this host gets, by placement's names (os-traits)."""

import re

import os_traits

from kvmdriver.nova import nics
from kvmdriver.nova.node import Node

_VIDEO = ("bochs", "cirrus", "gop", "none", "qxl", "vga", "virtio", "vmvga", "xen")
_BUSES = ("fdc", "ide", "sata", "scsi", "usb", "virtio")
_PREFIX = "HW_CPU_X86_"

# Flags whose trait is not simply the flag in capitals.
_SPECIAL = {
    "pni": "SSE3",
    "sse4.1": "SSE41",
    "sse4.2": "SSE42",
    "svm": "SVM",
    "vmx": "VMX",
    "sha-ni": "SHA",
    "pclmuldq": "CLMUL",
    "spec-ctrl": "STIBP",
}


def cpu_traits(flags: set[str]) -> dict[str, bool]:
    """Each trait of an x86 CPU flag, and whether a guest gets the flag."""
    present = {trait for flag in flags for trait in _traits_of(flag)}
    known = os_traits.get_traits(prefix=_PREFIX)
    return {trait: trait in present for trait in known}


def _traits_of(flag: str) -> tuple[str, ...]:
    plain = re.sub(r"[^A-Z0-9]", "_", flag.upper())
    names = {plain, plain.replace("_", ""), _SPECIAL.get(flag, plain)}
    names |= {f"AMD_{plain.removeprefix('AMD_')}", f"INTEL_{plain}"} if "ssb" in flag else set()
    return tuple(_PREFIX + name for name in names)


def traits(node: Node, capabilities: dict[str, bool]) -> dict[str, bool]:
    """Every trait that this driver reports, and whether it holds."""
    guest = node.capabilities()
    found = {
        **capabilities,
        **cpu_traits(_guest_flags(node)),
        **nics.traits_of_models(set(nics.MODELS)),
        "HW_CPU_HYPERTHREADING": node.hypervisor.host_capabilities().cpu.threads > 1,
        "HW_ARCH_X86_64": node.hypervisor.host_capabilities().architecture == "x86_64",
        "COMPUTE_NET_VIRTIO_PACKED": node.hypervisor.version_numbers()[1] >= 6003000,
    }
    for bus in _BUSES:
        found[f"COMPUTE_STORAGE_BUS_{bus.upper()}"] = bus in guest.disk_buses
    for model in _VIDEO:
        found[f"COMPUTE_GRAPHICS_MODEL_{model.upper()}"] = model in guest.video_models
    valid, _ = os_traits.check_traits(found)
    return {trait: found[trait] for trait in valid}


def _guest_flags(node: Node) -> set[str]:
    """CPU flags that a guest gets with the configured mode, models and extra flags."""
    mode = node.conf.kvm_cpu.mode
    flags = node.hypervisor.guest_cpu_flags(
        node.capabilities(), mode, tuple(node.conf.kvm_cpu.models)
    )
    if mode == "none":
        return flags
    for flag in node.conf.libvirt.cpu_model_extra_flags:
        name = flag.lstrip("+-").lower()
        if flag.startswith("-"):
            flags.discard(name)
        else:
            flags.add(name)
    return flags
