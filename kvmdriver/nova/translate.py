"""From nova's instance, flavor and image to the model: all but disks, NICs and placement."""

import re
from collections.abc import Sequence
from typing import Any

from nova import exception as nova_exception
from nova import version
from nova.objects.flavor import Flavor
from nova.objects.image_meta import ImageMeta
from nova.objects.instance import Instance as NovaInstance
from nova.virt import hardware

from kvmdriver import exception
from kvmdriver.host import cpu as host_cpu
from kvmdriver.host import platform as host_platform
from kvmdriver.hypervisor.capabilities import DomainCapabilities
from kvmdriver.model import (
    Boot,
    Consoles,
    Cpu,
    CpuTopology,
    Disk,
    FileImage,
    Instance,
    Memory,
    Nic,
    PhysicalAddressBits,
    Rng,
    SystemInfo,
    Vcpus,
    Watchdog,
)
from kvmdriver.model.layout import InstanceLayout
from kvmdriver.nova import cpu_traits, placement
from kvmdriver.nova.flavor import specs_of
from kvmdriver.nova.node import Node

SCSI_MODELS = {"virtio-scsi": "virtio-scsi", "lsilogic": "lsilogic", "lsisas1078": "lsisas1078"}
VIDEO_MODELS = ("virtio", "vga", "qxl", "cirrus", "bochs", "none")


def translate(
    node: Node,
    instance: NovaInstance,
    image_meta: ImageMeta,
    *,
    disks: Sequence[Disk],
    nics: Sequence[Nic],
    layout: InstanceLayout,
    tcp_ports: Sequence[int] = (),
    direct_boot: bool = False,
    has_ramdisk: bool = False,
) -> Instance:
    """Translate a whole instance into the model.

    :param direct_boot: boot the kernel in the instance's directory.
    :raises kvmdriver.exception.KVMDriverError, nova.exception.NovaException: flavor or image ask
        for what this host cannot give; the message names the property.
    """
    flavor = instance.flavor
    machine = node.machine(image_meta, instance)
    capabilities = node.capabilities(machine)
    boot = _boot(node, flavor, image_meta, layout, machine, direct_boot, has_ramdisk)
    host_platform.check_firmware(boot, capabilities)
    tuning = placement.tuning(node, instance, image_meta).changed(
        system=_system(node, instance),
        vmcoreinfo=True,
        rng_limit=_rng_limit(flavor),
        rng_device=node.conf.libvirt.rng_dev_path,
        video_ram_kib=_video_ram_kib(flavor, image_meta),
        memory_stats_seconds=node.conf.libvirt.mem_stats_period_seconds,
        pcie_ports=node.conf.libvirt.num_pcie_ports or None,
        scsi_model=_scsi_model(image_meta),
        pointer=_pointer(node, image_meta),
        boot_menu=_flag(flavor, image_meta, "hw:boot_menu", "hw_boot_menu"),
        iothreads=1,
    )
    return Instance(
        uuid=instance.uuid,
        name=instance.name,
        memory=Memory(current_mib=flavor.memory_mb),
        vcpus=Vcpus(current=flavor.vcpus),
        cpu=_cpu(node, instance, image_meta, capabilities),
        virt_type=node.conf.kvm.virt_type,
        machine=machine,
        boot=boot,
        disks=tuple(disks),
        nics=tuple(nics),
        consoles=_consoles(node, image_meta, tcp_ports),
        video=_video(node, image_meta, capabilities),
        clock="localtime" if image_meta.properties.get("os_type") == "windows" else "utc",
        rng=_rng(flavor, image_meta),
        guest_agent=wants_guest_agent(image_meta),
        watchdog=_watchdog(flavor, image_meta),
        tuning=tuning,
    )


def wants_guest_agent(image_meta: ImageMeta) -> bool:
    return bool(image_meta.properties.get("hw_qemu_guest_agent", False))


def _flag(flavor: Flavor, image_meta: ImageMeta, spec: str, name: str) -> bool:
    value = specs_of(flavor).get(spec)
    if value is not None:
        return value.strip().lower() in ("1", "true", "yes", "on", "t", "y")
    return bool(image_meta.properties.get(name, False))


