"""Attaching and detaching disks and interfaces, with the guest running or off."""

import os
from collections.abc import Callable
from typing import Literal

from lxml import etree

from kvmdriver import exception
from kvmdriver.definition.disks import disk_element
from kvmdriver.definition.nics import nic_element
from kvmdriver.guest.devices import ask_to_release, detach_device, ensure_scsi_controller
from kvmdriver.hypervisor import xml
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.record import Record, Task, TaskName
from kvmdriver.model import Disk, DiskView, Instance, Nic, NicView, Status
from kvmdriver.model.layout import mac_address
from kvmdriver.network.check import check as check_network
from kvmdriver.operations import resolve, spawn
from kvmdriver.operations.context import Context, require_status
from kvmdriver.progress import Progress, ignore

_CHANGEABLE: tuple[Status, ...] = ("running", "paused", "blocked", "stopped", "crashed")
_RESUME = {"suspended": "resume it first: its saved memory knows the devices that it has now"}

_HOT_PLUG_BUSES = ("virtio", "scsi", "usb")


def attach_disk(
    context: Context,
    name_or_uuid: str,
    disk: Disk,
    *,
    request_id: str | None = None,
    progress: Progress = ignore,
) -> DiskView:
    """Make a disk and plug it in, into the persistent definition as well.

    :raises kvmdriver.exception.KVMDriverError: it cannot be made or plugged in; no file is left.
    """
    with context.exclusively(name_or_uuid) as (domain, record):
        instance = record.instance
        done = record.done(request_id)
        if done is not None:
            return _disk_view(_attached_before(instance, disk, done.answer))
        status = require_status(domain, "attach", *_CHANGEABLE, remedies=_RESUME)
        live = status in ("running", "paused", "blocked")
        placed = _place(context, instance, disk, live)
        assert placed.file is not None or placed.device == "cdrom"  # noqa: S101
        made = (placed.file.path,) if placed.file and placed.device == "disk" else ()
        with context.task(
            domain,
            record,
            TaskName.ATTACH,
            request_id,
            wanted=instance.changed(disks=(*instance.disks, placed)),
            files=made,
            answer=placed.name,
        ):
            spawn.make_disk(context, placed, "disk", progress)
            ensure_scsi_controller(domain, placed, live)
            domain.attach(disk_element(placed), live=live, config=True)
        return _disk_view(placed)


def _attached_before(instance: Instance, disk: Disk, name: str | None) -> Disk:
    """Return the disk that the same request has made.

    :param name: its target; None where an older version carried the request out, then the latest
        disk that is like it.
    :raises kvmdriver.exception.DeviceNotFound: the disk has been detached since.
    """
    for known in reversed(instance.disks):
        if known.name == name:
            return known
        if name is None and (known.image, known.size_mib) == (disk.image, disk.size_mib):
            return known
    raise exception.DeviceNotFound(
        "the disk that this request attached has been detached since",
        field="disk",
        value=name,
        instance=instance.name,
        remedy="attach a disk by a request of its own",
    )


def _place(context: Context, instance: Instance, disk: Disk, live: bool) -> Disk:
    resolve.refuse_drivers_own(resolve.drivers_own_of_disk(disk, "disk"))
    system = context.systems.defaults(instance.os_variant)
    taken = {other.name for other in instance.disks if other.name}
    if disk.name in taken:
        raise exception.InvalidRequest(
            f"the instance already has a disk {disk.name}",
            field="disk.name",
            value=disk.name,
            remedy="choose another name, or leave it out",
        )
    layout = context.store.layout(instance.uuid)
    # the files of disks that were detached stay, and their names are not given again
    if disk.name is None:
        while True:
            placed = resolve.place_disk(context, instance, disk, system, taken, field="disk")
            if not os.path.lexists(layout.disk(placed.name or "")):
                break
            taken.add(placed.name or "")
    else:
        placed = resolve.place_disk(context, instance, disk, system, taken, field="disk")
        if os.path.lexists(layout.disk(disk.name)):
            raise exception.InvalidRequest(
                f"the file of an earlier disk {disk.name} is still there",
                field="disk.name",
                value=disk.name,
                remedy=f"choose another name, or remove {layout.disk(disk.name)}",
            )
    if live and placed.bus not in _HOT_PLUG_BUSES:
        raise exception.Unsupported(
            f"a disk on bus {placed.bus} cannot be plugged into a running instance",
            field="disk.bus",
            value=placed.bus,
            remedy="use bus virtio or scsi, or stop the instance first",
        )
    context.store.require(resolve.space_needed(context, placed))
    return placed


