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
            ("none", "the hypervisor's default"),
        ],
        help="CPU mode of instances that do not ask for one.",
    ),
    cfg.ListOpt(
        "models",
        default=[],
        help="""
CPU models for mode custom, in order of preference; the first that this host can give is taken.
``virsh domcapabilities`` lists them.
""",
    ),
]
