"""The driver's options, one module for each group; all of them are registered here."""

from oslo_config import cfg

from kvmdriver.conf import agent, console, cpu, hypervisor, migration, nested, storage

_MODULES = (hypervisor, agent, storage, cpu, nested, migration, console)
_PRIVILEGED = (
    cfg.OptGroup(
        "kvm_privsep",
        "Privileged process for reading",
        "The process that reads console logs and counters of KVM for an agent that is not root.",
    ),
    cfg.OptGroup(
        "kvm_privsep_modules",
        "Privileged process for modules",
        "The process that loads modules of KVM for kvmdriver host nested enable.",
    ),
    cfg.OptGroup(
        "kvm_privsep_processes",
        "Privileged process for signals",
        "The process that ends a QEMU which libvirt has lost.",
    ),
)


def register_opts(conf: cfg.ConfigOpts) -> cfg.ConfigOpts:
    """Make every option of the driver known to ``conf``, and return it."""
    for module in _MODULES:
        # a group of its own for each conf: a shared one would also share what is overridden
        group = cfg.OptGroup(module.GROUP.name, module.GROUP.title, module.GROUP.help)
        conf.register_group(group)
        conf.register_opts(module.OPTS, group=group)
    return conf


def list_opts() -> list[tuple[cfg.OptGroup, list[cfg.Opt]]]:
    """Return all options by group, for oslo-config-generator and oslo-config-validator.

    The groups of the privileged processes are among them. oslo.privsep registers those itself.
    """
    # not at the top: who only wants options does not need oslo.privsep
    from oslo_privsep import priv_context

    ours = [(module.GROUP, list(module.OPTS)) for module in _MODULES]
    return [*ours, *((group, list(priv_context.OPTS)) for group in _PRIVILEGED)]