def detach_disk(
    context: Context,
    name_or_uuid: str,
    name: str,
    *,
    delete: bool = False,
    request_id: str | None = None,
) -> str | None:
    """Unplug a disk, from the persistent definition as well. A repeated request changes nothing.

    :param name: its target name, e.g. vdb.
    :param delete: remove its file too.
    :returns: the path of its file when that was kept.
    :raises kvmdriver.exception.OperationTimeout: the guest does not release it.
    """
    with context.exclusively(name_or_uuid) as (domain, record):
        instance = record.instance
        done = record.done(request_id)
        if done is not None:
            return done.answer
        disk = next((d for d in instance.disks if d.name == name), None)
        if disk is None:
            raise exception.DeviceNotFound(
                f"the instance has no disk {name}",
                field="disk",
                value=name,
                instance=domain.name,
                remedy="its disks: " + (", ".join(d.name or "" for d in instance.disks) or "none"),
            )
        require_status(domain, "detach", *_CHANGEABLE, remedies=_RESUME)
        path = disk.file.path if disk.file and disk.device == "disk" else None
        left = tuple(d for d in instance.disks if d.name != name)
        with context.task(
            domain,
            record,
            TaskName.DETACH,
            request_id,
            wanted=_without_disk(instance, left),
            removes=(path,) if path is not None and delete else (),
            answer=None if delete else path,
        ):
            detach_device(context.hypervisor, domain, _path_of(disk), f"disk {name}")
        return None if delete else path


def _without_disk(instance: Instance, disks: tuple[Disk, ...]) -> Instance:
    # an instance may lose its last disk, which a new one may not lack
    return instance.model_copy(update={"disks": disks})


def attach_nic(
    context: Context, name_or_uuid: str, nic: Nic, *, request_id: str | None = None
) -> NicView:
    """Plug in an interface, persistently. A second request for the same MAC address adds no interface."""
    with context.exclusively(name_or_uuid) as (domain, record):
        instance = record.instance
        done = record.done(request_id)
        system = context.systems.defaults(instance.os_variant)
        resolve.refuse_drivers_own(resolve.drivers_own_of_nic(nic, "nic"))
        check_network(nic, context.hypervisor, field="nic")
        mac = nic.mac or mac_address(instance.uuid, "nic", request_id or len(instance.nics))
        chosen = nic.changed(model=nic.model or system.nic_model, mac=mac)
        twin = next((n for n in instance.nics if n.mac == chosen.mac), None)
        if done is not None and twin is None:
            raise exception.DeviceNotFound(
                "the interface that this request attached has been detached since",
                field="nic.mac",
                value=chosen.mac,
                instance=domain.name,
                remedy="attach an interface by a request of its own",
            )
        if twin is not None:
            if twin == chosen:
                return _nic_view(twin)
            raise exception.InvalidRequest(
                "the instance already has an interface with this MAC address",
                field="nic.mac",
                value=chosen.mac,
                remedy="choose another one, or leave it out",
            )
        status = require_status(domain, "attach", *_CHANGEABLE, remedies=_RESUME)
        live = status in ("running", "paused", "blocked")
        with context.task(
            domain,
            record,
            TaskName.ATTACH,
            request_id,
            wanted=instance.changed(nics=(*instance.nics, chosen)),
            answer=chosen.mac,
        ):
            domain.attach(nic_element(chosen), live=live, config=True)
        return _nic_view(chosen)


def detach_nic(
    context: Context, name_or_uuid: str, mac: str, *, request_id: str | None = None
) -> None:
    """Unplug the interface with a MAC address, from the persistent definition as well.

    Nothing happens when the same request has done it before.
    """
    with context.exclusively(name_or_uuid) as (domain, record):
        instance = record.instance
        if record.done(request_id) is not None:
            return
        wanted = mac.lower()
        nic = next((n for n in instance.nics if n.mac == wanted), None)
        if nic is None:
            raise exception.DeviceNotFound(
                f"the instance has no interface {mac}",
                field="mac",
                value=mac,
                instance=domain.name,
                remedy="its interfaces: "
                + (", ".join(n.mac or "" for n in instance.nics) or "none"),
            )
        require_status(domain, "detach", *_CHANGEABLE, remedies=_RESUME)
        with context.task(
            domain,
            record,
            TaskName.DETACH,
            request_id,
            wanted=instance.model_copy(
                update={"nics": tuple(n for n in instance.nics if n is not nic)}
            ),
        ):
            detach_device(context.hypervisor, domain, _path_of(nic), f"interface {mac}")


