"""What one migration may do: how fast, how long, and what happens when it does not converge."""

from oslo_config import cfg

from kvmdriver.model import MigrationOptions, MigrationPolicy

_GIB = 1024**3


def policy_of(
    conf: cfg.ConfigOpts, options: MigrationOptions, memory_mib: int, disk_bytes: int = 0
) -> MigrationPolicy:
    """Return what one migration may do, from the configuration and its own options.

    :param conf: the group [kvm_migration].
    :param disk_bytes: size of the disks that are copied.
    :raises kvmdriver.exception.InvalidRequest: the options contradict each other.
    """

    def chosen(name: str) -> object:
        value = getattr(options, name)
        return getattr(conf, name) if value is None else value

    downtime = int(str(chosen("downtime")))
    configured = max(downtime, conf.max_downtime)
    per_gib = int(str(chosen("completion_timeout")))
    amount = memory_mib * 1024**2 + disk_bytes
    return MigrationPolicy.parse(
        {
            "bandwidth": chosen("bandwidth"),
            "downtime": downtime,
            "max_downtime": configured if options.max_downtime is None else options.max_downtime,
            "downtime_steps": conf.downtime_steps,
            "auto_converge": chosen("auto_converge"),
            "post_copy": chosen("post_copy"),
            "timeout": per_gib * max(2.0, amount / _GIB) if per_gib else None,
            "timeout_action": chosen("timeout_action"),
        }
    )
