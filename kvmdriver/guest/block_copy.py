"""Copying a disk while its guest writes to it."""

import contextlib
import time
from collections.abc import Iterator

from lxml import etree

from kvmdriver import exception
from kvmdriver.definition.disks import copy_target
from kvmdriver.guest.agent import agent_connected
from kvmdriver.hypervisor import xml
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.events import Expectation
from kvmdriver.hypervisor.hypervisor import Hypervisor
from kvmdriver.progress import Progress, ignore
from kvmdriver.storage.qemu_img import QemuImg

# How often the progress of a running copy is looked at, in seconds; its end comes as an event.
_LOOK_SECONDS = 0.5


def copy_running(
    hypervisor: Hypervisor,
    qemu_img: QemuImg,
    domain: Domain,
    disk: str,
    part: str,
    image_format: str,
    progress: Progress = ignore,
    *,
    must_freeze: bool = False,
) -> None:
    """Copy a disk of a running guest, backing files included, into the new file ``part``.

    :param must_freeze: fail where the guest agent cannot bring the file systems to rest.
    """
    size = domain.block_info(disk)[0]
    # Made by us and then filled by QEMU: so the file is ours again when libvirt gives it back.
    qemu_img.create(part, image_format, size_mib=-(-size // 1048576))
    target = copy_target(part, image_format)
    with (
        mirrored(hypervisor, domain, disk, target, "write snapshot", progress),
        _frozen(domain, must_freeze),
    ):
        domain.end_block_job(disk)


@contextlib.contextmanager
def mirrored(
    hypervisor: Hypervisor,
    domain: Domain,
    disk: str,
    target: etree._Element,
    stage: str,
    progress: Progress = ignore,
) -> Iterator[None]:
    """Mirror a disk of a running guest: in the body ``target`` is a copy that gets every write, too.

    The body ends the copy or pivots to it. When the body fails, or the copy before it, the guest
    goes on with the disk that it had.

    :raises kvmdriver.exception.StorageError: the copy failed.
    """
    with hypervisor.events.expect(domain.uuid, "block-job", detail=(disk,)) as ready:
        domain.copy_disk(disk, target)
        try:
            _wait_until_ready(domain, disk, ready, stage, progress)
            yield
        except BaseException:
            with contextlib.suppress(exception.KVMDriverError):
                domain.end_block_job(disk)
            raise


def _wait_until_ready(
    domain: Domain, disk: str, ready: Expectation, stage: str, progress: Progress
) -> None:
    while (event := ready.wait(_LOOK_SECONDS)) is None:
        job = domain.block_job(disk)
        if job is None:
            # the event may just be on its way
            time.sleep(_LOOK_SECONDS)
            event = ready.wait(_LOOK_SECONDS)
            break
        progress(stage, job[0], job[1] or None)
    outcome = event.detail[1] if event else "vanished"
    if outcome != "ready":
        raise exception.StorageError(
            f"the copy of disk {disk} {outcome}",
            instance=domain.name,
            remedy="check the space where the copy goes; the QEMU log says more",
        )


@contextlib.contextmanager
def _frozen(domain: Domain, must: bool) -> Iterator[None]:
    """Freeze the guest's file systems during the body, if its agent can."""
    frozen = False
    if must:
        domain.freeze()
        frozen = True
    elif agent_connected(domain.xml()):
        with contextlib.suppress(exception.KVMDriverError):
            domain.freeze()
            frozen = True
    try:
        yield
    finally:
        if frozen:
            domain.thaw()


def end_copies(domain: Domain) -> None:
    """End every block copy of a running guest, which keeps the disks that it has.

    A libvirtd that died while a copy began knows of the job and has no mirror in the definition. One
    that died while a copy ended has the mirror, and no job that could be ended.

    :raises kvmdriver.exception.KVMDriverError: a copy does not end.
    """
    active = domain.is_active()
    for node in domain.xml().iterfind("devices/disk"):
        disk = xml.attribute(node, "target", "dev")
        begun = active and node.find("source") is not None and domain.block_job(disk) is not None
        if begun:
            domain.end_block_job(disk)
