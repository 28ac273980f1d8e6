"""Another compute host, reached by ssh as the user of nova-compute: where disks of resized servers go.

The setting is nova's own (https://docs.openstack.org/nova/latest/admin/ssh-configuration.html):
the users of all nova-compute services can log in to each other without a password.
"""

import contextlib
import os
import re
import shlex
import subprocess
from collections.abc import Sequence

from oslo_concurrency import processutils
from oslo_utils import netutils, uuidutils

from kvmdriver import exception

# What follows "--" is no option for ssh, whatever it looks like.
_SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "--")

# A host name (RFC 1123, 2.1; underscores are seen in practice): never an option, user or URL.
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")


class RemoteHost:
    """Files of another host.

    :param address: host name or IP address; another compute service or the scheduler says it.
    :param transport: ``ssh`` or ``rsync``, as [libvirt] remote_filesystem_transport has it.
    :raises kvmdriver.exception.HostError: the address is neither.
    """

    def __init__(self, address: str, transport: str = "ssh"):
        if not _HOST_NAME.fullmatch(address) and not netutils.is_valid_ip(address):
            raise exception.HostError(
                "the address of the other host is neither a host name nor an IP address",
                field="host",
                value=address,
                remedy="correct [DEFAULT] my_ip in nova.conf of that host",
            )
        self._address = address
        self._transport = transport

    def make_directory(self, path: str, *, fresh: bool = False) -> None:
        """Make a directory.

        :param fresh: one that is there already is somebody else's, and an error.
        :raises kvmdriver.exception.HostError: the host cannot be reached, or does not let us.
        """
        self._run("mkdir", *(() if fresh else ("-p",)), "-m", "711", "--", path)

    def remove(self, path: str) -> None:
        """Remove a file or a directory with all that is in it; no error when there is none."""
        self._run("rm", "-rf", "--", path)

    def has(self, path: str) -> bool:
        """Whether a file is there.

        :raises kvmdriver.exception.HostError: the host cannot be asked, which is another answer.
        """
        question = shlex.join(("test", "-e", path))
        return self._ask(f"if {question}; then echo yes; else echo no; fi") == "yes"

    def shares(self, directory: str) -> bool:
        """Whether a directory of this host is one of the other's, too.

        :raises kvmdriver.exception.HostError: the host cannot be asked.
        """
        probe = os.path.join(directory, f"{uuidutils.generate_uuid()}.tmp")
        with open(probe, "w"):
            pass
        try:
            return self.has(probe)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(probe)

    def send(self, paths: Sequence[str], directory: str) -> None:
        """Copy files of one directory into one over there, without their holes.

        :raises kvmdriver.exception.HostError: they did not arrive.
        """
        if not paths:
            return
        if self._transport == "rsync":
            host = f"[{self._address}]" if ":" in self._address else self._address
            target = f"{host}:{directory}/"
            self._execute(
                "rsync", "--sparse", "--times", "--rsh", shlex.join(_SSH), "--", *paths, target
            )
            return
        names = [os.path.basename(path) for path in paths]
        packing = ("tar", "--sparse", "-C", os.path.dirname(paths[0]), "-cf", "-", "--", *names)
        unpacking = self._ssh(shlex.join(("tar", "-C", directory, "-xf", "-")))
        with (
            subprocess.Popen(packing, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as sender,
            subprocess.Popen(unpacking, stdin=sender.stdout, stderr=subprocess.PIPE) as receiver,
        ):
            assert sender.stdout is not None  # noqa: S101 it is a pipe
            sender.stdout.close()  # so that tar notices when the other end goes away
            _output, problems = receiver.communicate()
            complaints = sender.stderr.read() if sender.stderr else b""
        if receiver.returncode or sender.returncode:
            raise self._failure((problems + complaints).decode(errors="replace"))

    def _ssh(self, command: str) -> list[str]:
        return [*_SSH, self._address, command]

    def _run(self, *command: str) -> None:
        self._ask(shlex.join(command))

    def _ask(self, command: str) -> str:
        return self._execute(*self._ssh(command)).strip()

    def _execute(self, *command: str) -> str:
        try:
            return str(processutils.execute(*command)[0])
        except processutils.ProcessExecutionError as error:
            raise self._failure(str(error.stderr or error.stdout or error)) from None
        except OSError as error:
            raise self._failure(str(error)) from None

    def _failure(self, text: str) -> exception.HostError:
        return exception.HostError(
            f"{self._address}: {' '.join(text.split())[:300] or 'the command failed'}",
            field="host",
            value=self._address,
            remedy=f"see whether the user of nova-compute can log in there: ssh {self._address} true",
        )
