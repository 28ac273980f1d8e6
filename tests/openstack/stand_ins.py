"""Commands that the services call, where this machine cannot have the real thing."""

import os

# Services that insist on it are root already, all but nova-compute.
SUDO = """#!/bin/sh
[ "$(id -u)" = 0 ] || exec /usr/bin/sudo "$@"
while [ "${1#-}" != "$1" ]; do shift; done
exec "$@"
"""

# The kernel of many a test machine has no NFS: its client is played by a file system in user space
# that shows the exported directory, and that libvirt takes for one that hosts share.
MOUNT_NFS = """#!/bin/sh
[ "$1" = -o ] && shift 2
[ $# = 2 ] || { echo "usage: mount.nfs [-o OPTIONS] HOST:DIRECTORY MOUNT-POINT" >&2; exit 1; }
exec bindfs -o "subtype=glusterfs,fsname=$1,allow_other" "${1#*:}" "$2"
"""
MOUNT = """#!/bin/sh
[ "$1 $2" = "-t nfs" ] && shift 2 && exec mount.nfs "$@"
exec /bin/mount "$@"
"""


def write(directory: str) -> None:
    """Put them where they are found before others of their names."""
    os.makedirs(directory, exist_ok=True)
    for name, script in {"sudo": SUDO, "mount": MOUNT, "mount.nfs": MOUNT_NFS}.items():
        path = os.path.join(directory, name)
        with open(path, "w") as file:
            file.write(script)
        os.chmod(path, 0o755)
