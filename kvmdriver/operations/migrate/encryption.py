"""Whether a migration can be encrypted, asked before anything moves."""

from typing import Literal

from oslo_config import cfg

from kvmdriver import exception
from kvmdriver.host import certificates
from kvmdriver.model import Problem
from kvmdriver.model.migration import MigrationKind
from kvmdriver.operations.migrate.offer import problem_of
from kvmdriver.storage import stream


def problems(
    conf: cfg.ConfigOpts, role: Literal["client", "server"], kind: MigrationKind, *, shared: bool
) -> list[Problem]:
    """Return what keeps this host from encrypting what it sends or receives, where required.

    :param conf: the group [kvm_migration].
    :param role: ``client`` on the source, ``server`` on the destination.
    :param shared: the hosts share the instance's directory: no file is sent.
    """
    memory = kind == "live" and not conf.tunnelled
    if not conf.native_tls or shared and not memory:
        return []
    found = certificates.problems(conf.tls_directory, role)
    if not found:
        try:
            stream.tls_context(conf.tls_directory, role)
        except exception.KVMDriverError as error:  # e.g. the key is not that of the certificate
            found.append(problem_of(error))
    return found