def _hide_hypervisor(flavor: Flavor, image_meta: ImageMeta) -> bool:
    return _flag(flavor, image_meta, "hw:hide_hypervisor_id", "img_hide_hypervisor_id") or _flag(
        flavor, image_meta, "hide_hypervisor_id", "img_hide_hypervisor_id"
    )


def _boot(
    node: Node,
    flavor: Flavor,
    image_meta: ImageMeta,
    layout: InstanceLayout,
    machine: str,
    direct_boot: bool,
    has_ramdisk: bool,
) -> Boot:
    properties = image_meta.properties
    secure = hardware.get_secure_boot_constraint(flavor, image_meta)
    firmware = properties.get("hw_firmware_type")
    uefi = firmware == "uefi" or secure == "required"
    if secure == "required" and "q35" not in machine:
        raise exception.Unsupported(
            f"secure boot needs machine type q35, this instance has {machine}",
            field="os:secure_boot",
            value=secure,
            remedy="set the image property hw_machine_type=q35",
        )
    wants_secure = secure == "required" or (
        secure == "optional" and uefi and node.capabilities(machine).secure_boot
    )
    cmdline = None
    if direct_boot:
        cmdline = properties.get("os_command_line") or (
            f"root=/dev/{'hda' if properties.get('hw_disk_bus') == 'ide' else 'vda'} "
            "console=tty0 console=ttyS0 console=hvc0"
        )
    return Boot(
        firmware="uefi" if uefi else "bios",
        secure_boot=bool(wants_secure and uefi),
        kernel=FileImage(path=layout.kernel) if direct_boot else None,
        initrd=FileImage(path=layout.ramdisk) if direct_boot and has_ramdisk else None,
        cmdline=cmdline,
    )


def check_cpu(node: Node, instance: NovaInstance, machine: str) -> None:
    """Require that an instance can have its CPU on this host.

    :raises kvmdriver.exception.Unsupported: it could not; what is missing is named.
    """
    _cpu(node, instance, instance.image_meta, node.capabilities(machine))


def _cpu(
    node: Node, instance: NovaInstance, image_meta: ImageMeta, capabilities: DomainCapabilities
) -> Cpu:
    best = hardware.get_best_cpu_topology(instance.flavor, image_meta)
    topology = CpuTopology(sockets=best.sockets, cores=best.cores, threads=best.threads)
    mode = node.conf.kvm_cpu.mode
    cpu = Cpu(
        mode=mode,
        models=tuple(node.conf.kvm_cpu.models) if mode == "custom" else (),
        topology=topology,
        hyperv=image_meta.properties.get("os_type") == "windows"
        or image_meta.properties.get("img_hv_type") == "hyperv",
        hide_hypervisor=_hide_hypervisor(instance.flavor, image_meta),
        pmu=hardware.get_pmu_constraint(instance.flavor, image_meta),
        address_bits=_address_bits(node, instance.flavor, image_meta),
    )
    chooser = host_cpu.chooser(node.conf, node.hypervisor, capabilities)
    return chooser.choose(cpu_traits.ask_for(cpu, chooser, instance.flavor, image_meta))


def _address_bits(node: Node, flavor: Flavor, image_meta: ImageMeta) -> PhysicalAddressBits | None:
    mode = hardware.get_maxphysaddr_mode(flavor, image_meta)
    if mode is None:
        return None
    bits = specs_of(flavor).get("hw:maxphysaddr_bits", "")
    if not host_platform.has_address_bits(node.hypervisor):
        raise exception.Unsupported(
            "this host's libvirt cannot set the size of physical addresses",
            field="hw:maxphysaddr_mode",
            value=mode,
            remedy="upgrade libvirt to 8.7.0 or later",
        )
    return PhysicalAddressBits.parse(
        {"mode": mode, "bits": int(bits) if bits.isdecimal() else bits or None},
        prefix="hw:maxphysaddr_",
    )


