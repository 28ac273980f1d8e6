"""The destination's check before anything moves: every reason against an instance, at once."""

from collections.abc import Callable, Iterator
from typing import Any

from kvmdriver import exception
from kvmdriver.host import platform as host_platform
from kvmdriver.host.memory import total_and_available_mib
from kvmdriver.hypervisor.record import Record, TaskName
from kvmdriver.model import Instance, MigrationAnswer, MigrationOffer, Problem
from kvmdriver.network.check import check as check_network
from kvmdriver.operations import cpu
from kvmdriver.operations.context import Context
from kvmdriver.operations.migrate import encryption
from kvmdriver.operations.migrate.offer import problem_of
from kvmdriver.operations.migrate.placement import images_here, sees_marker
from kvmdriver.operations.migrate.terms import violations
from kvmdriver.operations.resolve import (
    check_memory,
    drivers_own_of_disk,
    drivers_own_of_nic,
    refuse_drivers_own,
)
from kvmdriver.storage import description as descriptions

_MIB = 1024 * 1024
# The task of an instance that waits for its guest, and of one whose guest is on its way elsewhere.
INCOMING = TaskName.INCOMING
OUTGOING = TaskName.OUTGOING
_USERFAULTFD = "/proc/sys/vm/unprivileged_userfaultfd"


def check_offer(context: Context, offer: MigrationOffer) -> MigrationAnswer:
    """Return what this host says to the offer of another host. Changes nothing."""
    answer = check_destination(context, offer)
    problems = [*violations(offer), *answer.problems, *_tls(context, offer, answer.shared)]
    return answer.changed(problems=tuple(problems))


def check_destination(context: Context, offer: MigrationOffer) -> MigrationAnswer:
    """Return whether this host could take an instance, wherever it comes from. Changes nothing."""
    conf = context.conf.kvm_migration
    shared = sees_marker(context, offer)
    problems: list[Problem] = []
    for check in (_identity, _origin, _platform, _cpu, _memory, _networks):
        problems += _collect(check, context, offer)
    if not shared:
        problems += _collect(_space, context, offer)
    post_copy, warnings = True, []
    if offer.kind == "live" and not _has_userfaultfd():
        post_copy = False
        warnings.append(
            f"{context.host} cannot receive post-copy: set vm.unprivileged_userfaultfd = 1 there"
        )
    return MigrationAnswer(
        problems=tuple(problems),
        warnings=tuple(warnings),
        shared=shared,
        post_copy=post_copy,
        address=conf.inbound_address,
        uri=uri_of(context),
    )


def uri_of(context: Context) -> str:
    """Return the URI by which the libvirtd of another host reaches that of this one."""
    conf = context.conf.kvm_migration
    address = conf.inbound_address
    host = f"[{address}]" if ":" in address else address
    return f"qemu+{conf.transport}://{host}/system"


def is_leftover(record: Record | None, offer: MigrationOffer) -> bool:
    """Return whether an earlier migration of the same instance has left a domain here."""
    task = record.task if record else None
    if task is None or task.name != INCOMING or task.migration is None:
        return False
    return task.migration.peer == offer.source


def _collect(
    check: Callable[[Context, MigrationOffer], Iterator[Problem]], *arguments: Any
) -> list[Problem]:
    """Return all problems that a check finds; an error that ends the check is one of them."""
    found = []
    try:
        for problem in check(*arguments):
            found.append(problem)
    except exception.KVMDriverError as error:
        found.append(problem_of(error))
    return found


def _attempt(function: Callable[..., Any], *arguments: Any, **named: Any) -> Iterator[Problem]:
    try:
        function(*arguments, **named)
    except exception.KVMDriverError as error:
        yield problem_of(error)


def _identity(context: Context, offer: MigrationOffer) -> Iterator[Problem]:
    for value, field in ((offer.instance.uuid, "uuid"), (offer.instance.name, "name")):
        other = context.hypervisor.find(value)
        if other is None:
            continue
        if other.uuid == offer.instance.uuid and is_leftover(context.record(other.uuid), offer):
            continue
        yield Problem(
            code="instance_exists",
            field=field,
            message=f"{context.host} has an instance {other.name!r} with UUID {other.uuid}",
            remedy="remove or rename the one that is there",
        )
        return
    if sees_marker(context, offer):
        yield from _shared(context, offer)
    elif context.hypervisor.find(offer.instance.uuid) is None:
        yield from _attempt(context.store.require_free, offer.instance.uuid)


def _shared(context: Context, offer: MigrationOffer) -> Iterator[Problem]:
    """Refuse to take a directory over from a host that does not own it."""
    directory = context.store.layout(offer.instance.uuid).directory
    mark = descriptions.read(directory)
    if mark is None or mark.building or mark.host != offer.source:
        whose = mark.host if mark is not None else "nobody"
        yield Problem(
            code="storage_error",
            field="source",
            message=f"the directory {directory} belongs to {whose}, not to {offer.source}",
            remedy="move the instance from the host that has it",
        )


