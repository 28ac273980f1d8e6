"""What guests can run on here: virtualization, machine types, CPU models, firmware."""

import logging
import os

from kvmdriver import exception
from kvmdriver.hypervisor.capabilities import DomainCapabilities
from kvmdriver.hypervisor.hypervisor import Hypervisor
from kvmdriver.model import Boot

LOG = logging.getLogger(__name__)

_KVM = "/dev/kvm"


def choose_virt_type(hypervisor: Hypervisor, wanted: str, *, fallback: bool) -> str:
    """Choose kvm or qemu, as wanted and possible.

    :param fallback: run under emulation when KVM is wanted and cannot be had.
    :raises kvmdriver.exception.Unsupported: KVM cannot be had; the remedy says why.
    """
    if wanted in hypervisor.host_capabilities().virt_types:
        return wanted
    reason, remedy = _why_no_kvm()
    if wanted == "kvm" and fallback:
        LOG.warning("KVM cannot be used (%s): falling back to software emulation", reason)
        return "qemu"
    raise exception.Unsupported(
        f"virtualization type {wanted} cannot be used: {reason}",
        field="virt_type",
        value=wanted,
        remedy=remedy,
    )


def _why_no_kvm() -> tuple[str, str]:
    emulation = "or allow emulation: virt_type=qemu, or [kvm] fallback_to_qemu=true"
    try:
        with open("/proc/cpuinfo") as cpuinfo:
            flags = cpuinfo.read().split()
    except OSError:
        flags = []
    if not os.path.exists(_KVM):
        if "vmx" not in flags and "svm" not in flags:
            return (
                "the CPU shows no hardware virtualization (vmx or svm)",
                "switch it on in the firmware, or, if this is a virtual machine, "
                f"nested virtualization on its host; {emulation}",
            )
        module = "kvm_intel" if "vmx" in flags else "kvm_amd"
        return f"{_KVM} does not exist", f"load the module: modprobe {module}; {emulation}"
    return (
        f"libvirt cannot use {_KVM}",
        f"check its permissions (group kvm), restart libvirtd after loading KVM; {emulation}",
    )


def choose_machine(hypervisor: Hypervisor, wanted: str) -> str:
    """Return the versioned name of a machine type, so that it stays the same after upgrades of QEMU.

    :raises kvmdriver.exception.Unsupported: this QEMU does not have it.
    """
    machines = hypervisor.host_capabilities().machines
    if wanted not in machines:
        short = sorted(name for name, canonical in machines.items() if name != canonical)
        raise exception.Unsupported(
            f"this host has no machine type {wanted!r}",
            field="machine",
            value=wanted,
            remedy=f"use one of: {', '.join(short)}, or a version of them",
        )
    return machines[wanted]


def guest_capabilities(
    hypervisor: Hypervisor, virt_type: str, machine: str, *, fallback: bool
) -> DomainCapabilities:
    """Return what guests of a kind can have on a host.

    :raises kvmdriver.exception.Unsupported: the virtualization or machine type cannot be had.
    """
    return hypervisor.domain_capabilities(
        choose_virt_type(hypervisor, virt_type, fallback=fallback),
        choose_machine(hypervisor, machine),
    )


# <maxphysaddr> came with libvirt 8.7.0 (https://libvirt.org/news.html)
_ADDRESS_BITS = 8_007_000


def has_address_bits(hypervisor: Hypervisor) -> bool:
    """Return whether guests here can be told how large physical addresses are."""
    return hypervisor.version_numbers()[1] >= _ADDRESS_BITS


def check_firmware(boot: Boot, capabilities: DomainCapabilities) -> None:
    """Require that the firmware that is asked for is installed.

    :raises kvmdriver.exception.Unsupported: the firmware is not installed.
    """
    if boot.firmware == "uefi" and "efi" not in capabilities.firmwares:
        raise exception.Unsupported(
            "no UEFI firmware is installed",
            field="boot.firmware",
            value="uefi",
            remedy="install OVMF: apt-get install ovmf (dnf install edk2-ovmf)",
        )
    if boot.secure_boot and not capabilities.secure_boot:
        raise exception.Unsupported(
            f"secure boot is not possible on {capabilities.machine}",
            field="boot.secure_boot",
            value=True,
            remedy="use machine q35, and install OVMF with secure boot",
        )
