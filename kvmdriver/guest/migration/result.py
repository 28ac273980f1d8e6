"""Errors of libvirt about a migration, as errors of the driver."""

from kvmdriver import exception
from kvmdriver.hypervisor.connection import PendingCall


def migration_result(pending: PendingCall) -> None:
    """Raise the error that has ended a migration; return if the migration succeeded.

    :raises kvmdriver.exception.MigrationAborted: somebody has aborted it.
    :raises kvmdriver.exception.HypervisorUnavailable: libvirtd went away; the guest may be anywhere.
    :raises kvmdriver.exception.MigrationFailed: libvirt could not move the guest.
    """
    try:
        pending.result()
    except (exception.HypervisorUnavailable, exception.MigrationAborted):
        raise
    except exception.KVMDriverError as error:
        raise exception.MigrationFailed(
            error.message, instance=error.instance, remedy=error.remedy
        ) from error
