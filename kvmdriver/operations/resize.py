"""Changing memory and vCPUs: live up to the maximum, the maximum itself while stopped."""

import contextlib

from lxml import etree

from kvmdriver import exception
from kvmdriver.definition.memory import dimm
from kvmdriver.guest.agent import agent_connected
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.record import Record, Task, TaskName
from kvmdriver.model import DIMM_MIB, Memory, Status, Vcpus
from kvmdriver.operations.context import Context, require_status
from kvmdriver.operations.resolve import check_memory

_CHANGEABLE: tuple[Status, ...] = ("running", "paused", "stopped", "crashed")
_RESUME = {"suspended": "resume it first: its saved memory has the size that it has now"}
_STOP = "stop it first: kvmdriver server stop NAME"

# The balloon of an idle guest moves within a second; one that does not move at all has no driver.
_BALLOON_SECONDS = 10


def set_memory(
    context: Context,
    name_or_uuid: str,
    current_mib: int | None = None,
    maximum_mib: int | None = None,
    *,
    request_id: str | None = None,
) -> Memory:
    """Change an instance's memory, in MiB; None leaves a number unchanged.

    A running guest's balloon moves between nothing and the maximum; an instance with growth
    hotplug gets memory modules instead, which stay until it is removed.

    :raises kvmdriver.exception.InvalidState: the maximum of a running instance.
    """
    with context.exclusively(name_or_uuid) as (domain, record):
        old = record.instance.memory
        assert old is not None  # noqa: S101 always chosen at creation
        if record.done(request_id) is not None:
            return old
        status = require_status(domain, "a change of memory", *_CHANGEABLE, remedies=_RESUME)
        live = status in ("running", "paused")
        maximum = old.maximum_mib if maximum_mib is None else maximum_mib
        current = min(old.current_mib, maximum) if current_mib is None else current_mib
        if current > maximum:
            raise exception.InvalidRequest(
                f"the instance can have at most {maximum} MiB",
                field="current_mib",
                value=current,
                remedy="stop the instance and raise its maximum, or ask for less",
            )
        if old.growth == "hotplug":
            _check_modules(old, current)
        new = Memory.parse({**old.model_dump(), "current_mib": current, "maximum_mib": maximum})
        if maximum != old.maximum_mib:
            _check_maximum(context, domain, new, live)
        wanted = record.instance.changed(memory=new)
        with context.task(domain, record, TaskName.MEMORY, request_id, wanted=wanted):
            if maximum != old.maximum_mib:
                domain.set_maximum_memory(maximum)
            if new.growth == "hotplug":
                if current != old.current_mib:
                    domain.attach(dimm(current - old.current_mib), live=live, config=True)
            elif live:
                with context.events.expect(domain.uuid, "balloon-changed") as moved:
                    domain.set_memory(current, live=True, config=True)
                    moved.wait(_BALLOON_SECONDS)
            else:
                domain.set_memory(current, live=False, config=True)
        return new


def _check_maximum(context: Context, domain: Domain, new: Memory, live: bool) -> None:
    if live:
        raise exception.InvalidState(
            "the maximum memory of a running instance cannot be changed",
            field="maximum_mib",
            value=new.maximum_mib,
            instance=domain.name,
            remedy=_STOP,
        )
    if new.growth == "hotplug":
        raise exception.Unsupported(
            "the maximum of an instance with growth hotplug is fixed at creation",
            field="maximum_mib",
            value=new.maximum_mib,
            instance=domain.name,
            remedy="create it with a larger maximum; unused address space costs nothing",
        )
    check_memory(context, new, "maximum_mib")


def _check_modules(old: Memory, current_mib: int) -> None:
    grow = current_mib - old.current_mib
    if grow < 0 or grow % DIMM_MIB:
        raise exception.InvalidRequest(
            f"memory grows in modules of {DIMM_MIB} MiB, and modules are not taken out",
            field="current_mib",
            value=current_mib,
            remedy=f"ask for {old.current_mib} MiB plus a multiple of {DIMM_MIB}",
        )


def set_vcpus(
    context: Context,
    name_or_uuid: str,
    current: int | None = None,
    maximum: int | None = None,
    *,
    request_id: str | None = None,
) -> Vcpus:
    """Change the number of vCPUs; None leaves a number unchanged.

    :raises kvmdriver.exception.Unsupported: unplugging under emulation: QEMU's TCG does not
        survive it.
    :raises kvmdriver.exception.InvalidState: the maximum of a running instance.
    """
    with context.exclusively(name_or_uuid) as (domain, record):
        old = record.instance.vcpus
        if record.done(request_id) is not None:
            return old
        status = require_status(domain, "a change of vCPUs", *_CHANGEABLE, remedies=_RESUME)
        live = status in ("running", "paused")
        top = old.maximum if maximum is None else maximum
        count = min(old.current, top) if current is None else current
        if count > top:
            raise exception.InvalidRequest(
                f"the instance can have at most {top} vCPUs",
                field="current",
                value=count,
                remedy="stop the instance and raise its maximum, or ask for fewer",
            )
        new = Vcpus.parse({"current": count, "maximum": top})
        instance = record.instance
        if top != old.maximum:
            _check_maximum_vcpus(context, domain, instance.cpu.topology is not None, top, live)
        if live and count < old.current and instance.virt_type == "qemu":
            raise exception.Unsupported(
                "vCPUs cannot be unplugged from a guest under software emulation",
                field="current",
                value=count,
                instance=domain.name,
                remedy=_STOP,
            )
        wanted = instance.changed(vcpus=new)
        with context.task(domain, record, TaskName.VCPUS, request_id, wanted=wanted):
            _set_vcpus(domain, new, live and count != old.current)
            if live and count > old.current:
                _bring_online(domain, count)
        return new


