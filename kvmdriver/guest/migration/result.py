"""What libvirt answers to a migration, in the terms of the driver."""

from kvmdriver import exception
from kvmdriver.hypervisor.connection import PendingCall


def migration_result(pending: PendingCall) -> None:
    """:raises kvmdriver.exception.KVMDriverError: libvirt could not move the guest."""
    try:
        pending.result()
    except exception.HypervisorUnavailable:
        raise
    except exception.MigrationAborted:
        raise
    except exception.KVMDriverError as error:
        raise exception.MigrationFailed(
            error.message, instance=error.instance, remedy=error.remedy
        ) from error
