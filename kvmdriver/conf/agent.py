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
        help="""
Topic of the RPC server. Agents and clients must agree on it. Questions and what agents ask each
other go to ``<topic>_reads`` and ``<topic>_peers``.
""",
    ),
    cfg.IntOpt(
        "workers",
        default=16,
        min=1,
        help="""
Number of requests that change something and are worked on at the same time, those that download
an image not counted. Further requests wait on the bus. Each costs a thread.
""",
    ),
    cfg.IntOpt(
        "read_workers",
        default=64,
        min=1,
        help="""
Number of questions (list, show, ping, progress) that are answered at the same time, each in a
thread that mostly waits for libvirt. They have a topic of their own, ``<topic>_reads``, and never
wait for requests that change something.
""",
    ),
    cfg.IntOpt(
        "peer_workers",
        default=16,
        min=1,
        help="""
Number of requests of other hosts' agents, about instances that move between hosts, that are worked
on at the same time. They have a topic of their own, ``<topic>_peers``, so that two hosts that are
both busy with migrations to each other do not wait for each other. Each costs a thread.
""",
    ),
    cfg.IntOpt(
        "downloads",
        default=4,
        min=1,
        help="""
Number of images that are downloaded at the same time. Each download has a thread of its own, beside
the workers: a server that hangs delays other downloads and nothing else.
""",
    ),
    cfg.IntOpt(
        "waiting_downloads",
        default=16,
        min=0,
        help="""
Number of requests that may wait for a download to begin. Further requests that need a download are
refused with the code ``agent_busy``. Each costs a thread.
""",
    ),
    cfg.FloatOpt(
        "shutdown_grace",
        default=10,
        min=0,
        help="""
Seconds that requests under way have to end after the agent was told to stop (SIGTERM). Then creates,
clones, snapshots and moved disks are cancelled, and have five seconds to undo themselves. What has
not ended by then is cut off, and mended at the next start of the agent.
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
