"""Options of group [kvm_storage]: files of instances, images and the cache."""

from oslo_config import cfg

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
into it are refused before they start.
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
        help="Seconds without data after which the download of an image fails.",
    ),
]
