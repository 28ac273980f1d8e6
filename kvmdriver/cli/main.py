"""``kvmdriver``: the command line."""

import os
import sys
import warnings

# see kvmdriver/agent/service.py
warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
# futurist imports eventlet, which we do not use. Its DNS resolver takes a fifth of our start.
os.environ.setdefault("EVENTLET_NO_GREENDNS", "yes")

from oslo_service import backend  # noqa: E402

backend.init_backend(backend.BackendType.THREADING)

from kvmdriver.cli.shell import Shell  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Run one command; its exit status."""
    shell = Shell()
    status = shell.run(sys.argv[1:] if argv is None else argv)
    if shell.has_libvirt:
        # libvirt's event thread may be in one of our callbacks: it must not see the interpreter
        # being taken apart. libvirtd notices that we have gone, guests do not care.
        shell.stdout.flush()
        shell.stderr.flush()
        os._exit(status)
    return status


if __name__ == "__main__":
    sys.exit(main())
