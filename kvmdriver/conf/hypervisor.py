"""Options of group [kvm]: the connection to libvirt and what guests run on."""

from oslo_config import cfg

GROUP = cfg.OptGroup(
    "kvm", title="Hypervisor", help="How kvmdriver reaches libvirt and what guests run on."
)

OPTS = [
    cfg.StrOpt(
        "uri",
        default="qemu:///system",
        help="""
libvirt connection URI. ``qemu:///system`` is the host's libvirtd. ``qemu:///embed?root=/some/dir``
runs the QEMU driver inside the agent itself, without a daemon and without virtual networks.
Changing it makes the agent look for its guests elsewhere; those on the old URI keep running.
""",
    ),
    cfg.StrOpt(
        "virt_type",
        default="kvm",
        choices=[
            ("kvm", "hardware virtualization through /dev/kvm"),
            ("qemu", "software emulation: runs anywhere, many times slower"),
        ],
        help="Virtualization of instances that do not ask for one themselves.",
    ),
    cfg.BoolOpt(
        "fallback_to_qemu",
        default=False,
        help="""
Run an instance under software emulation when KVM is asked for and this host has no usable
/dev/kvm. False refuses such an instance with an error that says how to make KVM usable; True
starts it many times slower and logs a warning.
""",
    ),
    cfg.StrOpt(
        "machine_type",
        default="q35",
        help="""
Machine type of instances that do not ask for one, e.g. ``q35``, ``pc`` or ``pc-q35-7.2``. A name
without a version is resolved to the newest one when the instance is created and stays the same
for its life.
""",
    ),
    cfg.FloatOpt(
        "call_timeout",
        default=60,
        min=1,
        help="""
Seconds that one libvirt call of a change may take. After that the caller gets an error: that the
guest does not answer, if libvirtd does, or else that libvirtd does not, and then the connection is
given up and opened again in the background. Saving a guest and other calls whose duration depends
on the guest's size have ten times as long.
""",
    ),
    cfg.FloatOpt(
        "read_timeout",
        default=3,
        min=0.5,
        help="""
Seconds that libvirt may take for a question: list, show, diagnostics, the host. When they have
passed, the question fails with an error within another second. Larger values make questions wait
longer for a libvirtd that hangs, smaller ones fail on a host that is merely slow. What needs an
answer of a guest's QEMU or agent has two thirds of it, and is then shown as unknown.
""",
    ),
    cfg.IntOpt(
        "keepalive_interval",
        default=5,
        min=0,
        help="""
Seconds between keepalive messages to libvirtd. A libvirtd that misses keepalive_count of them is
considered dead. 0 switches them off: a hung libvirtd is then noticed by call_timeout only.
""",
    ),
    cfg.IntOpt(
        "keepalive_count",
        default=3,
        min=1,
        help="Number of unanswered keepalive messages after which libvirtd is considered dead.",
    ),
    cfg.FloatOpt(
        "shutdown_timeout",
        default=60,
        min=0,
        help="""
Seconds that a guest has to shut down after its ACPI power button was pressed, for stop and soft
reboot that name no time of their own. After that it is switched off. 0 switches off at once.
""",
    ),
    cfg.IntOpt(
        "reserved_host_memory_mib",
        default=512,
        min=0,
        help="""
Memory in MiB that is kept for the host. An instance whose maximum memory does not fit into the
host's memory less this amount is refused.
""",
    ),
    cfg.IntOpt(
        "spare_pcie_ports",
        default=4,
        min=0,
        max=16,
        help="""
Free PCIe slots that an instance on a q35 machine gets at creation. Each disk or interface that is
attached to the running guest takes one; there is no way to add slots later.
""",
    ),
]
