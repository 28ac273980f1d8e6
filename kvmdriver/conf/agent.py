"""Options of group [kvm_agent]: the oslo.messaging service."""

import socket

from oslo_config import cfg

GROUP = cfg.OptGroup(
    "kvm_agent", title="Agent", help="The agent that offers the driver over oslo.messaging."
)

OPTS = [
    cfg.StrOpt(
        "compute_driver",
        default="kvmdriver.KVMDriver",
        help="""
Name of the compute driver, an entry point in the namespace ``kvmdriver.compute_drivers``. A name
that is not installed keeps the agent from starting.
""",
    ),
    cfg.HostAddressOpt(
        "host",
        default=socket.gethostname(),
        sample_default="<hostname>",
        help="""
Name under which the agent is addressed on the message bus. It must be unique; two agents with the
same name would each take half of the messages.
""",
    ),
    cfg.StrOpt(
        "topic",
        default="kvmdriver",
        help="Topic of the RPC server. Agents and clients must agree on it.",
    ),
    cfg.IntOpt(
        "workers",
        default=16,
        min=1,
        help="""
Number of requests that are worked on at the same time. Further requests wait on the bus. Each
costs a thread.
""",
    ),
    cfg.IntOpt(
        "rpc_timeout",
        default=1800,
        min=1,
        help="""
Seconds that a client waits for the end of a long operation, e.g. a create with a large download.
A dead agent is noticed much sooner, see call_monitor_timeout.
""",
    ),
    cfg.IntOpt(
        "call_monitor_timeout",
        default=20,
        min=2,
        help="""
Seconds without a heartbeat of the agent after which a waiting client gives up. The agent sends
one at half this time while it works. Small values notice a dead agent sooner and are less
patient with a busy host.
""",
    ),
    cfg.StrOpt(
        "notification_topic",
        default="kvmdriver_notifications",
        help="""
Topic on which ``instance.create.start`` and its like are sent. An empty value switches
notifications off.
""",
    ),
]
