"""Options of group [kvm_nested]: virtual machines inside of guests."""

from oslo_config import cfg

GROUP = cfg.OptGroup(
    "kvm_nested", title="Nested virtualization", help="Virtual machines inside of guests."
)

OPTS = [
    cfg.StrOpt(
        "policy",
        default="on-request",
        choices=[
            ("off", "no guest ever sees vmx or svm, in any CPU mode"),
            ("on-request", "guests that ask for it get it"),
            ("on", "every guest gets it where the host grants it"),
        ],
        help="""
Which guests may run virtual machines themselves. A guest asks with ``nested`` in its request, or
in OpenStack with trait:HW_CPU_X86_VMX=required or trait:HW_CPU_X86_SVM=required in flavor or
image. A request that the host cannot grant is refused before anything is made.
""",
    ),
    cfg.StrOpt(
        "running_l2",
        default="auto",
        choices=[
            ("auto", "by vendor and kernel, as the kernel's documentation has it"),
            ("refuse", "never"),
            ("warn", "always, with a warning in the log"),
            ("allow", "always"),
        ],
        help="""
Whether a guest that runs virtual machines itself may be suspended to disk or migrated live. On
Intel hosts it works since Linux 5.3; on AMD hosts its state may be damaged
(https://docs.kernel.org/virt/kvm/x86/running-nested-guests.html). Such a guest is recognised
by KVM's statistics in /sys/kernel/debug/kvm, where the kernel exports them.
""",
    ),
    cfg.DictOpt(
        "kvm_intel_options",
        default={"nested": "1"},
        help="""
Parameters of the module kvm_intel that ``kvmdriver host nested enable`` writes, e.g.
``nested:1,ept:1,enable_shadow_vmcs:1,enable_apicv:1``.
""",
    ),
    cfg.DictOpt(
        "kvm_amd_options",
        default={"nested": "1"},
        help="""
Parameters of the module kvm_amd that ``kvmdriver host nested enable`` writes, e.g.
``nested:1,npt:1,avic:1,vgif:1``.
""",
    ),
]