def _system(node: Node, instance: NovaInstance) -> SystemInfo:
    serial: str | None = None
    match node.conf.libvirt.sysinfo_serial:
        case "unique":
            serial = instance.uuid
        case "hardware" | "auto" | "os":
            serial = _host_serial(node)
    return SystemInfo(
        manufacturer=version.vendor_string(),
        product=version.product_string(),
        version=version.version_string_with_package(),
        serial=serial,
        uuid=instance.uuid,
    )


def _host_serial(node: Node) -> str | None:
    kind = node.conf.libvirt.sysinfo_serial
    if kind in ("auto", "os"):
        try:
            with open("/etc/machine-id") as file:
                text = file.read().strip()
            if re.fullmatch("[0-9a-f]{32}", text):
                return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
        except OSError:
            pass
        if kind == "os":
            raise nova_exception.InternalError("[libvirt] sysinfo_serial=os needs /etc/machine-id")
    return node.hypervisor.host_capabilities().uuid


def _consoles(node: Node, image_meta: ImageMeta, tcp_ports: Sequence[int]) -> Consoles:
    conf = node.conf
    none = image_meta.properties.get("hw_video_model") == "none"
    vnc, spice = conf.vnc.enabled and not none, conf.spice.enabled and not none
    return Consoles(
        serial="pty",
        graphics="vnc" if vnc else "spice" if spice else "none",
        also_spice=vnc and spice,
        tcp_ports=tuple(tcp_ports),
    )


def _video(node: Node, image_meta: ImageMeta, capabilities: DomainCapabilities) -> Any:
    wanted = image_meta.properties.get("hw_video_model")
    if wanted is None:
        conf = node.conf
        wanted = "qxl" if conf.spice.enabled and not conf.vnc.enabled else "virtio"
        return wanted if wanted in capabilities.video_models else "vga"
    if wanted not in VIDEO_MODELS or (
        wanted != "none" and wanted not in capabilities.video_models
    ):
        raise nova_exception.InvalidVideoMode(model=wanted)
    return wanted


def _video_ram_kib(flavor: Flavor, image_meta: ImageMeta) -> int | None:
    wanted = image_meta.properties.get("hw_video_ram", 0)
    limit = int(specs_of(flavor).get("hw_video:ram_max_mb", 0))
    if wanted > limit:
        raise nova_exception.RequestedVRamTooHigh(req_vram=wanted, max_vram=limit)
    return wanted * 1024 or None


def _rng(flavor: Flavor, image_meta: ImageMeta) -> bool:
    """Return whether the guest has a random number generator: unless hw_rng:allowed forbids it."""
    allowed = specs_of(flavor).get("hw_rng:allowed", "true").lower()
    return allowed not in ("false", "0", "no", "off")


def _rng_limit(flavor: Flavor) -> Rng | None:
    specs = specs_of(flavor)
    if "hw_rng:rate_bytes" not in specs:
        return None
    return Rng(
        bytes=int(specs["hw_rng:rate_bytes"]), period=int(specs.get("hw_rng:rate_period", 1000))
    )


def _watchdog(flavor: Flavor, image_meta: ImageMeta) -> Watchdog | None:
    action = image_meta.properties.get("hw_watchdog_action") or specs_of(flavor).get(
        "hw:watchdog_action", "disabled"
    )
    if action in (None, "disabled"):
        return None
    if action not in ("reset", "shutdown", "poweroff", "pause", "none"):
        raise nova_exception.InvalidWatchdogAction(action=action)
    return Watchdog(action=action)


def _scsi_model(image_meta: ImageMeta) -> str | None:
    wanted = image_meta.properties.get("hw_scsi_model")
    if wanted is not None and wanted not in SCSI_MODELS:
        raise nova_exception.UnsupportedHardware(model=wanted, virt="qemu")
    return SCSI_MODELS[wanted] if wanted else None


def _pointer(node: Node, image_meta: ImageMeta) -> Any:
    wanted = image_meta.properties.get("hw_pointer_model")
    if image_meta.properties.get("hw_input_bus") == "virtio":
        raise exception.Unsupported(
            "input devices are on the USB bus",
            field="hw_input_bus",
            value="virtio",
            remedy="set hw_input_bus=usb",
        )
    if wanted == "usbtablet" or (wanted is None and node.conf.pointer_model == "usbtablet"):
        return "tablet"
    return "none"
