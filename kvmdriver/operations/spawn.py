"""Creating an instance: resolve, define, make its files, start."""

import os

from kvmdriver import exception
from kvmdriver.definition.build import domain_xml
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.record import Record, Task, TaskName
from kvmdriver.model import Disk, Instance, InstanceView
from kvmdriver.operations import asked, view
from kvmdriver.operations.context import Context, require_idle
from kvmdriver.operations.resolve import Resolved, about_image, resolve, too_small
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
    nothing and gives the same answer; with other secrets it is another request.

    :raises kvmdriver.exception.InstanceExists: another instance has the name or the UUID, or the
        directory of that UUID belongs to another host or has kept disks.
    :raises kvmdriver.exception.KVMDriverError: the request cannot be carried out; nothing of it is
        left.
    """
    with context.locks.hold(request.uuid):
        clear_leftover(context, request.uuid)
        existing = context.hypervisor.find(request.uuid)
        if existing is not None:
            return _existing(context, existing, request)
        _check_name(context, request)
        context.store.require_free(request.uuid)
        resolved = resolve(context, request)
        task = Task.begin(TaskName.CREATE, request_id)
        record = Record(
            instance=resolved.instance,
            root=context.store.root,
            digest=asked.digest_of(request),
            task=task,
        )
        with context.under_way(request.uuid, task):
            context.claim(define(context, resolved, record), record)
            make_files(context, resolved.instance, progress)
            # libvirtd may have been started again while the files were made
            domain = context.hypervisor.domain(request.uuid)
            if request.autostart:
                domain.set_autostart(True)
            progress("start", 0, None, "steps")
            if start:
                domain.start()
            context.finish(domain, record, task, done=True)
    return view.show(context, request.uuid).changed(warnings=resolved.warnings)


def define(context: Context, resolved: Resolved, record: Record) -> Domain:
    """Define the domain of a resolved instance in libvirt."""
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
            found = about_image(
                f"{field}.image", disk.image, context.images.get, "cdrom", progress
            )
            if disk.file is None or found.path != disk.file.path:
                raise exception.ImageUnacceptable(
                    "the image has changed since it was looked at",
                    field=f"{field}.image.path",
                    remedy="try again when nobody writes to it any more",
                )
        return
    assert disk.file is not None  # noqa: S101 the disk has been placed
    image = None
    if disk.image is not None:
        image = about_image(f"{field}.image", disk.image, context.images.get, "disk", progress)
        if disk.size_mib is not None and disk.size_mib < image.size_mib:
            raise too_small(image.size_mib, disk.size_mib, field)
        if disk.format == "raw":
            # of a fetched image this was not known before; blocks have 512 bytes
            context.store.require(os.stat(image.path).st_blocks >> 11)
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


def clear_leftover(context: Context, uuid: str) -> None:
    """Remove what a dead process, or a failed operation, has left of an instance whose lock is held.

    :raises kvmdriver.exception.InstanceBusy: the instance is still being made, or removed.
    """
    known = context.known(uuid)
    if known is None or known[1].task is None:
        return
    if known[1].task.name in (TaskName.CREATE, TaskName.DELETE):
        require_idle(*known)
        context.mend(*known)


def _existing(context: Context, domain: Domain, request: Instance) -> InstanceView:
    record = context.record(domain.uuid)
    if record is None or not asked.is_digest_of(record.digest, request):
        raise exception.InstanceExists(
            f"the UUID {domain.uuid} belongs to the instance {domain.name!r}",
            field="uuid",
            value=domain.uuid,
            instance=domain.name,
        )
    return view.show(context, domain.uuid)
