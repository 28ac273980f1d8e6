"""Questions about CPUs: what guests can have here, and what a whole cluster has in common."""

from collections.abc import Sequence

from kvmdriver import exception
from kvmdriver.host import cpu as host_cpu
from kvmdriver.host import platform as host_platform
from kvmdriver.hypervisor import xml
from kvmdriver.hypervisor.capabilities import (
    DomainCapabilities,
    cpu_definition,
    parse_definition,
)
from kvmdriver.hypervisor.cpu import to_xml
from kvmdriver.model import Cpu, CpuComparison, CpuDefinition, CpuModelView, CpuView, GuestCpu
from kvmdriver.operations.context import Context, require_status


def show(context: Context) -> CpuView:
    """Return the CPUs that guests can have, for the configured virtualization and machine type."""
    hypervisor, capabilities = context.hypervisor, _capabilities(context)
    chooser = host_cpu.chooser(context.conf, hypervisor, capabilities)
    host = hypervisor.host_capabilities()
    granted = chooser.grantable()
    try:
        default = chooser.flags(chooser.choose(Cpu()))
    except exception.Unsupported:
        # a default that is not possible with this virtualization type is replaced per guest
        default = frozenset()
    return CpuView(
        host=context.host,
        virt_type=capabilities.virt_type,
        machine=capabilities.machine,
        vendor=host.cpu.vendor,
        host_cpu=host.cpu.model,
        modes=tuple(sorted(capabilities.cpu_modes | {"none"})),
        model=capabilities.host_model.model if capabilities.host_model else None,
        definition=to_xml(capabilities.host_model) if capabilities.host_model else None,
        flags=tuple(sorted(granted)),
        default=tuple(sorted(default)),
        host_only=_host_only(context, granted),
        security_missing=chooser.missing_security(),
        nested_policy=chooser.policy,
        nested_flag=chooser.nested_flag,
        nested_granted=chooser.can_nest(),
        models=tuple(
            CpuModelView(
                name=name,
                vendor=capabilities.cpu_vendors.get(name, "unknown"),
                usable=usable,
                missing=() if usable else chooser.why_unusable(name),
            )
            for name, usable in sorted(capabilities.cpu_models.items())
        ),
    )


def check_settings(context: Context) -> None:
    """Require that guests can have the CPU that is configured.

    :raises kvmdriver.exception.ConfigurationError: they cannot; the flags are named.
    """
    capabilities = _capabilities(context)
    mode = context.conf.kvm_cpu.mode
    fallen_back = capabilities.virt_type != context.conf.kvm.virt_type
    if fallen_back and not host_cpu.is_possible(mode, capabilities):
        return  # such guests get another mode
    host_cpu.chooser(context.conf, context.hypervisor, capabilities).check_settings()


def _host_only(context: Context, granted: frozenset[str]) -> tuple[str, ...]:
    """Return flags that the host's own CPU has beyond its model and that guests cannot have."""
    return tuple(sorted(set(context.hypervisor.host_capabilities().cpu.features) - granted))


def baseline(context: Context, cpus: Sequence[str], *, migratable: bool = True) -> str:
    """Return, as XML, the best CPU that all of the given ones contain.

    :raises kvmdriver.exception.KVMDriverError: one is no CPU, or they have nothing in common.
    """
    definitions = [parse(cpu, f"cpus.{position}") for position, cpu in enumerate(cpus)]
    asked = context.hypervisor.cpu(_capabilities(context))
    return to_xml(asked.baseline(definitions, migratable=migratable))


def compare(
    context: Context, cpu: str, *, virt_type: str | None = None, machine: str | None = None
) -> CpuComparison:
    """Return whether guests with a CPU could run here, and what is missing if not.

    :param virt_type: of the guest, else as configured; the same for ``machine``.
    """
    definition = parse(cpu, "cpu")
    asked = context.hypervisor.cpu(_capabilities(context, virt_type, machine))
    missing = asked.missing(definition)
    if missing:
        return CpuComparison(host=context.host, result="incompatible", missing=missing)
    result = "identical" if asked.is_identical(definition) else "superset"
    return CpuComparison.model_validate({"host": context.host, "result": result})


def parse(cpu: str, field: str) -> CpuDefinition:
    """Parse the CPU of a text.

    :raises kvmdriver.exception.InvalidRequest: the text has no CPU in it.
    """
    try:
        return parse_definition(cpu)
    except exception.InvalidRequest as error:
        error.field = field
        raise


def of_guest(context: Context, name_or_uuid: str) -> GuestCpu:
    """Return the CPU of a running guest, as another host must be able to give it.

    :raises kvmdriver.exception.InvalidState: it does not run, so that it has none yet.
    :raises kvmdriver.exception.Unsupported: libvirt cannot spell it out.
    """
    domain, record = context.find(name_or_uuid)
    require_status(domain, "reading its CPU", "running", "paused", remedies={})
    root = domain.xml()
    node = root.find("cpu")
    virt_type, machine = root.get("type", ""), xml.attribute(root, "os/type", "machine")
    if node is not None and node.findtext("model"):
        definition = cpu_definition(node)
    else:
        # host-passthrough and maximum: all that this host gives
        chooser = host_cpu.chooser(
            context.conf,
            context.hypervisor,
            context.hypervisor.domain_capabilities(virt_type, machine),
        )
        found = chooser.definition(record.instance.cpu)
        if found is None:
            raise exception.Unsupported(
                "libvirt cannot spell the guest's CPU out", instance=domain.name
            )
        definition = found
    return GuestCpu(
        instance=domain.name, virt_type=virt_type, machine=machine, definition=to_xml(definition)
    )


def _capabilities(
    context: Context, virt_type: str | None = None, machine: str | None = None
) -> DomainCapabilities:
    conf = context.conf
    return host_platform.guest_capabilities(
        context.hypervisor,
        virt_type or conf.kvm.virt_type,
        machine or conf.kvm.machine_type,
        # a guest that needs KVM is not helped by emulation
        fallback=conf.kvm.fallback_to_qemu and virt_type is None,
    )