def _origin(context: Context, offer: MigrationOffer) -> Iterator[Problem]:
    instance = offer.instance
    own: list[tuple[str, object]] = [
        ("tuning", instance.tuning),
        ("consoles.tcp_ports", instance.consoles.tcp_ports),
    ]
    for position, disk in enumerate(instance.disks):
        field = f"disks.{position}"
        # where the file of the disk lies here is decided elsewhere
        own += [row for row in drivers_own_of_disk(disk, field) if row[0] != f"{field}.file"]
    for position, nic in enumerate(instance.nics):
        own += list(drivers_own_of_nic(nic, f"nics.{position}"))
    yield from _attempt(refuse_drivers_own, own)
    here = context.hypervisor.version_numbers()[0]
    if offer.kind == "live" and here < offer.qemu_version:
        yield Problem(
            code="unsupported",
            field="qemu_version",
            message=f"QEMU on {context.host} is {_dotted(here)}, older than {_dotted(offer.qemu_version)}"
            f" on {offer.source}, and need not understand what that sends",
            remedy="upgrade QEMU there first, or move the instance while it is stopped",
        )


def _platform(context: Context, offer: MigrationOffer) -> Iterator[Problem]:
    instance = offer.instance
    yield from _attempt(
        host_platform.choose_virt_type,
        context.hypervisor,
        instance.virt_type or "kvm",
        fallback=False,
    )
    machine = offer.machine or instance.machine
    if machine is not None:
        yield from _attempt(host_platform.choose_machine, context.hypervisor, machine)
        capabilities = context.hypervisor.domain_capabilities(instance.virt_type or "kvm", machine)
        yield from _attempt(host_platform.check_firmware, instance.boot, capabilities)
        if instance.video and instance.video not in capabilities.video_models:
            yield Problem(
                code="unsupported",
                field="video",
                message=f"QEMU on {context.host} has no video model {instance.video}",
            )
    missing = sorted(set(offer.cpus) - context.hypervisor.online_cpus())
    if missing:
        yield Problem(
            code="insufficient_resources",
            field="cpus",
            message=f"the guest is pinned to CPUs {missing}, which {context.host} has not online",
            remedy="pin it to others first",
        )


def _cpu(context: Context, offer: MigrationOffer) -> Iterator[Problem]:
    if offer.cpu is None:
        return
    found = cpu.compare(
        context, offer.cpu, virt_type=offer.instance.virt_type, machine=offer.machine
    )
    if found.result == "incompatible":
        yield Problem(
            code="cpu_incompatible",
            field="cpu.features",
            message=f"{context.host} cannot give the guest's CPU: {', '.join(found.missing)}",
            remedy="use a baseline CPU for all hosts: kvmdriver cpu baseline HOST...",
        )


def _memory(context: Context, offer: MigrationOffer) -> Iterator[Problem]:
    memory = offer.instance.memory
    if memory is None:
        return
    yield from _attempt(check_memory, context, memory, "memory.maximum_mib")
    available = total_and_available_mib()[1] - context.conf.kvm.reserved_host_memory_mib
    if offer.active and memory.current_mib > available:
        yield Problem(
            code="insufficient_resources",
            field="memory.current_mib",
            message=f"{context.host} has {max(available, 0)} MiB of memory free,"
            f" the guest has {memory.current_mib} MiB",
            remedy="free memory there, or lower [kvm] reserved_host_memory_mib",
        )


def _networks(context: Context, offer: MigrationOffer) -> Iterator[Problem]:
    for position, nic in enumerate(offer.instance.nics):
        yield from _attempt(check_network, nic, context.hypervisor, field=f"nics.{position}")


def _tls(context: Context, offer: MigrationOffer, shared: bool) -> Iterator[Problem]:
    conf = context.conf.kvm_migration
    if offer.kind == "cold" and shared:
        return  # nothing is sent
    if offer.native_tls != conf.native_tls:
        yield Problem(
            code="configuration_error",
            field="kvm_migration.native_tls",
            message=f"native_tls is {offer.native_tls} on {offer.source} and {conf.native_tls}"
            f" on {context.host}",
            remedy="set it to the same value on all hosts",
        )
    else:
        yield from encryption.problems(conf, "server", offer.kind, shared=shared)


def _space(context: Context, offer: MigrationOffer) -> Iterator[Problem]:
    needed = 0
    for disk in offer.disks:
        full = offer.full_copy and disk.backing is not None
        needed += disk.allocated + (disk.backing_size if full else 0)
    here = images_here(context, offer)
    needed += sum(file.size for file in offer.files if file.name not in here)
    yield from _attempt(context.store.require, -(-needed // _MIB))


def _has_userfaultfd() -> bool:
    try:
        with open(_USERFAULTFD) as file:
            return file.read().strip() == "1"
    except OSError:
        return False


def _dotted(number: int) -> str:
    return f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}"


def refuse(instance: Instance, destination: str, problems: list[Problem]) -> None:
    """Refuse a migration with all problems found; return if there are none.

    :raises kvmdriver.exception.MigrationRefused: there are problems.
    """
    if problems:
        count = len(problems)
        raise exception.MigrationRefused(
            f"{instance.name} cannot move to {destination}: {count} reason{'s' * (count > 1)}",
            instance=instance.name,
            field="destination",
            value=destination,
            reasons=[problem.model_dump(exclude_none=True) for problem in problems],
        )
