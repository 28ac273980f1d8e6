"""Options of group [kvm_cpu]: CPU models."""

from oslo_config import cfg

GROUP = cfg.OptGroup("kvm_cpu", title="CPU", help="Which CPU guests see.")

OPTS = [
    cfg.StrOpt(
        "mode",
        default="host-model",
        choices=[
            ("host-model", "the host's CPU as a named model with features; can migrate"),
            ("host-passthrough", "exactly the host's CPU; migrates to identical hosts only"),
            ("maximum", "all that the hypervisor can give"),
            ("custom", "the first usable one of models"),
            ("baseline", "the CPU in baseline_file, one for all hosts of a cluster"),
            ("none", "the hypervisor's default"),
        ],
        help="CPU mode of instances that do not ask for one.",
    ),
    cfg.ListOpt(
        "models",
        default=[],
        help="""
CPU models for mode custom, in order of preference; the first that this host can give is taken.
``kvmdriver cpu models`` lists them.
""",
    ),
    cfg.StrOpt(
        "baseline_file",
        help="""
File with the CPU for mode baseline, as ``kvmdriver cpu baseline HOST... --output FILE`` writes it.
Every host of the cluster needs the same file; guests that start with it can migrate to each of
them. The agent does not start when this host cannot give that CPU.
""",
    ),
    cfg.ListOpt(
        "features",
        default=[],
        help="""
CPU flags that every guest gets or does not get in any mode but none: ``+name`` (or ``name``) and
``-name``, e.g. ``+pdpe1gb,-pcid``. The agent does not start when this host cannot give a flag.
""",
    ),
    cfg.BoolOpt(
        "security_features",
        default=True,
        help="""
Add the flags by which guests defend themselves against speculative execution (spec-ctrl, ssbd,
md-clear, amd-ssbd, ...) to a named model, where the host has them. Without them guests are
exposed; with them they can migrate to hosts only that have them, too. The other modes have them
from the host, and a baseline has what all its hosts have.
""",
    ),
]
