"""Options of group [kvm_storage]: files of instances, images and the cache."""

from oslo_config import cfg, types

GROUP = cfg.OptGroup("kvm_storage", title="Storage", help="Where disks and images are kept.")

OPTS = [
    cfg.StrOpt(
        "instances_path",
        default="/var/lib/kvmdriver/instances",
        help="""
Directory with one subdirectory, named by its UUID, for each instance, and ``_base`` for the image
cache. QEMU's user must be able to traverse it. Changing it hides the instances created before.
Hosts may share it: each leaves the directories of the others alone. Nobody but root and QEMU's user
and group can read the files below it, so an agent that is not root must be in QEMU's group.
""",
    ),
    cfg.StrOpt(
        "disk_format",
        default="qcow2",
        help="""
Backend for disks that do not ask for one: an entry point in ``kvmdriver.disk_backends``. ``qcow2``
makes thin overlays over the cached image, in milliseconds; ``raw`` makes full copies.
""",
    ),
    cfg.ListOpt(
        "image_directories",
        default=["/var/lib/kvmdriver/images"],
        help="""
Directories below which a request over the message bus may name image files to read and snapshot
files to write. The local command line, run without an agent, may name any file that its user can
read. An empty list allows no file; ``/`` allows every file of the host to every RPC client.
""",
    ),
    cfg.ListOpt(
        "disk_directories",
        default=[],
        help="""
Directories to which disks may be moved out of ``instances_path``, e.g. on faster or larger storage:
kvmdriver server move disk. Each must exist, and QEMU must be able to reach it. Nobody but root and
the agent's user may write to it or to a directory above it, else moves there are refused. Disks are
removed with their instance; empty: disks stay in ``instances_path``.
""",
    ),
    cfg.IntOpt(
        "max_image_gib",
        default=500,
        min=1,
        help="""
Largest virtual size, in GiB, of an image that is accepted. Protects against images of a few
kilobytes that unfold to petabytes.
""",
    ),
    cfg.IntOpt(
        "reserved_disk_mib",
        default=256,
        min=0,
        help="""
Free space in MiB that is kept in the file system of instances_path. Requests that would write
into it are refused before they start, and images that take more than was known beforehand are
ended while they are downloaded, copied or unpacked: guests whose disks cannot grow are paused.
""",
    ),
    cfg.IntOpt(
        "qemu_img_memory_mib",
        default=4096,
        min=1024,
        help="""
Address space in MiB of a qemu-img process; the memory that it really uses is a small part of it.
One that needs more is ended.
""",
    ),
    cfg.IntOpt(
        "qemu_img_cpu_seconds",
        default=1800,
        min=1,
        help="CPU seconds of a qemu-img process. One that needs more is ended.",
    ),
    cfg.IntOpt(
        "download_timeout",
        default=30,
        min=1,
        help="""
Seconds without data after which a download is cut off, seconds that a server may take to begin its
answer, and seconds over which download_min_rate is averaged.
""",
    ),
    cfg.IntOpt(
        "download_connect_timeout",
        default=10,
        min=1,
        help="Seconds to connect to one address of an image server, TLS included.",
    ),
    cfg.IntOpt(
        "download_min_rate",
        default=64,
        min=0,
        help="""
KiB a second that an image server must send, averaged over download_timeout seconds; a download that
is slower fails. 0: no server is too slow, so that a few of them can keep all places for downloads.
""",
    ),
    cfg.IntOpt(
        "download_max_seconds",
        default=14400,
        min=1,
        help="Seconds that a download may take in all, attempts after an interruption included.",
    ),
    cfg.IntOpt(
        "download_attempts",
        default=5,
        min=1,
        help="""
How often a download is tried that is cut off. Each attempt goes on where the last one ended if the
server can send a part of a file, and starts over if not.
""",
    ),
    cfg.ListOpt(
        "image_url_schemes",
        default=["https", "http"],
        item_type=types.String(choices=["https", "http"], ignore_case=True),
        help="""
Schemes of URLs that images may be fetched by, also after a redirect. A redirect from https to http
is refused in any case. The required checksum protects an image that comes by http; nothing hides
it.
""",
    ),
    cfg.ListOpt(
        "image_url_ports",
        default=["80", "443", "8080", "8443"],
        item_type=types.Range(1, 65535),
        help="""
Ports, and ranges such as 9000-9010, from which images may be fetched, also after a redirect. Every
port that is added is one at which clients of the message bus can make this host knock.
""",
    ),
    cfg.ListOpt(
        "image_url_networks",
        default=[],
        help="""
Networks, such as 10.20.0.0/16, in which image servers may be; it is the resolved address of the
server that counts, also after a redirect. Empty: every address except loopback, link-local (cloud
metadata), multicast, unspecified and reserved ones, and IPv6 spellings of these. Such an address is
allowed by a network that lies within its block only, so 127.0.0.0/8 allows loopback and 0.0.0.0/0
does not. Private networks (RFC 1918) are allowed by default, since that is where image servers are
in most installations: name the network of yours here if clients of the message bus must not reach
the others through this host.
""",
    ),
    cfg.ListOpt(
        "image_url_denied_networks",
        default=[],
        help="""
Networks in which image servers may not be, even if image_url_networks allows them; for example that
of the hosts' management.
""",
    ),
    cfg.StrOpt(
        "image_url_ca_file",
        help="""
File with certificates, in PEM format, of the authorities that https servers of images are checked
with. Unset: those of the certifi package. The environment of the agent (proxies, .netrc,
certificates) is not used.
""",
    ),
    cfg.IntOpt(
        "cache_max_gib",
        default=100,
        min=0,
        help="""
Size in GiB up to which the image cache keeps images that no instance uses; those that were not used
for the longest time are removed first, when an image has been added and when the agent starts.
Images in use count, and stay. 0: no limit.
""",
    ),
    cfg.IntOpt(
        "cache_unused_days",
        default=30,
        min=0,
        help="""
Days without use after which an image is removed from the cache, when another image has been added
or when the agent starts. They count from when it was last taken or seen in use. 0: age is no reason.
""",
    ),
]
