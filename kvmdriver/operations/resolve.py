"""From what was asked for to what will be made: everything chosen and checked, nothing changed."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from kvmdriver import exception
from kvmdriver.definition.disks import cdrom_bus, free_name
from kvmdriver.definition.platform import Platform
from kvmdriver.host import cpu as host_cpu
from kvmdriver.host import platform as host_platform
from kvmdriver.host.memory import total_and_available_mib
from kvmdriver.host.osinfo import OsDefaults
from kvmdriver.hypervisor.capabilities import DomainCapabilities
from kvmdriver.model import Boot, Cpu, Disk, FileImage, Image, Instance, Memory, Nic
from kvmdriver.model.layout import mac_address
from kvmdriver.network.check import check as check_network
from kvmdriver.operations.context import Context
from kvmdriver.storage import backend
from kvmdriver.storage.image_cache import Role

T = TypeVar("T")

DEFAULT_MEMORY_MIB = 1024


@dataclasses.dataclass(frozen=True)
class Resolved:
    """An instance with everything chosen, and what its definition depends on."""

    instance: Instance
    platform: Platform
    warnings: tuple[str, ...]


def resolve(context: Context, request: Instance) -> Resolved:
    """Choose what the request leaves open, and check everything.

    :raises kvmdriver.exception.KVMDriverError: the request cannot be carried out here; the error
        names the field.
    """
    conf, hypervisor = context.conf, context.hypervisor
    _check_request(request)
    system = context.systems.defaults(request.os_variant)
    virt_type = host_platform.choose_virt_type(
        hypervisor,
        request.virt_type or conf.kvm.virt_type,
        fallback=conf.kvm.fallback_to_qemu,
    )
    machine = host_platform.choose_machine(hypervisor, request.machine or conf.kvm.machine_type)
    capabilities = hypervisor.domain_capabilities(virt_type, machine)
    host_platform.check_firmware(request.boot, capabilities)
    _check_vcpus(request, capabilities)
    boot = request.boot.changed(firmware=request.boot.firmware or "bios")
    _check_boot_images(context, boot)
    video = request.video or system.video
    if video not in capabilities.video_models:
        if request.video is not None:
            raise exception.Unsupported(
                f"this QEMU has no video model {video}",
                field="video",
                value=video,
                remedy=f"possible here: {', '.join(sorted(capabilities.video_models))}",
            )
        video = "vga"
    sized = request.changed(
        virt_type=virt_type,
        machine=machine,
        boot=boot,
        cpu=_choose_cpu(context, _for_system(request.cpu, system, virt_type), capabilities),
        memory=_choose_memory(context, request, system),
        os_variant=system.short_id or request.os_variant,
        video=video,
        clock=request.clock or system.clock,
        rng=system.rng if request.rng is None else request.rng,
    )
    placed = sized.changed(
        nics=tuple(
            _choose_nic(context, sized, nic, i, system) for i, nic in enumerate(sized.nics)
        ),
        disks=_choose_disks(context, sized, system),
        config_drive_bus=_config_drive_bus(sized, system),
    )
    _check_config_drive_place(placed)
    return Resolved(
        instance=placed,
        platform=context.platform(placed.uuid, capabilities.emulator),
        warnings=_warnings(placed, system),
    )


def _check_request(request: Instance) -> None:
    """Check what holds for a request, and need not hold for an instance after years of changes."""
    if not request.disks and request.boot.kernel is None:
        raise exception.InvalidRequest(
            "an instance needs a disk or a kernel to boot from",
            field="disks",
            remedy="give it a disk with an image, an installer CD and a blank disk, or a kernel",
        )
    refuse_drivers_own(_drivers_own(request))
    addresses = request.config_drive.addresses if request.config_drive else ()
    for position, address in enumerate(addresses):
        if address.nic >= len(request.nics):
            raise exception.InvalidRequest(
                f"there is no nic {address.nic}, the instance has {len(request.nics)}",
                field=f"config_drive.addresses.{position}.nic",
                value=address.nic,
                remedy="count from 0",
            )


def refuse_drivers_own(fields: Iterable[tuple[str, object]]) -> None:
    """Refuse a request that sets fields which only the driver sets.

    :raises kvmdriver.exception.InvalidRequest: one of the fields is set.
    """
    for field, value in fields:
        if value:
            raise exception.InvalidRequest(
                f"{field.rpartition('.')[2]} is the driver's own",
                field=field,
                remedy="leave it out",
            )


def _drivers_own(request: Instance) -> Iterator[tuple[str, object]]:
    yield "tuning", request.tuning
    yield "consoles.tcp_ports", request.consoles.tcp_ports
    for position, disk in enumerate(request.disks):
        yield from drivers_own_of_disk(disk, f"disks.{position}")
    for position, nic in enumerate(request.nics):
        yield from drivers_own_of_nic(nic, f"nics.{position}")


def drivers_own_of_nic(nic: Nic, field: str) -> Iterator[tuple[str, object]]:
    """Return the fields of a NIC that a request may not set, and their values."""
    yield f"{field}.plug", nic.plug


def drivers_own_of_disk(disk: Disk, field: str) -> Iterator[tuple[str, object]]:
    """Return the fields of a disk that a request may not set, and their values."""
    for name in ("file", "volume", "boot_order", "iothread"):
        yield f"{field}.{name}", getattr(disk, name)
    yield f"{field}.device", disk.device if disk.device in ("floppy", "lun") else None
    yield f"{field}.bus", disk.bus if disk.bus == "fdc" else None


def _check_vcpus(request: Instance, capabilities: DomainCapabilities) -> None:
    if request.vcpus.maximum > capabilities.max_vcpus:
        raise exception.InsufficientResources(
            f"machine {capabilities.machine} has at most {capabilities.max_vcpus} vCPUs",
            field="vcpus.maximum",
            value=request.vcpus.maximum,
            remedy=f"ask for at most {capabilities.max_vcpus}",
        )


def _check_boot_images(context: Context, boot: Boot) -> None:
    for field, image in (("boot.kernel", boot.kernel), ("boot.initrd", boot.initrd)):
        if image is not None:
            about_image(field, image, context.images.check, "file")


def about_image(field: str, image: Image, function: Callable[..., T], *args: Any) -> T:
    """Call ``function`` with ``image``; name ``field`` of the request in its errors."""
    try:
        return function(image, *args)
    except exception.KVMDriverError as error:
        if error.field is not None and error.field.startswith("kvm_storage."):
            raise  # about the host, not the request
        if error.field not in ("format", "checksum"):
            error.field = "path" if isinstance(image, FileImage) else "url"
        error.field = f"{field}.{error.field}"
        raise


def _for_system(cpu: Cpu, system: OsDefaults, virt_type: str) -> Cpu:
    """Add the Hyper-V features to the CPU of a Windows guest, which runs much better on KVM with them."""
    if cpu.hyperv is None and system.windows and virt_type == "kvm":
        return cpu.changed(hyperv=True)
    return cpu


def _choose_cpu(context: Context, cpu: Cpu, capabilities: DomainCapabilities) -> Cpu:
    chooser = host_cpu.chooser(context.conf, context.hypervisor, capabilities)
    if cpu.mode is not None:
        if cpu.mode == "none" and cpu.features:
            raise exception.InvalidRequest(
                "mode none cannot have features", field="cpu.features", remedy="use another mode"
            )
        return chooser.choose(cpu)
    mode = context.conf.kvm_cpu.mode
    if not host_cpu.is_possible(mode, capabilities):
        # The default need not be possible with every virtualization type; what is asked for must.
        mode = "maximum" if "maximum" in capabilities.cpu_modes else "none"
    if mode == "none" and cpu.features:
        mode = "maximum"
    models = tuple(context.conf.kvm_cpu.models) if mode == "custom" else ()
    return chooser.choose(cpu.changed(mode=mode, models=models))


def _choose_memory(context: Context, request: Instance, system: OsDefaults) -> Memory:
    memory = request.memory
    if memory is None:
        memory = Memory(current_mib=system.recommended_memory_mib or DEFAULT_MEMORY_MIB)
    check_memory(context, memory, "memory.maximum_mib")
    return memory


def check_memory(context: Context, memory: Memory, field: str) -> None:
    """Require that the host could give the memory at all.

    :raises kvmdriver.exception.InsufficientResources: the host could never give it.
    """
    usable = total_and_available_mib()[0] - context.conf.kvm.reserved_host_memory_mib
    if memory.maximum_mib > usable:
        raise exception.InsufficientResources(
            f"the host has {usable} MiB of memory for instances",
            field=field,
            value=memory.maximum_mib,
            remedy=f"ask for at most {usable} MiB",
        )


def _choose_nic(
    context: Context, instance: Instance, nic: Nic, position: int, system: OsDefaults
) -> Nic:
    check_network(nic, context.hypervisor, field=f"nics.{position}")
    return nic.changed(
        model=nic.model or system.nic_model,
        mac=nic.mac or mac_address(instance.uuid, "nic", position),
    )


def _choose_disks(context: Context, instance: Instance, system: OsDefaults) -> tuple[Disk, ...]:
    taken = {disk.name for disk in instance.disks if disk.name}
    chosen: list[Disk] = []
    needed_mib = 0
    first = next((disk for disk in instance.disks if disk.device == "disk"), None)
    for position, disk in enumerate(instance.disks):
        placed = place_disk(
            context,
            instance,
            disk,
            system,
            taken,
            field=f"disks.{position}",
            first=disk is first,
        )
        taken.add(placed.name or "")
        needed_mib += space_needed(context, placed)
        chosen.append(placed)
    context.store.require(needed_mib)
    return tuple(chosen)


def place_disk(
    context: Context,
    instance: Instance,
    disk: Disk,
    system: OsDefaults,
    taken: set[str],
    *,
    field: str,
    first: bool = False,
) -> Disk:
    """Return a disk with bus, name, format and file chosen, its image inspected.

    :raises kvmdriver.exception.KVMDriverError: the image is refused, or the bus is full.
    """
    cdrom = disk.device == "cdrom"
    bus = disk.bus
    if bus is None:
        bus = (system.cdrom_bus or cdrom_bus(instance)) if cdrom else system.disk_bus  # type: ignore[assignment]
    if bus == "ide" and "q35" in (instance.machine or ""):
        raise exception.Unsupported(
            "machine type q35 has no IDE bus",
            field=f"{field}.bus",
            value="ide",
            remedy="use bus sata, or machine pc",
        )
    if cdrom and bus == "virtio":
        raise exception.Unsupported(
            "a CD drive cannot be on bus virtio",
            field=f"{field}.bus",
            value="virtio",
            remedy="use bus scsi, sata or ide",
        )
    try:
        name = disk.name or free_name(bus or "virtio", taken)
    except ValueError as error:
        raise exception.InvalidRequest(
            str(error), field=f"{field}.bus", value=bus, remedy="use another bus for some disks"
        ) from None
    image_format = disk.format or context.conf.kvm_storage.disk_format
    layout = context.store.layout(instance.uuid)
    path: str | None = layout.disk(name, first=first)
    if cdrom:
        image_format = "raw"
        path = None
    if disk.image is not None:
        path = _check_image(context, disk, path, field)
    maker = backend.load(image_format, context.qemu_img)
    file = {"path": path, "format": maker.format} if path else None
    return disk.changed(bus=bus, name=name, format=None if cdrom else image_format, file=file)


def _check_image(context: Context, disk: Disk, path: str | None, field: str) -> str | None:
    image = disk.image
    assert image is not None  # noqa: S101 the caller has looked
    role = "cdrom" if disk.device == "cdrom" else "disk"
    info = about_image(f"{field}.image", image, context.images.check, role)
    if info is not None and disk.size_mib is not None and info.size_mib > disk.size_mib:
        raise too_small(info.size_mib, disk.size_mib, field)
    if disk.device == "cdrom":
        return context.images.locate(image, "cdrom")
    return path


def too_small(image_mib: int, size_mib: int, field: str) -> exception.InvalidRequest:
    return exception.InvalidRequest(
        f"the image needs {image_mib} MiB, a disk cannot be smaller than its image",
        field=f"{field}.size_mib",
        value=size_mib,
        remedy=f"ask for at least {image_mib} MiB, or leave the size out",
    )


def space_needed(context: Context, disk: Disk) -> int:
    """Return the MiB that making a disk will write, as far as that is known beforehand."""
    needed = 0
    if isinstance(disk.image, FileImage):
        role: Role = "cdrom" if disk.device == "cdrom" else "disk"
        size = context.images.file_size(disk.image) >> 20
        if not os.path.exists(context.images.locate(disk.image, role)):
            needed += size
        if disk.format == "raw":
            needed += size
    return needed


def _config_drive_bus(instance: Instance, system: OsDefaults) -> str | None:
    if instance.config_drive is None:
        return None
    return instance.config_drive_bus or system.cdrom_bus or cdrom_bus(instance)


def _check_config_drive_place(instance: Instance) -> None:
    if instance.config_drive is not None:
        try:
            free_name(
                instance.config_drive_bus or "sata",
                {disk.name or "" for disk in instance.disks},
                last=True,
            )
        except ValueError as error:
            raise exception.InvalidRequest(
                f"no place for the config drive: {error}",
                field="config_drive",
                remedy="set config_drive_bus to another bus",
            ) from None


def _warnings(instance: Instance, system: OsDefaults) -> tuple[str, ...]:
    found = []
    name, memory = instance.os_variant, instance.memory
    minimum = system.minimum_memory_mib
    if memory is not None and minimum and memory.current_mib < minimum:
        found.append(
            f"{name} wants at least {minimum} MiB of memory, it gets {memory.current_mib}"
        )
    if system.minimum_vcpus and instance.vcpus.current < system.minimum_vcpus:
        found.append(f"{name} wants at least {system.minimum_vcpus} vCPUs")
    blank = next((d for d in instance.disks if d.device == "disk" and d.image is None), None)
    size, minimum = blank.size_mib if blank else None, system.minimum_disk_mib
    if size and minimum and size < minimum:
        found.append(f"{name} wants a disk of at least {minimum} MiB")
    return tuple(found)
