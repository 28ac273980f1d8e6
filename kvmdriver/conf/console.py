"""Options of group [kvm_console]: serial and graphical consoles."""

from oslo_config import cfg

GROUP = cfg.OptGroup("kvm_console", title="Consoles", help="Access to guests' consoles.")

OPTS = [
    cfg.HostAddressOpt(
        "listen",
        default="127.0.0.1",
        help="""
Address on which VNC servers and the serial console relay listen. Any other address than a
loopback one opens guests' consoles to the network: VNC traffic is not encrypted.
""",
    ),
    cfg.FloatOpt(
        "relay_timeout",
        default=60,
        min=1,
        help="""
Seconds within which a client must connect to a serial console that it asked for. After that the
port is closed.
""",
    ),
    cfg.IntOpt(
        "max_consoles",
        default=64,
        min=1,
        help="""
Most serial consoles that are open or waited for at the same time on this host. Each that is open
takes a thread and a socket; further requests are refused.
""",
    ),
    cfg.IntOpt(
        "log_kib",
        default=100,
        min=1,
        help="Most KiB of a console log that one request returns, counted from its end.",
    ),
]
