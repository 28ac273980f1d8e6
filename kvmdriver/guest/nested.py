"""Whether the state of a guest that may run virtual machines itself may leave the host."""

import logging

from oslo_config import cfg
from oslo_privsep.daemon import FailedToDropPrivileges

from kvmdriver import exception, privsep
from kvmdriver.host.nested import NestedHost, may_move
from kvmdriver.hypervisor.domain import Domain

LOG = logging.getLogger(__name__)


def require_movable(conf: cfg.ConfigOpts, domain: Domain, operation: str) -> None:
    """Require that a guest's state can be saved or migrated.

    :param operation: what is about to be done, for the message.
    :raises kvmdriver.exception.InvalidState: the guest has run virtual machines itself, and
        [kvm_nested] running_l2 refuses.
    """
    policy = conf.kvm_nested.running_l2
    if policy == "allow" or domain.xml().get("type") != "kvm":
        return
    entered = _entered(domain.name)
    host = NestedHost().view()
    if not host.nested:
        return
    allowed = may_move(policy, host.vendor, host.kernel, entered)
    if allowed is None:
        LOG.warning(
            "%s: %s may damage the virtual machines that this guest runs itself, if it does",
            domain.name,
            operation,
        )
    if allowed is False:
        raise exception.InvalidState(
            f"{operation} would damage the guest: it has run virtual machines itself, whose state "
            f"{host.vendor} hosts with Linux {host.kernel} cannot save",
            field="nested",
            value=True,
            instance=domain.name,
            remedy="shut the guest down instead, or set [kvm_nested] running_l2 to warn or allow",
        )


def _entered(name: str) -> bool | None:
    """Return whether a guest has run virtual machines itself; None where that cannot be told."""
    try:
        return privsep.entered_l2(privsep.qemu_pid(name))
    except FailedToDropPrivileges:
        LOG.warning(
            "%s: the privileged process cannot be started: for nova-compute, copy "
            "kvmdriver.filters to /etc/nova/rootwrap.d",
            name,
        )
    except (OSError, ValueError):
        pass
    return None
