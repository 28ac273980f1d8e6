"""What nova-compute checks and mends when it starts."""

from typing import Any

from nova import exception as nova_exception
from oslo_log import log as logging

from kvmdriver.host import check
from kvmdriver.host import cpu as host_cpu
from kvmdriver.host import platform as host_platform
from kvmdriver.nova import resources
from kvmdriver.nova.node import Node

LOG = logging.getLogger(__name__)


def prepare(node: Node) -> None:
    """Connect to libvirt and check that guests can run here.

    :raises kvmdriver.exception.KVMDriverError: they cannot, and why.
    """
    node.store.prepare()
    check.require_versions(node.conf, node.hypervisor)
    check.require_qemu_group(node.hypervisor)
    host_platform.choose_virt_type(node.hypervisor, node.conf.kvm.virt_type, fallback=False)
    host_cpu.chooser(node.conf, node.hypervisor, node.capabilities()).check_settings()
    resources.shared_cpus(node)
    resources.dedicated_cpus(node)
    if node.conf.devices.enabled_mdev_types:
        LOG.warning(
            "[devices] enabled_mdev_types is set, but kvmdriver gives guests no mediated devices: "
            "servers that ask for one are refused here"
        )
    for path in node.images.sweep():
        LOG.warning("removed %s, left by a process that was killed", path)


def check_instances(node: Node, instances: Any) -> None:
    """Pinned instances must fit the CPUs that the configuration has now.

    :raises nova.exception.InvalidConfiguration: one is pinned to a CPU that is no longer ours.
    """
    dedicated, shared = resources.dedicated_cpus(node), resources.shared_cpus(node)
    if not dedicated:
        dedicated = shared
    for instance in instances:
        topology = instance.numa_topology
        for cell in topology.cells if topology else ():
            lost = set((cell.cpu_pinning or {}).values()) - dedicated
            if lost:
                raise nova_exception.InvalidConfiguration(
                    f"instance {instance.uuid} is pinned to CPUs {sorted(lost)}, which are not in "
                    f"[compute] cpu_dedicated_set; put them back, or move the instance first"
                )