def _set_vcpus(domain: Domain, new: Vcpus, live: bool) -> None:
    """Have the persistent definition, and perhaps the running guest, match ``new``."""
    maximum = _vcpus_of(domain.xml(inactive=True))[1]
    if new.maximum > maximum:
        domain.set_maximum_vcpus(new.maximum)
    domain.set_vcpus(new.current, live=live, config=True)
    if new.maximum < maximum:
        domain.set_maximum_vcpus(new.maximum)


def _check_maximum_vcpus(
    context: Context, domain: Domain, has_topology: bool, maximum: int, live: bool
) -> None:
    if live:
        raise exception.InvalidState(
            "the maximum number of vCPUs of a running instance cannot be changed",
            field="maximum",
            value=maximum,
            instance=domain.name,
            remedy=_STOP,
        )
    if has_topology:
        raise exception.Unsupported(
            "the number of vCPUs is fixed by the instance's CPU topology",
            field="maximum",
            value=maximum,
            instance=domain.name,
        )


def _bring_online(domain: Domain, count: int) -> None:
    """Have the guest agent bring vCPUs online. Most guests do that by themselves."""
    root: etree._Element = domain.xml()
    if agent_connected(root):
        with contextlib.suppress(exception.KVMDriverError):
            domain.bring_vcpus_online(count)


# What a process has left that died, or that lost libvirt. libvirt changes the running guest first
# and writes the persistent definition last.

Sizes = tuple[int, int]
"""What the guest has now, and what it can have at most: MiB of memory, or vCPUs."""


def decide(old: Sizes, wanted: Sizes, config: Sizes, live: int | None) -> bool:
    """Decide whether a change of sizes is finished; it is undone otherwise.

    It is finished if any step of it can be seen, since vCPUs and modules are not taken out again.

    :param config: what the persistent definition has.
    :param live: what the running guest has; None while it is off.
    """
    return config != old or (live is not None and wanted[0] != old[0] and live == wanted[0])


def mend_memory(_context: Context, domain: Domain, record: Record, task: Task) -> bool:
    """Have all sizes of memory old or all new; return whether they are new."""
    old, wanted = record.instance.memory, task.wanted.memory if task.wanted else None
    assert old is not None and wanted is not None  # noqa: S101 always chosen at creation
    running = domain.xml() if domain.is_active() else None
    config = _memory_of(domain.xml(inactive=True), old.growth)
    live = _memory_of(running, old.growth)[0] if running is not None else None
    forward = decide(_sizes(old), _sizes(wanted), config, live)
    if old.growth == "hotplug":
        if forward and config[0] != wanted.current_mib:
            domain.attach(dimm(wanted.current_mib - config[0]), live=False, config=True)
        return forward
    end = wanted if forward else old
    if config[1] != end.maximum_mib:
        domain.set_maximum_memory(end.maximum_mib)
    # a balloon takes its time: what the guest has now does not tell what it was last asked for
    domain.set_memory(end.current_mib, live=running is not None, config=True)
    return forward


def mend_vcpus(_context: Context, domain: Domain, record: Record, task: Task) -> bool:
    """Have all numbers of vCPUs old or all new; return whether they are new."""
    assert task.wanted is not None  # noqa: S101 the task has noted it
    old, wanted = record.instance.vcpus, task.wanted.vcpus
    config = _vcpus_of(domain.xml(inactive=True))
    live = _vcpus_of(domain.xml())[0] if domain.is_active() else None
    forward = decide((old.current, old.maximum), (wanted.current, wanted.maximum), config, live)
    if forward:
        _set_vcpus(domain, wanted, live is not None and live != wanted.current)
    return forward


def _sizes(memory: Memory) -> Sizes:
    return memory.current_mib, memory.maximum_mib


def _memory_of(root: etree._Element, growth: str) -> Sizes:
    """Return what a definition gives the guest; libvirt writes KiB (formatdomain.html, memory)."""

    def mib(tag: str) -> int:
        return int(root.findtext(tag) or 0) // 1024

    if growth == "hotplug":
        return mib("memory"), mib("maxMemory")
    return mib("currentMemory"), mib("memory")


def _vcpus_of(root: etree._Element) -> Sizes:
    node = root.find("vcpu")
    assert node is not None  # noqa: S101 every domain has it
    maximum = int(node.text or 0)
    return int(node.get("current", maximum)), maximum
