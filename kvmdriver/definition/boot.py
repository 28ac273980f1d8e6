"""Machine, firmware and kernel (https://libvirt.org/formatdomain.html#operating-system-booting)."""

from lxml import etree

from kvmdriver.definition.platform import Platform
from kvmdriver.definition.tuning import tuning_of
from kvmdriver.definition.xml import add, element
from kvmdriver.model import Instance


def build_os(domain: etree._Element, instance: Instance, platform: Platform) -> None:
    boot = instance.boot
    os = add(domain, "os")
    if boot.firmware == "uefi":
        os.set("firmware", "efi")
    add(os, "type", "hvm", arch=platform.architecture, machine=instance.machine)
    if boot.firmware == "uefi":
        firmware = add(os, "firmware")
        # both are named: left open, libvirt takes the first firmware that it finds
        add(firmware, "feature", enabled=boot.secure_boot, name="secure-boot")
        add(firmware, "feature", enabled=boot.secure_boot, name="enrolled-keys")
        if boot.secure_boot:
            add(os, "loader", secure=True)
        add(os, "nvram", platform.layout.nvram)
    if boot.kernel is not None:
        add(os, "kernel", platform.layout.kernel)
        if boot.initrd is not None:
            add(os, "initrd", platform.layout.ramdisk)
        if boot.cmdline:
            add(os, "cmdline", boot.cmdline)
    if tuning_of(instance).boot_menu:
        add(os, "bootmenu", enable=True)


def build_features(domain: etree._Element, instance: Instance, _platform: Platform) -> None:
    features = add(domain, "features")
    add(features, "acpi")
    add(features, "apic")
    tuning, cpu = tuning_of(instance), instance.cpu
    if cpu.hyperv:
        hyperv = add(features, "hyperv")
        for name in ("relaxed", "vapic", "vpindex", "runtime", "synic", "reset", "frequencies"):
            add(hyperv, name, state="on")
        # 0x1fff: what Microsoft asks for (Hypervisor Top-Level Functional Specification)
        add(hyperv, "spinlocks", state="on", retries=8191)
        for name in ("tlbflush", "ipi"):
            add(hyperv, name, state="on")
        if any(f.name == "vmx" and f.policy == "require" for f in cpu.features):
            # the faster way for Hyper-V in a guest to run its own guests on Intel's CPUs
            add(hyperv, "evmcs", state="on")
        if cpu.hide_hypervisor:
            # NVIDIA's driver refuses to work where it reads a hypervisor's own name
            add(hyperv, "vendor_id", state="on", value="1234567890ab")
    kvm = element("kvm")
    if cpu.hide_hypervisor:
        add(kvm, "hidden", state="on")
    pins = tuning.cpu.pins
    # libvirt wants host-passthrough for it: the guest's idle loop then knows that it has its CPUs
    # for itself (Documentation/virt/kvm/x86/cpuid.rst, KVM_HINTS_REALTIME)
    alone = bool(pins) and all(len(cpus) == 1 for cpus in pins)
    if alone and cpu.mode == "host-passthrough" and instance.virt_type == "kvm":
        add(kvm, "hint-dedicated", state="on")
    if len(kvm):
        features.append(kvm)
    if cpu.pmu is not None:
        add(features, "pmu", state="on" if cpu.pmu else "off")
    if tuning.vmcoreinfo:
        add(features, "vmcoreinfo", state="on")
    if instance.boot.secure_boot:
        # the variables that guard secure boot are writable from system management mode only
        add(features, "smm", state="on")


def build_clock(domain: etree._Element, instance: Instance, _platform: Platform) -> None:
    clock = add(domain, "clock", offset=instance.clock or "utc")
    add(clock, "timer", name="rtc", tickpolicy="catchup")
    add(clock, "timer", name="pit", tickpolicy="delay")
    add(clock, "timer", name="hpet", present=False)
    if instance.cpu.hyperv:
        add(clock, "timer", name="hypervclock", present=True)


def build_reactions(domain: etree._Element, _instance: Instance, _platform: Platform) -> None:
    add(domain, "on_poweroff", "destroy")
    add(domain, "on_reboot", "restart")
    add(domain, "on_crash", "destroy")
