"""Options of group [kvm_migration]: moving instances between hosts."""

import socket

from oslo_config import cfg

GROUP = cfg.OptGroup(
    "kvm_migration", title="Migration", help="Moving instances between hosts, running or not."
)

OPTS = [
    cfg.HostAddressOpt(
        "inbound_address",
        default=socket.gethostname(),
        sample_default="<hostname>",
        help="""
Address or name under which other hosts reach this one when they send an instance here: its
libvirtd, its QEMUs and its agent. With TLS it must be in the host's certificate. Put a network of
its own here to keep migrations off the others.
""",
    ),
    cfg.StrOpt(
        "transport",
        default="tls",
        choices=[
            ("tls", "encrypted and authenticated by certificates, port 16514"),
            ("tcp", "in the clear, port 16509: for networks that nobody else is on"),
        ],
        help="""
How the source's libvirtd reaches that of the destination
(https://libvirt.org/remote.html#transports). libvirtd there must listen for it. What goes through
this connection is the control of a migration, and with ``tunnelled`` the memory.
""",
    ),
    cfg.BoolOpt(
        "native_tls",
        default=True,
        help="""
Whether what leaves the host is encrypted: the memory and the disks that QEMU sends (libvirt's
VIR_MIGRATE_TLS), and the files that the agents send to each other. Both hosts need certificates in
``tls_directory`` and the same value here; a migration without them is refused before anything
moves. False sends guests' memory, disks and passwords in the clear: only for networks that nobody
else is on. Encryption costs CPU time, some 10 to 30 % of throughput. With ``tunnelled`` the memory
goes through the connection of ``transport``, and is encrypted as that is.
""",
    ),
    cfg.StrOpt(
        "tls_directory",
        default="/etc/pki/qemu",
        help="""
Directory of QEMU's certificates, the same as default_tls_x509_cert_dir in libvirt's qemu.conf
unless that names another for migration: ca-cert.pem, server-cert.pem, server-key.pem, and
client-cert.pem with client-key.pem where clients have their own.
""",
    ),
    cfg.BoolOpt(
        "tunnelled",
        default=False,
        help="""
Whether the memory goes through the connection of the two libvirtds instead of one of its own. One
port less to open, slower, without parallel connections, and not possible when local disks move.
""",
    ),
    cfg.IntOpt(
        "parallel_connections",
        default=1,
        min=1,
        max=255,
        help="""
Connections that send the memory at the same time (QEMU's multifd). More fill links that one CPU
cannot; 1 sends in the usual way. Not possible together with post-copy or tunnelled.
""",
    ),
    cfg.IntOpt(
        "bandwidth",
        default=0,
        min=0,
        help="""
Most that one migration may send, in MiB/s; 0 leaves it to the link. A limit below the rate at
which a guest dirties its memory keeps the migration from ending.
""",
    ),
    cfg.StrOpt(
        "ports",
        default="",
        help="""
Range of TCP ports, e.g. 49152-49215, of which each migration to this host takes one for memory,
one for disks and one for files. Empty: libvirt's and the kernel's own choice (qemu.conf,
migration_port_min). A range that is used up refuses further migrations.
""",
    ),
    cfg.IntOpt(
        "downtime",
        default=300,
        min=1,
        help="""
Longest pause of the guest at the switch-over, in ms, that is tried first. QEMU switches over as
soon as what is left can be sent within it.
""",
    ),
    cfg.IntOpt(
        "max_downtime",
        default=1000,
        min=1,
        help="""
Longest pause, in ms, that is allowed to a guest that dirties its memory about as fast as it can
be sent. It is reached in ``downtime_steps`` steps. Large values break connections into the guest.
""",
    ),
    cfg.IntOpt(
        "downtime_steps",
        default=5,
        min=1,
        max=50,
        help="Steps from ``downtime`` to ``max_downtime``, each taken when the one before is not "
        "enough. One step goes there at once.",
    ),
    cfg.BoolOpt(
        "auto_converge",
        default=False,
        help="""
Whether QEMU may slow a guest's CPUs down, more and more, when it dirties its memory faster than
it can be sent. The guest loses up to 99 % of its CPU time until it has moved.
""",
    ),
    cfg.BoolOpt(
        "post_copy",
        default=False,
        help="""
Whether a guest that does not converge may be switched over at once and fetch the rest of its
memory from the source afterwards. Always ends; but when the link or the source dies in that
phase, the guest dies with it and is started again from its disks. Needs a destination with
vm.unprivileged_userfaultfd = 1, else it is left out, with a warning.
""",
    ),
    cfg.IntOpt(
        "completion_timeout",
        default=800,
        min=0,
        help="""
Seconds, for each GiB of memory and of disks that are copied and at least for two, after which a
migration that has not ended is dealt with by ``timeout_action``. 0: never.
""",
    ),
    cfg.StrOpt(
        "timeout_action",
        default="abort",
        choices=[
            ("abort", "give up; the guest stays where it is"),
            ("post-copy", "switch over at once where post_copy allows it, else abort"),
            ("pause", "pause the guest until it has moved"),
        ],
        help="What becomes of a migration that takes longer than ``completion_timeout``.",
    ),
    cfg.IntOpt(
        "dirty_rate_seconds",
        default=1,
        min=0,
        max=60,
        help="""
Seconds for which a guest's dirty rate is measured before it moves, to tell whether and when the
migration will end. 0: it is not measured.
""",
    ),
]
