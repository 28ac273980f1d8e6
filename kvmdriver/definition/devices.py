"""Controllers and the small devices (https://libvirt.org/formatdomain.html#devices)."""

from lxml import etree

from kvmdriver.definition.disks import all_disks, scsi_controller
from kvmdriver.definition.platform import Platform
from kvmdriver.definition.tuning import tuning_of
from kvmdriver.definition.xml import add
from kvmdriver.model import Instance

BALLOON_STATS_SECONDS = 10


def build_controllers(devices: etree._Element, instance: Instance, platform: Platform) -> None:
    tuning = tuning_of(instance)
    graphics = instance.consoles.graphics != "none" and tuning.pointer != "none"
    usb_disks = any(disk.bus == "usb" for disk in instance.disks)
    model = tuning.usb_model or ("qemu-xhci" if graphics or usb_disks else "none")
    add(devices, "controller", type="usb", index=0, model=model)
    if "q35" in (instance.machine or ""):
        # Each PCIe device sits in a port of its own, and QEMU cannot add ports later.
        disks = all_disks(instance, platform)
        used = sum(
            (
                sum(disk.bus == "virtio" for disk in disks),
                len({scsi_controller(disk) for disk in disks} - {None}),
                len(instance.nics),
                model != "none",
                instance.guest_agent,
                bool(instance.rng),
                instance.watchdog is not None,
                1,  # balloon
            )
        )
        add(devices, "controller", type="pci", index=0, model="pcie-root")
        ports = max(used + platform.spare_pcie_ports, tuning.pcie_ports or 0)
        for index in range(1, ports + 1):
            add(devices, "controller", type="pci", index=index, model="pcie-root-port")


def build_channel(devices: etree._Element, instance: Instance, _platform: Platform) -> None:
    if instance.guest_agent:
        channel = add(devices, "channel", type="unix")
        add(channel, "target", type="virtio", name="org.qemu.guest_agent.0")


def build_watchdog(devices: etree._Element, instance: Instance, _platform: Platform) -> None:
    if instance.watchdog is not None:
        add(devices, "watchdog", model="i6300esb", action=instance.watchdog.action)


def build_rng(devices: etree._Element, instance: Instance, _platform: Platform) -> None:
    if instance.rng:
        tuning = tuning_of(instance)
        rng = add(devices, "rng", model="virtio")
        if tuning.rng_limit is not None:
            add(rng, "rate", bytes=tuning.rng_limit.bytes, period=tuning.rng_limit.period)
        add(rng, "backend", tuning.rng_device or "/dev/urandom", model="random")


def build_balloon(devices: etree._Element, instance: Instance, _platform: Platform) -> None:
    balloon = add(devices, "memballoon", model="virtio")
    period = tuning_of(instance).memory_stats_seconds
    period = BALLOON_STATS_SECONDS if period is None else period
    if period:
        add(balloon, "stats", period=period)
