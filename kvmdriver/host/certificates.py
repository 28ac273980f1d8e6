"""The certificates that QEMU needs to encrypt a migration, looked at before it is needed.

Names and meaning: https://www.qemu.org/docs/master/system/tls.html.
"""

import datetime
import os
from typing import Literal

from cryptography import x509

from kvmdriver.model import Problem

_ENOUGH = datetime.timedelta(hours=1)
_AUTHORITY = "ca-cert.pem"


def problems(
    directory: str, role: Literal["client", "server"], *, now: datetime.datetime | None = None
) -> list[Problem]:
    """Return what keeps QEMU on this host from encrypting a migration.

    A client without a certificate of its own uses the server's, as libvirt has it.

    :param role: ``client`` on the source, ``server`` on the destination.
    """
    if role == "client" and not os.path.exists(os.path.join(directory, "client-cert.pem")):
        role = "server"
    found = []
    now = now or datetime.datetime.now(datetime.UTC)
    for name in (_AUTHORITY, f"{role}-cert.pem"):
        path = os.path.join(directory, name)
        try:
            with open(path, "rb") as file:
                certificate = x509.load_pem_x509_certificate(file.read())
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no certificate"
            found.append(_problem(f"{path} cannot be used: {reason}"))
            continue
        if certificate.not_valid_after_utc < now + _ENOUGH:
            found.append(
                _problem(f"{path} expires at {certificate.not_valid_after_utc:%F %T} UTC")
            )
        elif certificate.not_valid_before_utc > now:
            start = certificate.not_valid_before_utc
            found.append(_problem(f"{path} is not valid before {start:%F %T} UTC"))
    key = os.path.join(directory, f"{role}-key.pem")
    if not os.path.exists(key):
        found.append(_problem(f"{key} does not exist"))
    return found


def _problem(message: str) -> Problem:
    return Problem(
        code="tls",
        field="kvm_migration.tls_directory",
        message=message,
        remedy="install the certificates of your authority there, or set native_tls to false",
    )
