"""Creating an instance: resolve, define, make its files, start."""

import hashlib

from kvmdriver import exception
from kvmdriver.definition.build import domain_xml
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.record import Owner, Record, Task
from kvmdriver.model import Disk, Instance, InstanceView
from kvmdriver.operations import destroy, view
from kvmdriver.operations.context import Context, require_idle
from kvmdriver.operations.resolve import Resolved, about_image, resolve, too_small
from kvmdriver.operations.undo import undo_on_failure
from kvmdriver.progress import Progress, ignore
from kvmdriver.storage import backend, config_drive
from kvmdriver.storage.copy import copy_file


def spawn(
    context: Context,
    request: Instance,
    *,
    request_id: str | None = None,
    start: bool = True,
    progress: Progress = ignore,
) -> InstanceView:
    """Make an instance and start it.

    The domain is defined first, marked as being built: from then on a crash leaves something that
    ``reconcile`` finds and removes. The same request again, while the instance exists, changes
    nothing and gives the same answer.

    :raises kvmdriver.exception.InstanceExists: another instance has the name or the UUID, or the
        directory of that UUID belongs to another host or has kept disks.
    :raises kvmdriver.exception.KVMDriverError: the request cannot be carried out; nothing of it is
        left.
    """
    digest = hashlib.sha256(request.record_json().encode()).hexdigest()
    with context.locks.hold(request.uuid):
        existing = context.hypervisor.find(request.uuid)
        if existing is not None and not _clear_leftover(context, existing):
            return _existing(context, existing, digest)
        _check_name(context, request)
        context.store.require_free(request.uuid)
        resolved = resolve(context, request)
        record = Record(
            instance=resolved.instance,
            root=context.store.root,
            digest=digest,
            task=Task(name="create", owner=Owner.current(), request_id=request_id),
        )
        with undo_on_failure() as undo:
            domain = define(context, resolved, record)
            undo.add(destroy.discard, domain)
            context.claim(domain, record)
            undo.add(destroy.discard_files, context, domain)
            make_files(context, resolved.instance, progress)
            if request.autostart:
                domain.set_autostart(True)
            progress("start", 0, None, "steps")
            if start:
                domain.start()
            done = record.changed(task=None).with_request(request_id)
            context.save(domain, done)
    return view.show(context, request.uuid).changed(warnings=resolved.warnings)


def define(context: Context, resolved: Resolved, record: Record) -> Domain:
    """Make the domain of a resolved instance known to libvirt."""
    element = domain_xml(resolved.instance, resolved.platform, record.to_element())
    return context.hypervisor.define(element)


def make_files(context: Context, instance: Instance, progress: Progress) -> None:
    """Make every file of an instance: disks, kernel, config drive."""
    layout = context.store.layout(instance.uuid)
    for field, image, path in (
        ("boot.kernel", instance.boot.kernel, layout.kernel),
        ("boot.initrd", instance.boot.initrd, layout.ramdisk),
    ):
        if image is not None:
            cached = about_image(field, image, context.images.get, "file", progress)
            # QEMU's user becomes the owner of what a domain names, so each gets its own copy
            copy_file(cached.path, path, stage="copy kernel", progress=progress)
    for position, disk in enumerate(instance.disks):
        make_disk(context, disk, f"disks.{position}", progress)
    if instance.config_drive is not None:
        config_drive.write(instance, layout.config_drive)


def make_disk(context: Context, disk: Disk, field: str, progress: Progress) -> None:
    """Make the file of one disk from its image, or blank."""
    if disk.device == "cdrom":
        if disk.image is not None:
            about_image(f"{field}.image", disk.image, context.images.get, "cdrom", progress)
        return
    assert disk.file is not None  # noqa: S101 the disk has been placed
    image = None
    if disk.image is not None:
        image = about_image(f"{field}.image", disk.image, context.images.get, "disk", progress)
        if disk.size_mib is not None and disk.size_mib < image.size_mib:
            raise too_small(image.size_mib, disk.size_mib, field)
    maker = backend.load(disk.format or context.conf.kvm_storage.disk_format, context.qemu_img)
    maker.create(disk.file.path, image=image, size_mib=disk.size_mib, progress=progress)


def _check_name(context: Context, request: Instance) -> None:
    other = context.hypervisor.find(request.name)
    if other is not None:
        raise exception.InstanceExists(
            f"there is already an instance named {request.name!r}",
            field="name",
            value=request.name,
            instance=other.uuid,
        )


def _clear_leftover(context: Context, domain: Domain) -> bool:
    """Remove what a dead process left of the same instance; False when it is not a leftover."""
    record = context.record(domain.uuid)
    if record is None or record.task is None or record.task.name not in ("create", "delete"):
        return False
    require_idle(domain, record)
    destroy.remove(context, domain, record)
    return True


def _existing(context: Context, domain: Domain, digest: str) -> InstanceView:
    record = context.record(domain.uuid)
    if record is None or record.digest != digest:
        raise exception.InstanceExists(
            f"the UUID {domain.uuid} belongs to the instance {domain.name!r}",
            field="uuid",
            value=domain.uuid,
            instance=domain.name,
        )
    return view.show(context, domain.uuid)
