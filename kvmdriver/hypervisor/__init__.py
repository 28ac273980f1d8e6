"""The only code that imports libvirt."""

import os

# Read when libvirt is imported. An embedded QEMU driver would log to our stderr, among it every look-up
# that finds nothing; its errors come back as exceptions anyway.
os.environ.setdefault("LIBVIRT_LOG_OUTPUTS", "3:file:/dev/null")