# What a process has left that died, or that lost libvirt. libvirt changes the running guest first
# and writes the persistent definition last (qemuDomainAttachDeviceLiveAndConfig), and detach_device
# does so, too.

Remedy = Literal["done", "not done", "add to the definition", "take from the definition"]


def decide_attach(live: bool | None, config: bool) -> Remedy:
    """Decide what becomes of a device whose attaching was cut off.

    :param live: the running guest has it; None while the guest is off.
    :param config: the persistent definition has it.
    """
    if live is None:
        return "done" if config else "not done"
    if live:
        return "done" if config else "add to the definition"
    return "take from the definition" if config else "not done"


def decide_detach(live: bool | None, config: bool) -> Remedy:
    """Decide what becomes of a device whose detaching was cut off; the arguments are those of attach."""
    if live is None:
        return "not done" if config else "done"
    if live:
        return "not done" if config else "add to the definition"
    return "take from the definition" if config else "done"


def mend_attach(_context: Context, domain: Domain, record: Record, task: Task) -> bool:
    """Have a device in both definitions or in none; return whether it is plugged in."""
    return _agree(domain, _device(task.wanted, record.instance), decide_attach)


def mend_detach(context: Context, domain: Domain, record: Record, task: Task) -> bool:
    """Have a device in both definitions or in none; return whether it is unplugged.

    :raises kvmdriver.exception.InstanceUnresponsive: the guest's QEMU does not answer.
    """
    device = _device(record.instance, task.wanted)
    if domain.is_active() and _node_of(domain.xml(), device) is not None:
        # The guest may have been asked, and nobody can take that back: it may release the device at
        # any moment, so it is asked once more and gets its time.
        ask_to_release(context.hypervisor, domain, _path_of(device))
    return not _agree(domain, device, decide_detach)


def _device(more: Instance | None, less: Instance | None) -> Disk | Nic:
    """Return the device that one of two instances has, and the other has not."""
    assert more is not None and less is not None  # noqa: S101 the task has noted both
    names, macs = {disk.name for disk in less.disks}, {nic.mac for nic in less.nics}
    disk = next((disk for disk in more.disks if disk.name not in names), None)
    return disk or next(nic for nic in more.nics if nic.mac not in macs)


def _agree(
    domain: Domain, device: Disk | Nic, decide: Callable[[bool | None, bool], Remedy]
) -> bool:
    """Carry out a decision; return whether the instance has the device now."""
    live = _node_of(domain.xml(), device) is not None if domain.is_active() else None
    persistent = _node_of(domain.xml(inactive=True), device)
    remedy = decide(live, persistent is not None)
    if remedy == "add to the definition":
        added = disk_element(device) if isinstance(device, Disk) else nic_element(device)
        domain.attach(added, live=False, config=True)
        return True
    if remedy == "take from the definition":
        assert persistent is not None  # noqa: S101 the decision says so
        domain.detach(persistent, live=False, config=True)
        return False
    return persistent is not None


def _path_of(device: Disk | Nic) -> str:
    """Return where a device is in a domain's XML."""
    if isinstance(device, Nic):
        return f"devices/interface[mac[@address='{device.mac}']]"
    return f"devices/disk[target[@dev='{device.name}']]"


def _node_of(root: etree._Element, device: Disk | Nic) -> etree._Element | None:
    """Find a disk by its target and its file, an interface by its MAC address."""
    if isinstance(device, Nic):
        nodes = root.iterfind("devices/interface")
        return next((n for n in nodes if xml.attribute(n, "mac", "address") == device.mac), None)
    path = device.file.path if device.file else ""
    for node in root.iterfind("devices/disk"):
        if xml.attribute(node, "target", "dev") == device.name:
            return node if xml.attribute(node, "source", "file") == path else None
    return None


def _disk_view(disk: Disk) -> DiskView:
    return DiskView(
        name=disk.name or "",
        device=disk.device,
        bus=disk.bus or "",
        path=disk.file.path if disk.file else None,
        format=disk.file.format if disk.file else None,
        size_mib=disk.size_mib,
    )


def _nic_view(nic: Nic) -> NicView:
    return NicView(mac=nic.mac or "", type=nic.type, source=nic.source, model=nic.model, tap=None)
